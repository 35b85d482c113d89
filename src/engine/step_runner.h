#pragma once
// One step, from the scheduler's items to what each sequence gained: build the batch, forward, sample, hand out.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/scheduler.h"
#include "lanner/engine.h"
#include "model/decoder.h"
#include "ops/backend.h"

namespace lanner {

/// What became of a sequence in a step.
struct StepResult {
  Sequence* sequence = nullptr;
  bool finished = false;
  FinishReason reason = FinishReason::kStop;
  Status status{};  // not ok with kError
};

class StepRunner {
 public:
  StepRunner(model::Decoder& decoder, ops::Backend& backend, const ops::KvCacheView& cache, std::int64_t session_len)
      : decoder_(decoder), backend_(backend), cache_(cache), session_len_(session_len) {}

  /// Computes the step and sends token, logits and hidden events. Sequences that it says are finished are still
  /// the scheduler's, for the caller to remove.
  std::vector<StepResult> run(const Scheduler::Step& step, Scheduler& scheduler);

  std::int64_t prompt_tokens() const { return prompt_tokens_; }
  std::int64_t generated_tokens() const { return generated_tokens_; }

 private:
  /// An item of the step with the rows of the batch that it got.
  struct Place {
    Scheduler::Item item;
    std::int32_t first_row;
    std::size_t first_logits;  // index of its first wanted row among the step's
    std::size_t logits_rows;
    std::size_t first_hidden;
    std::size_t hidden_rows;
    std::int64_t sample = -1;  // index among the sampled rows; -1: its prompt goes on, or nothing is to be generated
  };

  void build(const Scheduler::Step& step);
  void add_wanted(Place& place);
  void sample(const model::StepOutput& output);
  void ban_tokens(Sequence& sequence) const;
  /// A copy of backend memory, good until the next call.
  std::span<const float> on_host(const float* values, std::size_t count);
  void deliver_logits(const Place& place, const model::StepOutput& output);
  void deliver_hidden(const Place& place, const model::StepOutput& output);
  StepResult advance(const Place& place);
  StepResult append_token(Sequence& sequence, const ops::SampledToken& sampled);

  model::Decoder& decoder_;
  ops::Backend& backend_;
  const ops::KvCacheView cache_;
  const std::int64_t session_len_;

  // Of the current step; kept for their memory.
  std::vector<std::int32_t> tokens_;
  std::vector<std::int32_t> positions_;
  std::vector<ops::SequenceSlice> slices_;
  std::vector<Place> places_;
  std::vector<std::int32_t> wanted_logits_;
  std::vector<std::int32_t> wanted_hidden_;
  std::vector<ops::SampleRow> sample_rows_;
  std::vector<ops::SampledToken> sampled_;
  std::vector<float> host_values_;

  std::int64_t prompt_tokens_ = 0;
  std::int64_t generated_tokens_ = 0;
};

}  // namespace lanner
