#pragma once
// What one row of logits says about the next token: the sums behind perplexity and divergence, in double precision.

#include <cstdint>
#include <span>
#include <vector>

namespace lanner::eval {

/// The index of the highest; the lowest index among equals.
std::int32_t best_token(std::span<const float> logits);

/// KL(softmax(reference) || softmax(test)) in nats: 0 for equal rows. Both (vocab).
double kl_divergence(std::span<const float> reference, std::span<const float> test);

/// The smallest value that at least `percent` of the values do not exceed (nearest rank). `values` must not be empty.
double percentile(std::vector<double> values, double percent);

/// Consecutive windows of `seqlen` tokens from the start; a short last one is dropped. max_windows 0: all.
std::vector<std::span<const std::int32_t>> cut_windows(std::span<const std::int32_t> tokens, std::int64_t seqlen,
                                                       std::int64_t max_windows);

}  // namespace lanner::eval
