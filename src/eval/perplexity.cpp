#include "eval/perplexity.h"

#include <fmt/format.h>

#include <cmath>

#include "engine/prompt_outputs.h"
#include "eval/token_scores.h"
#include "ops/sampling.h"

namespace lanner::eval {

Status run_window(Engine& engine, std::span<const std::int32_t> window,
                  const std::function<void(std::int64_t, std::span<const float>)>& use_row) {
  const std::int64_t last = static_cast<std::int64_t>(window.size()) - 1;
  return for_each_logits_row(engine, window, [&](std::int64_t row, std::span<const float> logits) {
    if (row < last) use_row(row, logits);
  });
}

Result<std::vector<std::span<const std::int32_t>>> checked_windows(const Engine& engine,
                                                                   std::span<const std::int32_t> tokens,
                                                                   const WindowOptions& options) {
  if (options.seqlen < 2 || options.seqlen > engine.session_len()) {
    return invalid_argument(fmt::format("a window of {} tokens: must be 2 to {}, the model's longest context",
                                        options.seqlen, engine.session_len()));
  }
  if (static_cast<std::int64_t>(tokens.size()) < options.seqlen) {
    return invalid_argument(
        fmt::format("the text has {} tokens, fewer than one window of {}", tokens.size(), options.seqlen));
  }
  for (const std::int32_t token : tokens) {
    if (token < 0 || token >= engine.vocab_size()) {
      return invalid_argument(
          fmt::format("the text holds token id {}, but the model has {} tokens", token, engine.vocab_size()));
    }
  }
  return cut_windows(tokens, options.seqlen, options.max_windows);
}

Result<Perplexity> measure_perplexity(Engine& engine, std::span<const std::int32_t> tokens,
                                      const WindowOptions& options) {
  LANNER_ASSIGN_OR_RETURN(const auto windows, checked_windows(engine, tokens, options));
  const auto count = static_cast<std::int64_t>(windows.size());
  Perplexity result;
  result.windows = count;
  result.tokens = count * options.seqlen;
  result.predictions = count * (options.seqlen - 1);
  double total = 0;
  for (std::int64_t index = 0; index < count; ++index) {
    if (options.progress) options.progress(index, count);
    const std::span<const std::int32_t> window = windows[static_cast<std::size_t>(index)];
    double sum = 0;
    LANNER_RETURN_IF_ERROR(run_window(engine, window, [&](std::int64_t row, std::span<const float> logits) {
      sum += ops::negative_log_likelihood(logits, window[static_cast<std::size_t>(row) + 1]);
    }));
    if (!std::isfinite(sum)) return internal_error(fmt::format("window {}: the logits are not finite", index));
    result.window_nll.push_back(sum / static_cast<double>(options.seqlen - 1));
    total += sum;
  }
  if (options.progress) options.progress(count, count);
  result.mean_nll = total / static_cast<double>(result.predictions);
  result.perplexity = std::exp(result.mean_nll);
  return result;
}

}  // namespace lanner::eval
