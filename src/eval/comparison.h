#pragma once
// How far one engine's predictions are from another's on the same text: the price of a faster arithmetic, of smaller
// weights, of a converted file.

#include <cstdint>
#include <span>

#include "eval/perplexity.h"
#include "lanner/engine.h"
#include "lanner/status.h"

namespace lanner::eval {

struct Comparison {
  std::int64_t windows = 0;
  std::int64_t predictions = 0;
  double mean_kl = 0;  // of KL(reference || test), nats a prediction
  double percentile_99_kl = 0;
  double top1_agreement = 0;  // share of predictions whose best token is the same, 0 to 1
  double reference_perplexity = 0;
  double test_perplexity = 0;
  double perplexity_ratio = 0;  // test / reference
};

/// Runs both engines window by window, the reference first, as measure_perplexity() does. Both must have the same
/// vocabulary. Memory: the reference's logits of one window, seqlen x vocab fp32 (1024 x 49152: 200 MB), and 8 bytes
/// a prediction; the test's logits are used up row by row. progress is called as in measure_perplexity().
Result<Comparison> compare_engines(Engine& reference, Engine& test, std::span<const std::int32_t> tokens,
                                   const WindowOptions& options);

}  // namespace lanner::eval
