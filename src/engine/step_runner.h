#pragma once
// Steps, from the scheduler's items to what each sequence gained: build the batch, forward, sample, hand out.
//
// A device may answer late (ops/backend.h). start() then leaves names in place of tokens, which only the device knows
// (ops::sampled_token), and the scheduler plans the next step as if every sequence went on; collect() puts the tokens
// in, sends them, and finds out who has ended. Who has, had a row too many in the step that was started meanwhile: its
// result is dropped, by forget(). At most one step is under way when another is started.
//
// Nobody runs ahead of a step whose results the host must have to build the next one (such as the token that a
// constraint is to accept, before it knows which may follow), or reads before they are overwritten: due() says so. A
// device that answers at once is never ahead.

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/constraint_masks.h"
#include "engine/scheduler.h"
#include "lanner/engine.h"
#include "model/decoder.h"
#include "ops/backend.h"

namespace lanner {

/// A sequence that has ended in a step.
struct StepResult {
  Sequence* sequence = nullptr;
  FinishReason reason = FinishReason::kStop;
  Status status{};  // not ok with kError
};

class StepRunner {
 public:
  StepRunner(model::Decoder& decoder, ops::Backend& backend, const ops::KvCacheView& cache)
      : decoder_(decoder), backend_(backend), cache_(cache), masks_(static_cast<std::size_t>(decoder.spec().vocab)) {}

  /// Puts a step to work. Sends logits and hidden events. Where the device lacks memory (ops/backend.h) the sequences
  /// are as if it had not been planned, and events that were sent are not sent again.
  Status start(const Scheduler::Step& step);
  /// A step is under way. With due(), collect() comes before the next start().
  bool busy() const { return under_way_ > 0; }
  bool due() const;
  /// Waits for the oldest step under way and sends its token events. Sequences that have ended are still the
  /// scheduler's, for the caller to remove. With a failure of the device nothing is known of what is under way.
  Result<std::vector<StepResult>> collect(Scheduler& scheduler);
  /// Gives up what is under way, after a failure.
  void abandon();
  /// To be called before a sequence goes: what is under way of it is dropped.
  void forget(const Sequence& sequence);

  /// For the device, in collect(), since the start.
  std::chrono::steady_clock::duration waited() const { return waited_; }
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
    std::size_t token = 0;     // index in the sequence's tokens of what is sampled
    bool ends = false;         // with the prompt: nothing is to be generated
  };
  /// A step that was started.
  struct Started {
    std::vector<Place> places;  // item.sequence null: forgotten
    std::vector<ops::SampledToken> sampled;
    bool answered = false;  // sampled holds the tokens
    bool awaited = false;   // the next step cannot be built without
    bool delivers = false;  // logits or hidden states
  };

  void build(const Scheduler::Step& step, Started& started);
  void add_wanted(Place& place);
  bool awaited(const Place& place) const;
  void sample(const model::StepOutput& output, Started& started);
  /// The sequence as it is when the step's rows are computed.
  void move_on(Place& place);
  void ban_tokens(Sequence& sequence) const;
  /// A copy of backend memory, good until the next call.
  Result<std::span<const float>> on_host(const float* values, std::size_t count);
  Status deliver_logits(const Place& place, const model::StepOutput& output);
  Status deliver_hidden(const Place& place, const model::StepOutput& output);
  /// Puts in the token that the place's name stood for and sends it; the result if the sequence has ended with it.
  std::optional<StepResult> take_token(const Place& place, const ops::SampledToken& sampled);
  /// Tells the sequence's constraint; the result if that ends it.
  static std::optional<StepResult> constrain(Sequence& sequence, std::int32_t token);

  model::Decoder& decoder_;
  ops::Backend& backend_;
  const ops::KvCacheView cache_;
  ConstraintMasks masks_;

  Started started_[ops::kMostUncollected];
  int newest_ = 0;     // the last that was started
  int under_way_ = 0;  // started and not collected

  // Of the step that is being built; kept for their memory.
  std::vector<std::int32_t> tokens_;
  std::vector<std::int32_t> positions_;
  std::vector<ops::SequenceSlice> slices_;
  std::vector<std::int32_t> wanted_logits_;
  std::vector<std::int32_t> wanted_hidden_;
  std::vector<ops::SampleRow> sample_rows_;
  std::vector<float> host_values_;
  std::vector<TokenLogprob> top_;

  std::chrono::steady_clock::duration waited_{};
  std::int64_t prompt_tokens_ = 0;
  std::int64_t generated_tokens_ = 0;
};

}  // namespace lanner
