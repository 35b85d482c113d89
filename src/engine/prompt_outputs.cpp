#include "engine/prompt_outputs.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "engine/run_requests.h"
#include "ops/sampling.h"

namespace lanner {
namespace {

using UseRow = std::function<void(std::int64_t, std::span<const float>)>;

/// Hands the rows of one request on, and sees that each came once and in order.
class RowReader {
 public:
  RowReader(std::int64_t rows, std::size_t vocab, UseRow use_row)
      : rows_(rows), vocab_(vocab), use_row_(std::move(use_row)) {}

  void take(const Event& event) {
    if (event.kind != Event::Kind::kLogits || next_ < 0) return;
    const bool fits = event.first_position == next_ && next_ + event.rows <= rows_ &&
                      event.values.size() == static_cast<std::size_t>(event.rows) * vocab_;
    if (!fits) {
      next_ = -1;
      return;
    }
    for (std::int32_t i = 0; i < event.rows; ++i, ++next_) {
      use_row_(next_, event.values.subspan(static_cast<std::size_t>(i) * vocab_, vocab_));
    }
  }

  bool complete() const { return next_ == rows_; }

 private:
  const std::int64_t rows_;
  const std::size_t vocab_;
  const UseRow use_row_;
  std::int64_t next_ = 0;  // the row that has to come next; -1 after one that did not
};

/// The rows of several prompts, which run together; use_row of prompt i is `readers[i]`'s.
Status read_rows(Engine& engine, std::span<const std::vector<std::int32_t>> prompts,
                 std::span<const std::unique_ptr<RowReader>> readers, const Unwanted& unwanted = {}) {
  std::vector<Request> requests;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    requests.push_back({.prompt = prompts[i],
                        .max_new_tokens = 0,
                        .wants = {.logits = RequestWants::Logits::kAll},
                        .on_event = [reader = readers[i].get()](const Event& event) { reader->take(event); }});
  }
  LANNER_RETURN_IF_ERROR(run_requests(engine, std::move(requests), unwanted));
  const bool complete = std::ranges::all_of(readers, [](const auto& reader) { return reader->complete(); });
  return complete ? Status() : internal_error("the engine did not deliver each row of logits once and in order");
}

Status check_scored_prompt(const Engine& engine, const std::vector<std::int32_t>& prompt) {
  if (prompt.size() < 2) return invalid_argument("a prompt of fewer than two tokens predicts nothing");
  for (const std::int32_t token : prompt) {
    if (token < 0 || token >= engine.vocab_size()) {
      return invalid_argument(
          fmt::format("the prompt holds token id {}, but the model has {} tokens", token, engine.vocab_size()));
    }
  }
  return {};
}

void scale_to_length_one(std::vector<float>& values) {
  double squares = 0;
  for (const float value : values) squares += static_cast<double>(value) * static_cast<double>(value);
  if (squares == 0) return;  // a vector without direction stays what it is
  const auto inverse = static_cast<float>(1.0 / std::sqrt(squares));
  for (float& value : values) value *= inverse;
}

}  // namespace

Status for_each_logits_row(Engine& engine, std::span<const std::int32_t> prompt, const UseRow& use_row,
                           const Unwanted& unwanted) {
  const std::vector<std::int32_t> copy(prompt.begin(), prompt.end());
  const auto reader = std::make_unique<RowReader>(static_cast<std::int64_t>(prompt.size()),
                                                  static_cast<std::size_t>(engine.vocab_size()), use_row);
  return read_rows(engine, std::span(&copy, 1), std::span(&reader, 1), unwanted);
}

Result<PromptLogits> get_logits(Engine& engine, std::span<const std::int32_t> prompt, const Unwanted& unwanted) {
  PromptLogits result{.rows = static_cast<std::int64_t>(prompt.size()), .vocab = engine.vocab_size(), .values = {}};
  LANNER_ASSIGN_OR_RETURN(result.values, AlignedBuffer::allocate(result.rows * result.vocab * 4, "a prompt's logits"));
  auto* values = result.values.as<float>();
  LANNER_RETURN_IF_ERROR(for_each_logits_row(
      engine, prompt,
      [values, vocab = result.vocab](std::int64_t row, std::span<const float> logits) {
        std::copy(logits.begin(), logits.end(), values + row * vocab);
      },
      unwanted));
  return result;
}

Result<std::vector<double>> get_ppl(Engine& engine, const std::vector<std::vector<std::int32_t>>& prompts,
                                    const Unwanted& unwanted) {
  std::vector<double> sums(prompts.size(), 0.0);
  std::vector<std::unique_ptr<RowReader>> readers;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    LANNER_RETURN_IF_ERROR(check_scored_prompt(engine, prompts[i]));
    const auto add_row = [&prompt = prompts[i], &sum = sums[i]](std::int64_t row, std::span<const float> logits) {
      const auto next = static_cast<std::size_t>(row) + 1;
      if (next < prompt.size()) sum += ops::negative_log_likelihood(logits, prompt[next]);
    };
    readers.push_back(std::make_unique<RowReader>(static_cast<std::int64_t>(prompts[i].size()),
                                                  static_cast<std::size_t>(engine.vocab_size()), add_row));
  }
  LANNER_RETURN_IF_ERROR(read_rows(engine, prompts, readers, unwanted));
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    if (!std::isfinite(sums[i])) return internal_error("the model's logits are not finite (NaN or infinity)");
    sums[i] /= static_cast<double>(prompts[i].size() - 1);
  }
  return sums;
}

Result<std::vector<std::vector<float>>> get_embeddings(Engine& engine,
                                                       const std::vector<std::vector<std::int32_t>>& prompts,
                                                       Pooling pooling, bool normalize, const Unwanted& unwanted) {
  std::vector<std::vector<float>> embeddings(prompts.size());
  std::vector<Request> requests;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const auto keep = [&embedding = embeddings[i]](const Event& event) {
      if (event.kind == Event::Kind::kHidden) embedding.assign(event.values.begin(), event.values.end());
    };
    const auto hidden = pooling == Pooling::kLast ? RequestWants::Hidden::kLast : RequestWants::Hidden::kMean;
    requests.push_back({.prompt = prompts[i], .max_new_tokens = 0, .wants = {.hidden = hidden}, .on_event = keep});
  }
  LANNER_RETURN_IF_ERROR(run_requests(engine, std::move(requests), unwanted));
  for (std::vector<float>& embedding : embeddings) {
    if (embedding.empty()) return internal_error("the engine did not deliver a hidden state");
    const bool finite = std::ranges::all_of(embedding, [](float value) { return std::isfinite(value); });
    if (!finite) return internal_error("the model's hidden state is not finite (NaN or infinity)");
    if (normalize) scale_to_length_one(embedding);
  }
  return embeddings;
}

}  // namespace lanner
