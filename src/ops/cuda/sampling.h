#pragma once
// From logits to tokens on the device: what ops/sampling.cpp does on the host, for many rows at once.
//
// EQUAL TO THE HOST'S. Penalties, biases and bans are the same fp32 operations in the same order; the order of the
// candidates, the greedy choice and the uniform number are the same to the bit. A candidate's weight is the host's
// exp() in double, rounded to fp32; the two libraries' exp may differ in the last place of the double, which that
// rounding almost always hides. Weights are then added up as multiples of 2^-44 of the best one's, in integers, where
// the host adds doubles: a draw, or the border of top-p, may differ where it lies closer than about 1e-8 of the whole
// to the border between two tokens. Integer sums have no order, so a row gives the same token every time and in any
// company. Log-probabilities are sums of doubles, in another order than the host's: they may differ in the last place
// of a float.

#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/cuda/kernels.h"

namespace lanner::ops::cuda {

inline constexpr std::int64_t kScanChunk = 4096;     // logits that a block looks through
inline constexpr std::int32_t kMostLogprobs = 1024;  // that a row may want

/// A list of a row, in SamplingCall::ints.
struct IntRange {
  std::int32_t first = 0;
  std::int32_t count = 0;
};

/// One row to sample, when it is more than the best of a row of logits.
struct SamplingTask {
  float* logits = nullptr;         // (vocab)
  double inverse_temperature = 0;  // 0: greedy
  double uniform = 0;
  std::int32_t top_k = 0;  // 0: all
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  IntRange history;  // the prompt's tokens, then the output's; empty without penalties
  std::int32_t prompt_count = 0;
  IntRange banned;
  IntRange allowed;      // words of a mask: SampleRow::allowed_tokens
  IntRange biased;       // tokens; the biases' bits lie behind them
  float* raw = nullptr;  // (vocab): with log-probabilities, the logits before they are edited, or these themselves
  std::int32_t best_count = 0;    // of the best tokens, whose log-probabilities are wanted beside the sampled one's
  std::int32_t first_report = 0;  // index in SamplingCall::reports: the sampled token's, then the best ones'
};

struct TokenReport {
  std::int32_t token;
  float logprob;
};

/// What scan_logits() finds in a chunk of a row.
struct ScanResult {
  float best;
  float least;         // of those that are not banned
  std::int32_t token;  // of the best; among equals the lowest
  std::int32_t finite;
};

struct SamplingCall {
  std::int32_t rows = 0;
  std::int32_t vocab = 0;
  float* logits = nullptr;               // where there are no tasks: (rows, vocab), all greedy
  const SamplingTask* tasks = nullptr;   // (rows) or null
  const std::int32_t* ints = nullptr;    // lists of tasks
  const std::int32_t* edited = nullptr;  // (edited_count): rows with penalties, biases, bans or a mask
  std::int32_t edited_count = 0;
  const std::int32_t* reported = nullptr;  // (reported_count): rows that want log-probabilities
  std::int32_t reported_count = 0;
  TokenReport* reports = nullptr;   // where the host reads
  ScanResult* scans = nullptr;      // (rows, chunks of kScanChunk)
  std::int32_t* sampled = nullptr;  // (rows), in device memory: tokens of the sampling before, then of this one
  int2* results = nullptr;          // (rows), where the host reads: token, and 1 where the logits are finite
};

/// Once for each device: asks for the shared memory of a vocabulary of kCudaMaxVocabulary.
cudaError_t prepare_sampling();
/// Overwrites the logits of edited rows.
cudaError_t sample_rows(const KernelContext& context, const SamplingCall& call);

}  // namespace lanner::ops::cuda
