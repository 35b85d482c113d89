#pragma once
// The inner loops of the CPU back end, behind one table of functions for each instruction set.
//
// kernels.inl.h and rows.inl.h are their one source; kernels_generic.cpp, kernels_avx2.cpp and kernels_avx512.cpp
// compile it for their set. Callers cut the work; a kernel handles a panel, a row or a chunk and knows no threads.
//
// What every kernel keeps: a row's result is the same bits whatever other rows share the call. Sums over
// columns run in one ascending order for 1 row or 1,000; what differs between tiles is only which rows share a load.
//
// WHAT IS ROUNDED TO WHAT. Quantized weights are multiplied by activations of 15 bits (InputView), dense ones by fp32;
// sums are fp32. Keys and values in codes are multiplied by queries and softmax weights of 15 bits (kv_codes.inl.h).
// Only a processor with TileKernels, and only where nobody asked for determinism, rounds both factors to bf16 (8 bits,
// to nearest even, denormals to zero) from TileKernels::least_rows rows on: weights after scale and offset, activations
// after the norm; their products are exact and their sums fp32 again.

#include <cstddef>
#include <cstdint>

#include "core/cpu_info.h"
#include "core/dtype.h"
#include "ops/backend.h"
#include "ops/weight_source.h"

namespace lanner::ops::cpu {

inline constexpr std::int64_t kPanelRows = 16;        // rows of a weight that lie interleaved
inline constexpr std::int64_t kActivationGroup = 32;  // columns of an activation that share a scale
inline constexpr std::int64_t kSumGroup = 16;         // columns whose codes are summed for offsets
inline constexpr std::int32_t kLowSteps = 128;        // an activation's code is 128 * high + low
inline constexpr std::int32_t kLargestCode = 127 * kLowSteps;
inline constexpr std::int32_t kCenter = 8;  // what int4 codes without offsets are counted from
inline constexpr std::int64_t kMaxTileRows = 32;
inline constexpr std::int64_t kMaxTilePanels = 2;
inline constexpr std::int64_t kMaxScoreQueries = 4;
inline constexpr std::int64_t kMaxCodedHead = 1024;  // numbers of a head whose keys and values are codes
inline constexpr std::int64_t kChunkTokens = 256;    // of context between two merges of attention

/// A packed weight: panels of 16 rows, one after the other. Within a panel:
///   dense: for each column, the 16 rows' elements;
///   int8: for each group, for each 4 columns, 16 rows x 4 bytes of code + 128; then the group's 16 scales, and the
///         16 offsets if there are any;
///   int4: the same with two sets of 4 columns in a byte, the first in the low nibble. Without offsets a code means
///         code - 8: of weights whose zero point is 8 throughout, a tenth less has to be read.
/// Scales and offsets are fp16 where all of them are exact in it, else fp32. Where int4's scales are but its offsets
/// are not, and all of these are -scale * z with whole z of 0 to 15, as AWQ and GPTQ have them, the places of the
/// offsets hold -z in fp16: in fp32 the product is exact, and half as much has to be read as of offsets in fp32. Rows
/// past the end are zero.
struct WeightView {
  WeightFormat format = WeightFormat::kF32;
  const std::byte* data = nullptr;
  std::int64_t panel_bytes = 0;
  std::int64_t cols = 0;
  std::int64_t group = 0;
  bool half_scales = false;
  bool has_offsets = false;
  bool zero_points = false;  // in the places of the offsets
};

/// What is known of 32 columns of an input row: a number is scale * (128 * high + low).
struct ActivationGroup {
  float scale = 0;
  float sum = 0;              // of the numbers
  std::int32_t sums[2] = {};  // of 128 * high + low, of 16 columns each
};

/// Codes of a row: for each 32 columns, their 32 high and then their 32 low ones; and a line, so that rows of a power
/// of two do not all want the same places in the cache.
inline constexpr std::int64_t code_stride(std::int64_t cols) { return 2 * cols + 64; }

/// The rows that a product reads: fp32, or integers of 15 bits with a scale for each 32 columns.
/// An integer is two int8 codes, high and low (-64..64), so that byte instructions multiply it exactly. Eight bits
/// alone would halve the work of many rows but not the time of a few, which wait for the bus, and would change one
/// greedy token in thirty (docs/perf-log.md).
struct InputView {
  const float* values = nullptr;            // (rows, cols)
  const std::int8_t* codes = nullptr;       // (rows, code_stride(cols)); 15 more rows behind them can be read
  const ActivationGroup* groups = nullptr;  // (rows, cols / 32)
};

inline constexpr std::int64_t kBf16TileRows = 16;  // of input
inline constexpr std::int64_t kBf16TileColumns = 32;
inline constexpr std::int64_t kBf16TileElements = kBf16TileRows * kBf16TileColumns;

/// One call of TileKernels::multiply: one or two tiles of rows by one or two panels.
struct TileCall {
  const std::uint16_t* input = nullptr;         // tiles of the first 16 rows, one for each 32 columns
  const std::uint16_t* input_below = nullptr;   // of the next 16 rows, or null
  const std::uint16_t* panel = nullptr;         // tiles of a panel's 16 weight rows
  const std::uint16_t* panel_beside = nullptr;  // of the next panel, or null
  std::int64_t tiles = 0;                       // of columns
  bool adds = false;                            // begins with the sums that are there
  float* sums = nullptr;                        // (16 or 32 rows, 16 or 32 weight rows)
};

/// Products in tiles of bf16 numbers. An input tile is (16 rows, 32 columns); a weight's is (16 pairs of columns, 16
/// weight rows, 2). Columns past the last are zeros in both; rows past the last are memory, of any content.
struct TileKernels {
  std::int64_t least_rows = 1;  // from so many rows on tiles are faster than the other kernels
  /// Whether it takes weights like this one.
  bool (*takes)(const WeightView& weight);
  /// To be called by a thread before it multiplies, and again after anything else may have used its tiles.
  void (*configure)();
  /// Rows of n numbers, a stride apart, into their places of the rows' tiles, of which `place` is the first. All in the
  /// same tiles.
  void (*round_rows)(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t n, std::uint16_t* place);
  /// The panel's tiles [first, first + count) of columns.
  void (*unpack)(const WeightView& weight, std::int64_t panel, std::int64_t first, std::int64_t count,
                 std::uint16_t* tiles);
  void (*multiply)(const TileCall& product);
};

struct Kernels {
  CpuIsa isa = CpuIsa::kGeneric;
  std::int64_t tile_rows = 1;      // most rows of one multiply call
  std::int64_t tile_panels = 1;    // most panels of one multiply call with several rows; with one row it is one
  std::int64_t block_rows = 1;     // rows that a worker should have where workers share rows
  std::int64_t score_queries = 1;  // most queries of one scores or values call

  /// out = x * gain / sqrt(mean(x^2) + eps). Any n; out may be x.
  void (*rms_norm)(const float* x, const float* gain, float eps, std::int64_t n, float* out);
  /// out = (x - mean(x)) * gain / sqrt(variance(x) + eps) + bias, which may be null. Any n; out may be x.
  void (*layer_norm)(const float* x, const float* gain, const float* bias, float eps, std::int64_t n, float* out);
  /// n is a multiple of 32; codes 2 * n. A row with a NaN or infinity gets a NaN scale, so that it cannot pass for
  /// numbers.
  void (*quantize)(const float* x, std::int64_t n, std::int8_t* codes, ActivationGroup* groups);
  /// tile[r * panels * 16 + p * 16 + i] = row (row + r) of the input · weight row ((panel + p) * 16 + i).
  void (*multiply)(const WeightView& weight, std::int64_t panel, std::int64_t panels, const InputView& input,
                   std::int64_t row, std::int64_t rows, float* tile);
  /// out = gate(g) * u, or gate(g) where u is null: rows of n numbers, those of g and u a stride apart, those of out
  /// another. out may be g.
  void (*gate)(Gate gate, const float* g, const float* u, std::int64_t stride, std::int64_t rows, std::int64_t n,
               float* out, std::int64_t out_stride);
  /// out += scale * x, of such rows. Two roundings an element.
  void (*add_scaled)(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t n, float scale, float* out,
                     std::int64_t out_stride);
  /// Turns the halves of a head by the angles of its position: cosines, then sines (RoFormer, with pairs in halves).
  void (*rotate)(float* head, const float* angles, std::int64_t rotary_dim);
  const TileKernels* tiles = nullptr;  // null: there are none

  // Attention. A block's head holds keys as (head_dim, 64) and values as (64, head_dim). Of codes four that are
  // multiplied together lie side by side, for one dot instruction: int8 keys are (head_dim / 4, 64, 4) bytes and values
  // (16, head_dim, 4), of four tokens. Codes of 4 bits share a byte with another of the same token, so that tokens can
  // be written by several threads: of each 8 numbers of a key the first four, in the low nibbles, with the last four,
  // as (head_dim / 8, 64, 4); of each 32 numbers of a value the first 16 with the last 16, of the 16 that may be left
  // over the first 8 with the last 8, as (16, head_dim / 2, 4). Scales and mins: KvLayout.
  /// Rounds one token's key and value into its place.
  void (*write_kv)(const KvLayout& layout, const float* key, const float* value, std::int64_t slot, std::byte* head);
  /// scores[n * 256 + t] = scale * q[n] · key t, for t in [0, tokens) rounded up to a multiple of 16. Asks for the
  /// values of the same blocks ahead.
  void (*scores)(const KvLayout& layout, const std::byte* const* heads, std::int64_t tokens, const float* const* q,
                 std::int64_t queries, float scale, float* scores);
  /// values = cap * tanh(values / cap), for [0, n) rounded up to a multiple of 16. Of scores and of logits.
  void (*soft_cap)(float* values, std::int64_t n, float cap);
  /// scores[i] += slope * (distance + i), for [0, n) rounded up to a multiple of 16. ALiBi; distance is of key 0 from
  /// the query, 0 or negative.
  void (*add_slope)(float* scores, std::int64_t n, float slope, std::int64_t distance);
  /// Turns the scores [first, valid) into exp(score - max), the others up to `tokens` into 0; returns max and sum.
  /// first < valid <= tokens.
  void (*softmax)(float* scores, std::int64_t first, std::int64_t valid, std::int64_t tokens, float* max, float* sum);
  /// out[n][d] = sum over t of weights[n * 256 + t] * value t. Meanwhile asks for the keys of `next`, as many blocks,
  /// any of which may be null.
  void (*values)(const KvLayout& layout, const std::byte* const* heads, const std::byte* const* next,
                 std::int64_t tokens, const float* weights, std::int64_t queries, float* const* out);
  /// out = out * a + chunk * b
  void (*merge)(float* out, float a, const float* chunk, float b, std::int64_t n);
};

/// The table for an instruction set, which the processor must have.
const Kernels& kernels_for(CpuIsa isa);

namespace generic {
const Kernels& kernels();
}
namespace avx2 {
const Kernels& kernels();
}
namespace avx512 {
const Kernels& kernels();
}
namespace amx {
const Kernels& kernels();
}

}  // namespace lanner::ops::cpu
