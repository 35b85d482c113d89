#pragma once
// Perplexity of a model on a text: how well it predicts each next token.
//
// The text is tokenized as one piece without special tokens and cut into consecutive windows of seqlen tokens, a short
// last one dropped. Each window is one request without context from before it: its tokens 1..seqlen-1 are predicted
// from those ahead of them, token 0 is not predicted. Perplexity is exp of the mean negative log-likelihood over all
// windows, computed in double over the engine's fp32 logits. Logits are used up row by row as the engine delivers them.
//
//   LANNER_ASSIGN_OR_RETURN(auto ids, pipeline->encode(text, /*add_special_tokens=*/false));
//   LANNER_ASSIGN_OR_RETURN(Perplexity result, measure_perplexity(pipeline->engine(), ids, {.seqlen = 1024}));

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "lanner/engine.h"
#include "lanner/status.h"

namespace lanner::eval {

struct WindowOptions {
  std::int64_t seqlen = 1024;    // at least 2
  std::int64_t max_windows = 0;  // 0: all that the text gives
  /// Called with finished and total windows, before the first and after each, on the calling thread; may be empty.
  std::function<void(std::int64_t, std::int64_t)> progress;
};

struct Perplexity {
  std::int64_t windows = 0;
  std::int64_t tokens = 0;         // in those windows
  std::int64_t predictions = 0;    // windows * (seqlen - 1)
  double mean_nll = 0;             // nats
  double perplexity = 0;           // exp(mean_nll)
  std::vector<double> window_nll;  // (windows) the mean of each
};

/// kInvalidArgument when the text is shorter than one window or seqlen is out of range; else what the engine says.
Result<Perplexity> measure_perplexity(Engine& engine, std::span<const std::int32_t> tokens,
                                      const WindowOptions& options);

/// Checks the options against the text and the engine, and cuts. Shared with compare_engines().
Result<std::vector<std::span<const std::int32_t>>> checked_windows(const Engine& engine,
                                                                   std::span<const std::int32_t> tokens,
                                                                   const WindowOptions& options);

/// Runs one window through the engine. `use_row(i, logits)` gets each row once, in ascending order, on the engine's
/// thread; row i, (vocab), predicts token i + 1; the last row, which predicts what follows the window, is not passed.
Status run_window(Engine& engine, std::span<const std::int32_t> window,
                  const std::function<void(std::int64_t, std::span<const float>)>& use_row);

}  // namespace lanner::eval
