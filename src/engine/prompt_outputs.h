#pragma once
// What a model makes of a prompt, without generating: logits, cross-entropy, embeddings.
//
// Each function submits to the engine and waits, on any thread but the engine's own; several may wait at once. None of
// them takes anything from the prefix cache (include/lanner/engine.h, RequestWants). A refusal or a failure of the
// engine is returned as it is; of several prompts the first one counts. kCancelled once `unwanted` says so, where a
// function takes it.
//
//   LANNER_ASSIGN_OR_RETURN(auto losses, get_ppl(pipeline->engine(), {ids}));
//   const double perplexity = std::exp(losses[0]);

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/aligned_buffer.h"
#include "engine/run_requests.h"
#include "lanner/engine.h"
#include "lanner/status.h"

namespace lanner {

/// use_row(i, logits) gets each row once, in ascending order, on the engine's thread; row i, (vocab) and valid during
/// the call, predicts what follows token i.
Status for_each_logits_row(Engine& engine, std::span<const std::int32_t> prompt,
                           const std::function<void(std::int64_t, std::span<const float>)>& use_row,
                           const Unwanted& unwanted = {});

struct PromptLogits {
  std::int64_t rows = 0;  // one a prompt token
  std::int64_t vocab = 0;
  AlignedBuffer values;  // (rows, vocab) fp32
};
/// Takes rows x vocab x 4 bytes; kResourceExhausted where the system has not as many.
Result<PromptLogits> get_logits(Engine& engine, std::span<const std::int32_t> prompt, const Unwanted& unwanted = {});

/// Of each prompt the mean cross-entropy, in nats, of its tokens 1.. given those before them: what LMDeploy's get_ppl
/// returns, whose exponential is the perplexity. The prompts run together. kInvalidArgument for one of fewer than two
/// tokens or with a token that the model lacks, kInternal where the model's logits are not finite.
Result<std::vector<double>> get_ppl(Engine& engine, const std::vector<std::vector<std::int32_t>>& prompts,
                                    const Unwanted& unwanted = {});

enum class Pooling : std::uint8_t {
  kLast,  // the last token's hidden state, after the final norm
  kMean,  // the mean over the prompt's tokens
};
/// An embedding, (hidden), of each prompt; `normalize` scales it to Euclidean length 1. The prompts run together.
/// kInternal where one is not finite.
Result<std::vector<std::vector<float>>> get_embeddings(Engine& engine,
                                                       const std::vector<std::vector<std::int32_t>>& prompts,
                                                       Pooling pooling, bool normalize, const Unwanted& unwanted = {});

}  // namespace lanner
