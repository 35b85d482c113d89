#pragma once
// Requests of token ids in, tokens out: continuous batching over one model on one device.
//
// An Engine takes requests from any thread and runs them together on a thread of its own. What a request yields comes
// as events on that thread; a callback must return soon and must not throw, and may call submit() and cancel().
// Every accepted request ends with exactly one final event, whatever happens to it.
//
//   auto id = engine.submit({.prompt = ids, .max_new_tokens = 64, .on_event = [](const Event& event) { … }});
//   if (!id.ok()) …            // refused: nothing will be called
//   engine.cancel(*id);        // any time; the final event says kAbort unless it ended before
//
// The engine knows no strings: tokenizing, templates and stop strings are the Pipeline's.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lanner/options.h"
#include "lanner/status.h"

namespace lanner {

using RequestId = std::uint64_t;

/// Sampling, in the order in which it is applied (src/ops/sampling.h). The defaults are greedy.
struct SamplingOptions {
  float temperature = 0.0F;  // 0: greedy
  std::int32_t top_k = 0;    // 0: all
  float top_p = 1.0F;
  float min_p = 0.0F;
  float repetition_penalty = 1.0F;
  float presence_penalty = 0.0F;
  float frequency_penalty = 0.0F;
  std::uint64_t seed = 0;      // choice i of n draws from a stream of its own under the same seed
  std::int32_t logprobs = -1;  // -1: none; 0: of each token; k: and of the k best, by the unfiltered model
  std::vector<std::pair<std::int32_t, float>> logit_bias;  // token id, added to its logit
};

enum class FinishReason : std::uint8_t {
  kStop,    // a stop token, which is the last token delivered
  kLength,  // max_new_tokens or the context is used up
  kAbort,   // cancelled, or the engine shut down
  kError,   // see Event::status
};

struct TokenLogprob {
  std::int32_t token = 0;
  float logprob = 0;
};

/// What happened to one choice of one request.
struct Event {
  enum class Kind : std::uint8_t {
    kToken,   // one more token
    kLogits,  // rows of logits, as wants.logits asked
    kHidden,  // the hidden state, as wants.hidden asked
    kFinal,   // nothing follows for the request
  };
  Kind kind = Kind::kToken;
  RequestId request = 0;
  std::int32_t choice = 0;  // 0..n-1

  std::int32_t token = 0;             // kToken
  float logprob = 0;                  // kToken, when asked for
  std::span<const TokenLogprob> top;  // kToken, when asked for; valid during the call

  std::int32_t first_position = 0;  // kLogits: row i is the prediction after position first_position + i
  std::int32_t rows = 0;            // kLogits: how many; kHidden: 1
  std::span<const float> values;    // (rows, vocab) or (hidden); valid during the call

  // kFinal, once for each request, after the last choice:
  std::vector<FinishReason> reasons;  // one a choice
  Status status;                      // not ok when a reason is kError
  std::int32_t prompt_tokens = 0;
  std::int32_t cached_tokens = 0;     // of the prompt, taken from the prefix cache
  std::int32_t generated_tokens = 0;  // of all choices
};

/// Results besides tokens. A request that wants prompt rows computes them all and takes nothing from the prefix cache.
struct RequestWants {
  enum class Logits : std::uint8_t { kNone, kGenerated, kAll };
  enum class Hidden : std::uint8_t { kNone, kLast, kMean };  // of the prompt, after the final norm
  Logits logits = Logits::kNone;
  Hidden hidden = Hidden::kNone;
};

/// What may come next in one choice, as the tokens that have come say. Used by one thread at a time, not always the
/// same. After an error only destroying it makes sense.
class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;
  /// Sets the bit of each token that may come next, at least one, and clears the others: bit t % 32 of words[t / 32].
  virtual Status allowed(std::span<std::uint32_t> words) = 0;
  /// The next token has come, and was no stop token. True: nothing may follow, and the choice ends with kStop.
  virtual Result<bool> accept(std::int32_t token) = 0;
};

/// What the answers to a request must be; makes one constraint for each choice. Threads: any.
class TokenGrammar {
 public:
  virtual ~TokenGrammar() = default;
  virtual Result<std::unique_ptr<TokenConstraint>> begin() const = 0;
};

struct Request {
  std::vector<std::int32_t> prompt;   // at least one token
  std::int32_t max_new_tokens = 512;  // 0: only the prompt is computed
  std::int32_t min_new_tokens = 0;    // stop ids cannot be sampled before
  std::int32_t n = 1;                 // choices, 1..128, that share the prompt
  SamplingOptions sampling;
  std::vector<std::int32_t> stop_ids;
  std::vector<std::vector<std::int32_t>> bad_words;  // token sequences that must not appear
  std::shared_ptr<const TokenGrammar> grammar;       // null: any tokens; not with min_new_tokens or bad_words
  RequestWants wants;
  std::function<void(const Event&)> on_event;
};

/// Where the memory goes, in bytes, and for how many.
struct MemoryPlan {
  std::int64_t free_bytes = 0;  // before the KV cache was planned, after weights
  std::int64_t weight_bytes = 0;
  std::int64_t copy_bytes = 0;  // of weights of 4 and 8 bits in fp16, besides: see WeightCopy
  std::int64_t workspace_bytes = 0;
  std::int64_t kv_bytes = 0;
  std::int64_t kv_blocks = 0;
  std::int64_t kv_tokens = 0;  // that the blocks hold
  std::string kv_type;         // of the numbers in them: "float16", "int8", …
  std::int64_t sequences = 0;  // that may run at once
};

/// Counters since start, and levels now.
struct EngineStats {
  std::int32_t running = 0;
  std::int32_t waiting = 0;
  std::int64_t kv_blocks_used = 0;    // by running sequences
  std::int64_t kv_blocks_cached = 0;  // kept for reuse, evictable
  std::int64_t steps = 0;
  std::int64_t prompt_tokens = 0;  // computed
  std::int64_t cached_tokens = 0;  // not computed, thanks to the prefix cache
  std::int64_t generated_tokens = 0;
  std::int64_t preemptions = 0;
  std::int64_t corrupted_requests = 0;  // ended with an error: their logits were not finite, or the device failed
  // Steps of no prompt's tokens behind one of as many sequences, in which nobody comes or goes, and what they took the
  // engine's thread beside waiting for a device that works behind.
  std::int64_t decode_steps = 0;
  double decode_host_seconds = 0;
  std::int64_t progress = 0;      // grows within a step, too: who watches it sees that a long one gets on
  std::int64_t failed_steps = 0;  // that the device refused or lost; for want of memory they are tried again
};

class Engine {
 public:
  /// Ends what is running with kAbort and joins the thread.
  virtual ~Engine() = default;

  /// kInvalidArgument for a field out of range, kTooLong for a prompt that the context or the cache can never hold,
  /// kResourceExhausted when the queue is full.
  virtual Result<RequestId> submit(Request request) = 0;
  /// Does nothing for an id that has ended. Returns at once.
  virtual void cancel(RequestId id) = 0;

  virtual MemoryPlan memory_plan() const = 0;
  virtual EngineStats stats() const = 0;
  virtual std::int32_t session_len() const = 0;
  virtual std::int32_t vocab_size() const = 0;
};

}  // namespace lanner
