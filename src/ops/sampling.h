#pragma once
// From logits to a token: the order of spec'd filters that every engine of this family applies.
//
//   1. repetition penalty over the prompt's and the output's tokens
//   2. presence and frequency penalty over the output's
//   3. logit bias, then banned tokens (bad words, and stop tokens before min_new_tokens) and all that are not allowed
//      (grammars)
//   4. temperature
//   5. top-k
//   6. top-p
//   7. min-p
//   8. renormalize and draw by inverse CDF
//
// One uniform number is drawn per token from a counter-based generator keyed by (seed, position in the output), so
// that a request repeats whatever else runs beside it and survives preemption.

#include <cstdint>
#include <span>
#include <vector>

namespace lanner::ops {

struct SamplingParams {
  float temperature = 0.0F;  // 0: greedy
  std::int32_t top_k = 0;    // 0: all
  float top_p = 1.0F;
  float min_p = 0.0F;
  float repetition_penalty = 1.0F;
  float presence_penalty = 0.0F;
  float frequency_penalty = 0.0F;
  std::uint64_t seed = 0;
  std::int32_t logprobs = -1;  // -1: none; 0: of the chosen token; n: and of the n best, of the raw model
};

struct LogitBias {
  std::int32_t token = 0;
  float bias = 0;
};

/// One row to sample. The spans point to host memory that outlives the call; for Backend::sample, `logits` is in the
/// backend's.
struct SampleRow {
  std::span<const float> logits;  // (vocab), as norm_head wrote them
  const SamplingParams* params = nullptr;
  std::span<const std::int32_t> prompt_tokens;
  std::span<const std::int32_t> output_tokens;
  std::span<const std::int32_t> banned_tokens;
  std::span<const std::uint32_t> allowed_tokens{};  // bit t % 32 of word t / 32, (words_of_mask(vocab)); empty: all
  std::span<const LogitBias> logit_bias;
};

/// Whether the best token is taken, with no draw.
inline bool is_greedy(const SamplingParams& params) { return params.temperature <= 0.0F || params.top_k == 1; }
inline bool is_penalized(const SamplingParams& params) {
  return params.repetition_penalty != 1.0F || params.presence_penalty != 0.0F || params.frequency_penalty != 0.0F;
}
/// Whether scores are not the logits as they are.
inline bool is_edited(const SampleRow& row) {
  return is_penalized(*row.params) || !row.logit_bias.empty() || !row.banned_tokens.empty() ||
         !row.allowed_tokens.empty();
}

/// Words of a mask over a vocabulary.
constexpr std::size_t words_of_mask(std::size_t vocab) { return (vocab + 31) / 32; }
constexpr bool in_mask(std::span<const std::uint32_t> words, std::size_t token) {
  return (words[token / 32] >> (token % 32) & 1U) != 0;
}

struct TokenLogprob {
  std::int32_t token = 0;
  float logprob = 0;
};

struct SampledToken {
  bool finite = true;  // false: a NaN or infinity among the logits; token is then meaningless
  std::int32_t token = 0;
  float logprob = 0;              // of `token`, by the unfiltered model; 0 unless asked for
  std::vector<TokenLogprob> top;  // the best by the unfiltered model, descending
};

/// log of the sum of exp(logit), relative to the largest, which is returned where it is not finite; in double for
/// vocabularies of 100,000 and more.
double log_sum_exp(std::span<const float> logits);

/// -log softmax(logits)[token], in nats: the cross-entropy of one prediction.
double negative_log_likelihood(std::span<const float> logits, std::int32_t token);

/// A uniform number in [0, 1) that depends on seed and index alone.
double uniform_at(std::uint64_t seed, std::uint64_t index);

/// Samples one row on the host; `scratch` is reused between calls and may be empty at first.
SampledToken sample_row(const SampleRow& row, std::vector<TokenLogprob>& scratch);

}  // namespace lanner::ops
