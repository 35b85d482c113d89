#pragma once
// Attention of prompts by products of bf16, where the processor has them: tables like kernels.h's, for many queries
// over one chunk of keys and values.
//
// Queries, keys, softmax weights and values are rounded to bf16, sums are fp32: one rounding of 2^-9 for each operand.
// A row's bits depend on where in its prompt the step begins, so that --deterministic goes without.
//
// What a product's left side is lies row by row. Its right side lies in tiles, 16 columns each, in which two
// neighbours in depth lie together: (depth / 2, 16, 2). That is how vdpbf16ps and tdpbf16ps read.

#include <cstdint>

#include "core/cpu_info.h"
#include "core/dtype.h"
#include "ops/cpu/kernels.h"

namespace lanner::ops::cpu {

inline constexpr std::int64_t kLeastPromptRows = 8;  // of a slice: fewer are decoded
inline constexpr std::int64_t kPromptRows = 32;      // queries of a product
inline constexpr std::int64_t kPromptDepth = 32;     // depths are padded to multiples of it

inline constexpr std::int64_t prompt_depth(std::int64_t n) {
  return (n + kPromptDepth - 1) / kPromptDepth * kPromptDepth;
}

/// c (rows, columns) = a (rows, depth) · b, added to what is there where `add`. rows and columns are multiples of 16,
/// depth is one of 32.
struct BFloat16Product {
  const std::uint16_t* a = nullptr;
  std::int64_t a_stride = 0;  // elements from row to row
  const std::uint16_t* b = nullptr;
  std::int64_t b_stride = 0;  // elements from tile to tile
  float* c = nullptr;
  std::int64_t c_stride = 0;
  std::int64_t rows = 0;  // at most kPromptRows
  std::int64_t columns = 0;
  std::int64_t depth = 0;
  bool add = false;
};

/// The running softmax of one query.
struct PromptState {
  float max = 0;
  float sum = 0;
  float* values = nullptr;  // (head_dim)
};

struct PromptKernels {
  /// out[i] = bf16(values[i] * scale) for [0, n), zeros up to prompt_depth(n).
  void (*round_query)(const float* values, float scale, std::int64_t n, std::uint16_t* out);
  /// The keys of a chunk of blocks that do not hold kF32 as the right side of (queries, head_dim) · (head_dim, tokens):
  /// tiles of prompt_depth(head_dim) * 16 elements, for `tokens` rounded up to 32. What lies behind a chunk's last
  /// token stays what it is.
  void (*arrange_keys)(const KvLayout& layout, const std::byte* const* heads, std::int64_t tokens, std::uint16_t* out);
  /// Its values as that of (queries, tokens) · (tokens, head_dim): tiles of kChunkTokens * 16 elements. Those behind
  /// the last token, up to a multiple of 32, become zero.
  void (*arrange_values)(const KvLayout& layout, const std::byte* const* heads, std::int64_t tokens,
                         std::uint16_t* out);
  /// To be called by a thread before it multiplies, and again after anything else may have used its tiles.
  void (*configure)();
  void (*multiply)(const BFloat16Product& product);
  /// Takes the scores [first, valid) of a query into its state, the values of which shrink to the new maximum, and
  /// writes what its weights are, with zeros elsewhere in [0, tokens). tokens is a multiple of 32; first may be valid
  /// or more: then it sees none.
  void (*weigh)(const float* scores, std::int64_t first, std::int64_t valid, std::int64_t tokens, std::int64_t head_dim,
                PromptState* state, std::uint16_t* weights);
};

/// The best that this processor has of those that go with an instruction set, or null.
const PromptKernels* prompt_kernels_for(CpuIsa isa);

namespace avx512_bf16 {
const PromptKernels& prompt_kernels();
}
namespace amx_bf16 {
const PromptKernels& prompt_kernels();
}

}  // namespace lanner::ops::cpu
