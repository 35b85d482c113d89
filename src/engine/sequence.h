#pragma once
// One choice of one request, on its way through the engine.
//
//   state     becomes    when
//   waiting   prefill    the scheduler finds room for it
//   prefill   decode     the step that computes the last of its tokens has been started, and samples one more
//   decode    finished   a stop token, a length, or an error
//   prefill   finished   nothing is to be generated, or an error
//   prefill   waiting    preempted: an older sequence needs its blocks, or the device lacks memory for so many; its
//                        tokens stay, its KV is computed again
//   decode    waiting    the same
//   any       finished   cancel, the device fails, or the engine shuts down

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "engine/kv_blocks.h"
#include "lanner/engine.h"
#include "ops/sampling.h"

namespace lanner {

/// What the choices of a request share.
struct RequestState {
  RequestId id = 0;
  Request request;
  ops::SamplingParams sampling;
  std::vector<ops::LogitBias> logit_bias;
  std::vector<std::unique_ptr<TokenConstraint>> constraints;  // one a choice, until it begins; empty without a grammar
  std::vector<FinishReason> reasons;                          // one a choice, valid once that choice has finished
  std::int32_t unfinished = 0;
  Status status;
  std::int32_t cached_tokens = 0;
  std::int32_t generated_tokens = 0;
  bool plain = false;            // nothing is wanted but tokens, from all of the vocabulary
  bool queued = true;            // none of its choices has been admitted yet
  bool prompt_computed = false;  // by the first choice; the others then find it in the prefix tree
};

enum class SequenceState : std::uint8_t { kWaiting, kPrefill, kDecode, kFinished };

struct Sequence {
  std::shared_ptr<RequestState> request;
  std::int32_t choice = 0;
  SequenceState state = SequenceState::kWaiting;
  std::vector<std::int32_t> tokens;  // prompt, then what was generated; the last one or two may be names for tokens of
                                     // steps under way (ops::sampled_token)
  std::int64_t computed = 0;         // of tokens, whose KV is in the cache or will be after the steps under way
  std::int64_t most_tokens = 0;      // that it may come to: max_new_tokens and the context
  KvBlocks::Table table;
  ops::SamplingParams sampling;       // with this choice's seed
  std::int64_t logits_delivered = 0;  // rows of logits that were handed out, so that preemption repeats none
  std::vector<float> hidden_sum;      // wants.hidden == kMean: sum over the prompt rows so far
  std::vector<std::int32_t> banned;   // for the row being sampled
  // Null without a grammar. It has accepted all that was generated, so that preemption concerns it not.
  std::unique_ptr<TokenConstraint> constraint;
  std::vector<std::uint32_t> allowed;  // the mask of the row being sampled
  Status constraint_status;            // why there is none

  std::int64_t size() const { return static_cast<std::int64_t>(tokens.size()); }
  /// It decodes, and the step under way brings the last token that it may have, if not a stop token.
  bool awaits_last_token() const { return state == SequenceState::kDecode && size() >= most_tokens; }
  std::int64_t pending() const { return size() - computed; }
  std::int64_t prompt_size() const { return static_cast<std::int64_t>(request->request.prompt.size()); }
  std::int64_t generated() const { return size() - prompt_size(); }
  /// Prompt rows are wanted themselves, so none may come from the prefix cache.
  bool wants_prompt_rows() const {
    const RequestWants& wants = request->request.wants;
    return choice == 0 && !request->prompt_computed &&
           (wants.logits == RequestWants::Logits::kAll || wants.hidden != RequestWants::Hidden::kNone);
  }
  /// Order of arrival: requests as submitted, then choices.
  bool older_than(const Sequence& other) const {
    return request->id != other.request->id ? request->id < other.request->id : choice < other.choice;
  }
};

}  // namespace lanner
