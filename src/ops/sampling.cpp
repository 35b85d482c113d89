#include "ops/sampling.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "core/check.h"

namespace lanner::ops {
namespace {

constexpr float kBanned = -INFINITY;

/// SplitMix64's finalizer: every bit of the input reaches every bit of the output.
std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30U)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27U)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31U);
}

/// Higher logit first; among equals the lower id, so that greedy decoding has one answer.
bool better(const TokenLogprob& a, const TokenLogprob& b) {
  return a.logprob > b.logprob || (a.logprob == b.logprob && a.token < b.token);
}

bool all_finite(std::span<const float> logits) {
  constexpr std::uint32_t kExponent = 0x7F800000U;  // all of it set: NaN or infinity
  std::uint32_t found = 0;                          // integers, whose sum may take any order: several at once
  for (const float logit : logits) found |= (std::bit_cast<std::uint32_t>(logit) & kExponent) == kExponent ? 1U : 0U;
  return found == 0;
}

/// The first of the largest; no NaN among them.
std::int32_t largest_token(std::span<const float> logits) {
  constexpr std::size_t kLanes = 16;  // maxima side by side, for the compiler to take vectors
  std::array<float, kLanes> largest;
  largest.fill(logits[0]);
  std::size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    const float* values = logits.data() + i;
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      largest[lane] = values[lane] > largest[lane] ? values[lane] : largest[lane];
    }
  }
  float best = *std::ranges::max_element(largest);
  for (; i < logits.size(); ++i) best = std::max(best, logits[i]);
  return static_cast<std::int32_t>(std::ranges::find(logits, best) - logits.begin());
}

void apply_repetition_penalty(const SampleRow& row, std::vector<TokenLogprob>& scores) {
  const float penalty = row.params->repetition_penalty;
  if (penalty == 1.0F) return;
  // Once for each token that occurs, however often. The raw logit tells whether it was done.
  const auto penalize = [&](std::int32_t token) {
    const auto index = static_cast<std::size_t>(token);
    const float raw = row.logits[index];
    scores[index].logprob = raw < 0 ? raw * penalty : raw / penalty;
  };
  for (const std::int32_t token : row.prompt_tokens) penalize(token);
  for (const std::int32_t token : row.output_tokens) penalize(token);
}

void apply_output_penalties(const SampleRow& row, std::vector<TokenLogprob>& scores) {
  const SamplingParams& params = *row.params;
  if (params.presence_penalty == 0.0F && params.frequency_penalty == 0.0F) return;
  std::vector<std::int32_t> sorted(row.output_tokens.begin(), row.output_tokens.end());
  std::sort(sorted.begin(), sorted.end());
  for (std::size_t i = 0; i < sorted.size();) {
    std::size_t end = i;
    while (end < sorted.size() && sorted[end] == sorted[i]) ++end;
    scores[static_cast<std::size_t>(sorted[i])].logprob -=
        params.presence_penalty + params.frequency_penalty * static_cast<float>(end - i);
    i = end;
  }
}

/// Raw log-probabilities of the chosen token and of the best ones.
void report_logprobs(const SampleRow& row, SampledToken& result) {
  const double total = log_sum_exp(row.logits);
  const auto logprob = [&](std::int32_t token) {
    return static_cast<float>(static_cast<double>(row.logits[static_cast<std::size_t>(token)]) - total);
  };
  result.logprob = logprob(result.token);
  const auto wanted = std::min(static_cast<std::size_t>(row.params->logprobs), row.logits.size());
  if (wanted == 0) return;
  std::vector<TokenLogprob> all(row.logits.size());
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = {static_cast<std::int32_t>(i), row.logits[i]};
  const auto middle = all.begin() + static_cast<std::ptrdiff_t>(wanted);
  std::partial_sort(all.begin(), middle, all.end(), better);
  result.top.assign(all.begin(), middle);
  for (TokenLogprob& entry : result.top) entry.logprob = logprob(entry.token);
}

/// Keeps the candidates that top-k, top-p and min-p leave, best first, with their weights in `logprob`.
void filter_candidates(const SamplingParams& params, std::vector<TokenLogprob>& candidates) {
  std::size_t count = candidates.size();
  if (params.top_k > 0) count = std::min(count, static_cast<std::size_t>(params.top_k));
  const auto end = candidates.begin() + static_cast<std::ptrdiff_t>(count);
  std::partial_sort(candidates.begin(), end, candidates.end(), better);
  candidates.resize(candidates.front().logprob == kBanned ? 1 : count);  // where all are banned, the lowest id comes
  const double inverse_temperature = 1.0 / (static_cast<double>(params.temperature) + 1e-6);
  const double best = static_cast<double>(candidates.front().logprob);
  double sum = 0;
  for (TokenLogprob& candidate : candidates) {
    const double weight = std::exp((static_cast<double>(candidate.logprob) - best) * inverse_temperature);
    candidate.logprob = static_cast<float>(weight);
    sum += weight;
  }
  double cumulative = 0;
  std::size_t kept = 0;
  while (kept < candidates.size()) {  // the shortest prefix whose share reaches top_p
    cumulative += static_cast<double>(candidates[kept++].logprob);
    if (cumulative >= static_cast<double>(params.top_p) * sum) break;
  }
  // The best one's weight is 1. What has none (banned tokens) goes, or rounding in draw() might end on it.
  while (kept > 1 && (candidates[kept - 1].logprob < params.min_p || candidates[kept - 1].logprob == 0.0F)) --kept;
  candidates.resize(kept);
}

std::int32_t draw(const std::vector<TokenLogprob>& candidates, double uniform) {
  double sum = 0;
  for (const TokenLogprob& candidate : candidates) sum += static_cast<double>(candidate.logprob);
  double left = uniform * sum;
  for (const TokenLogprob& candidate : candidates) {
    left -= static_cast<double>(candidate.logprob);
    if (left < 0) return candidate.token;
  }
  return candidates.back().token;
}

}  // namespace

double log_sum_exp(std::span<const float> logits) {
  LANNER_CHECK(!logits.empty());
  const auto largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  if (!std::isfinite(largest)) return largest;
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  return largest + std::log(sum);
}

double negative_log_likelihood(std::span<const float> logits, std::int32_t token) {
  return log_sum_exp(logits) - static_cast<double>(logits[static_cast<std::size_t>(token)]);
}

double uniform_at(std::uint64_t seed, std::uint64_t index) {
  const std::uint64_t bits = mix(mix(seed + 0x9E3779B97F4A7C15U) + (index + 1) * 0x9E3779B97F4A7C15U);
  return static_cast<double>(bits >> 11U) * 0x1p-53;
}

SampledToken sample_row(const SampleRow& row, std::vector<TokenLogprob>& scratch) {
  SampledToken result;
  if (!all_finite(row.logits)) {
    result.finite = false;
    return result;
  }
  const SamplingParams& params = *row.params;
  const bool greedy = is_greedy(params);
  if (greedy && !is_edited(row)) {
    result.token = largest_token(row.logits);
    if (params.logprobs >= 0) report_logprobs(row, result);
    return result;
  }
  scratch.resize(row.logits.size());
  for (std::size_t i = 0; i < scratch.size(); ++i) scratch[i] = {static_cast<std::int32_t>(i), row.logits[i]};
  apply_repetition_penalty(row, scratch);
  apply_output_penalties(row, scratch);
  for (const LogitBias& bias : row.logit_bias) scratch[static_cast<std::size_t>(bias.token)].logprob += bias.bias;
  for (const std::int32_t token : row.banned_tokens) scratch[static_cast<std::size_t>(token)].logprob = kBanned;
  if (!row.allowed_tokens.empty()) {
    for (std::size_t i = 0; i < scratch.size(); ++i) {
      if (!in_mask(row.allowed_tokens, i)) scratch[i].logprob = kBanned;
    }
  }
  if (greedy) {
    result.token = std::min_element(scratch.begin(), scratch.end(), better)->token;
  } else {
    filter_candidates(params, scratch);
    result.token = draw(scratch, uniform_at(params.seed, row.output_tokens.size()));
  }
  if (params.logprobs >= 0) report_logprobs(row, result);
  return result;
}

}  // namespace lanner::ops
