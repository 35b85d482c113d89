#pragma once
// The kernels of the CUDA backend as its host code sees them: plain structs of device pointers, one function for each
// operation of ops/backend.h, and the layouts of what they read. CudaBackend owns all memory, packs weights and uploads
// batches; the functions here only put launches on a stream. They never allocate, never wait for the device and never
// copy to the host, so that a step can be captured as a graph. Shapes were checked at the backend's door.
//
// LAYOUTS
//
// Dense weight (kF32, kF16, kBF16): rows of `cols` elements, `stride` bytes from row to row, a multiple of 16; the
// bytes behind a row's last element are zero.
//
// kInt8: one byte a code, code + 128 (that is, the two's complement byte XOR 0x80). `cols` is a multiple of `group`
// and that one of 16. `stride` bytes from row to row, a multiple of 16; bytes behind the last column are arbitrary.
//
// kInt4: eight codes in each 32-bit word, columns 8w to 8w+7 in word w of a row; `group` is a multiple of 32. Column
// 8w+i lies at bit 4 * int4_nibble(i) of its word, so that one mask and one OR make a pair of fp16 numbers of two
// neighbouring columns. `stride` as for kInt8.
//
// kInt4 in panels (DeviceWeight::panels): the same words of 8 columns, in the order in which the lanes of a warp take
// them as the left side of mma.m16n8k16. A panel is 16 rows, a tile of it 128 columns, 1024 bytes: of a tile's columns
// 8w to 8w+7 row r has its word at (r / 8) * 512 + (r % 8 * 4 + w % 4) * 16 + w / 4 * 4, so that a lane's 16 bytes are
// eight columns of each 32. Scales: kHalf, or kHalfZero with whole zeros of 0 to 63; for each panel and group the pairs
// of its 16 rows. `rows` is a multiple of 16, `cols` of 128, `group` a power of two from 32 on, or all of a row.
//
// Scales of any other quantized weight: one pair for each row and group, (rows, cols / group), row major, without gaps:
//     ScaleFormat::kFloat      float2 (scale, offset):  w = scale * code + offset
//     ScaleFormat::kHalf       half2  (scale, offset):  the same; for pairs that fp16 holds exactly
//     ScaleFormat::kHalfZero   half2  (scale, zero):    w = scale * (code - zero); where fp16 holds scale exactly and
//                                                       -offset / scale is a number that fp16 holds exactly
// `code` is what WeightSource means by it: -128..127 for int8, 0..15 for int4.
// A quantized weight whose group does not suit is packed as dense fp16, or as fp32 for Arithmetic::kExact.
//
// KV block, one layer and head (KvCacheView::head): keys (64, head_dim), then values (64, head_dim), row major. In
// codes as kv_codes.cuh has it.
//
// Every pointer is 16-byte aligned: those of activations, vectors and angles, too.
//
// WHAT IS ROUNDED TO WHAT (and so what a test may hold a result to)
//
// Sums are fp32. With fp32 weights activations are fp32 throughout: errors are those of fp32 summation.
// linear operations of up to kFusedRows rows (on Hopper of 16-bit weights up to 2), or of any number in deterministic
//     mode: activations are fp32, 16-bit
//     weights are widened, quantized ones enter as scale * sum(code * x) + offset * sum(x): fp32 summation again.
//     Weights in panels are an exception: as those of more rows.
// linear operations of more rows, weights kF16, kInt8, kInt4: the normed input is rounded to fp16 (and held within
//     +-65504), quantized weights are rounded to fp16; kBF16: the input is rounded to bf16. What is handed over is
//     rounded so when it is written.
// attention by tiles (see AttentionPlan) and, on Hopper, of decoding rows: queries and the weights of softmax (relative
//     to the largest of the tile) are rounded to the cache's 16-bit type. Otherwise everything is fp32 beside the cache
//     itself.
// A cache in codes has a 16-bit type, too, to which the numbers that the codes stand for are rounded for tiles: in them
//     (attention_code_tiles.cuh), or once for all tiles that look at them (widen_kv.h). Decoding rows on Hopper round
//     queries and weights to fp16 whatever it is, and codes not at all (code_page_warp.cuh).
//
// DETERMINISM. No floating-point atomics: the same calls give the same bits. In deterministic mode a row's result does
// not depend on the other rows of the call: linear operations run in slabs of kFusedRows rows through the fused
// kernels, whose order of summation depends on the weights' format and shape alone, and attention takes every row by
// itself and its context whole, in chunks of 256 tokens. What that costs: prompts read the weights once for every 8
// rows, and a lone long context is walked by few multiprocessors.

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "ops/backend.h"

namespace lanner::ops::cuda {

inline constexpr std::int64_t kFusedRows = 8;         // linear operations of more rows never take the fused kernels
inline constexpr std::int64_t kMaxParts = 8;          // of a Linear
inline constexpr std::int64_t kPrefillRows = 64;      // query rows of a PrefillTile
inline constexpr std::int64_t kAttentionChunk = 256;  // tokens between the fixed borders of a context
inline constexpr std::int64_t kMaxPartials = 64;      // pieces into which the context of a query is cut at most

/// Which of a word's eight 4-bit places column i of 8 takes: 0 4 1 5 2 6 3 7.
constexpr int int4_nibble(int column) { return column % 2 * 4 + column / 2; }

enum class ScaleFormat : std::uint8_t { kFloat, kHalf, kHalfZero };

struct DeviceWeight {
  WeightFormat format = WeightFormat::kF16;
  ScaleFormat scale_format = ScaleFormat::kFloat;
  std::int32_t group = 0;  // quantized: columns of a scale
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t stride = 0;       // bytes
  const void* data = nullptr;    // 16-byte aligned
  const void* scales = nullptr;  // quantized
  bool panels = false;
  const void* copy = nullptr;  // quantized: the same numbers in fp16, for products of many rows, or null
  std::int64_t copy_stride = 0;
};

inline constexpr std::int64_t kPanelHeight = 16;    // rows
inline constexpr std::int64_t kPanelColumns = 128;  // of a tile
inline constexpr std::int64_t kPanelTileBytes = 1024;
/// Where the word of columns col..col + 7 lies in a weight in panels, and the index of a row's pair of group `group`.
__host__ __device__ constexpr std::int64_t panel_word(std::int64_t cols, std::int64_t row, std::int64_t col) {
  const std::int64_t word = col % kPanelColumns / 8;
  return (row / kPanelHeight * (cols / kPanelColumns) + col / kPanelColumns) * kPanelTileBytes +
         row % kPanelHeight / 8 * 512 + (row % 8 * 4 + word % 4) * 16 + word / 4 * 4;
}
__host__ __device__ constexpr std::int64_t panel_pair(std::int64_t groups, std::int64_t row, std::int64_t group) {
  return (row / kPanelHeight * groups + group) * kPanelHeight + row % kPanelHeight;
}

struct DeviceNorm {
  NormKind kind = NormKind::kRms;
  const float* gain = nullptr;  // (cols); null: no norm
  const float* bias = nullptr;  // (cols) or null; layer norm only
  float eps = 0;
};

struct DevicePart {
  DeviceWeight weight;
  const float* bias = nullptr;  // (rows) or null
};

/// ops::Linear on the device.
struct DeviceLinear {
  DeviceNorm norm;
  const std::int32_t* input_order = nullptr;  // (cols) or null
  DevicePart parts[kMaxParts];
  std::int32_t part_count = 0;
  float scale = 1.0F;
  DeviceNorm post_norm;
  float soft_cap = 0.0F;
};

struct DeviceSlice {
  std::int32_t first_row;
  std::int32_t rows;
  std::int32_t first_position;
  std::int32_t first_block;  // index into DeviceBatch::blocks of the sequence's block 0
};

/// A row of a slice of few rows, with what attention has to know of the slice.
struct DecodeRow {
  std::int32_t row;         // of the batch; -1: nothing
  std::int32_t tokens;      // that it sees, its own among them
  std::int32_t old_tokens;  // in the cache before the step
  std::int32_t first_block;
};

/// Tokens begin .. end - 1 of a row's context. Rows of long contexts are cut into several pieces, `count`, whose
/// results have places of their own until they are added up.
struct DecodePiece {
  DecodeRow of;
  std::int32_t begin;
  std::int32_t end;
  std::int32_t count;
  std::int32_t place;        // of this piece; below kMostPiecePlaces
  std::int32_t first_place;  // of the row's first piece
};
inline constexpr std::int32_t kMostPiecePlaces = 128;

/// Query rows first_row .. first_row + kPrefillRows - 1 of the batch, as far as they belong to the slice.
struct PrefillTile {
  std::int32_t slice;
  std::int32_t first_row;
};

/// Block `index` of a slice's context.
struct PrefillBlock {
  std::int32_t slice;
  std::int32_t index;
};

/// ops::Batch on the device. The counts on the host decide how much is launched; everything else that differs from step
/// to step is read on the device, so a captured graph may be replayed after new contents were copied to the same
/// places.
struct DeviceBatch {
  std::int32_t rows = 0;
  const std::int32_t* tokens = nullptr;     // (rows): ids, or sampled_token()
  const std::int32_t* sampled = nullptr;    // of the last sampling, by its rows: what sampled_token() stands for
  const std::int32_t* positions = nullptr;  // (rows)
  const std::int32_t* row_slice = nullptr;  // (rows): the slice of each row; -1: none, nothing is kept of it
  const DeviceSlice* slices = nullptr;
  const std::int32_t* blocks = nullptr;  // KV block ids of all slices, one after another

  // The work of attention. Every row is in one of the two lists: rows of slices with up to kFusedRows rows in the
  // first, and those of longer slices in tiles. -1 in either list: nothing (a graph of more places than there is work).
  const DecodeRow* decode_rows = nullptr;  // (decode_count)
  std::int32_t decode_count = 0;
  const DecodePiece* decode_pieces = nullptr;  // (piece_count): of the same rows, the longest pieces first
  std::int32_t piece_count = 0;
  const PrefillTile* prefill_tiles = nullptr;  // (prefill_count), slice -1: nothing
  std::int32_t prefill_count = 0;
  const PrefillBlock* prefill_blocks = nullptr;  // (prefill_block_count): the contexts of all slices that have tiles
  std::int32_t prefill_block_count = 0;
  const std::int32_t* prefill_places = nullptr;  // for each of `blocks` that is among prefill_blocks, its place there
  std::int32_t max_context = 0;                  // at least first_position + rows of every slice
};

/// Where kernels keep what does not outlive an operation. Every pointer is 256-byte aligned; null with 0 bytes is
/// allowed where an operation never needs the place.
struct Scratch {
  std::byte* input = nullptr;  // normed input in 16 bits or fp32: rows * round_up(max_cols, 16) * 4 bytes
  std::int64_t input_bytes = 0;
  // Products before their epilogue, fp32: the more rows fit, the fewer launches; at least one row of all parts of any
  // norm_qkv, linear_add or norm_gated_up. In attention, 16-bit numbers of a cache in codes: what prompts look at.
  std::byte* product = nullptr;
  std::int64_t product_bytes = 0;
  std::byte* widened = nullptr;  // the largest quantized weight in fp16: rows * round_up(cols, 16) * 2 bytes
  std::int64_t widened_bytes = 0;
  std::byte* partials = nullptr;  // see attention_partial_bytes()
  std::int64_t partial_bytes = 0;
  std::int32_t* arrivals = nullptr;  // (kMostPiecePlaces, KV heads): zeros, before and after an operation
};

/// out (rows, width) = input (rows, cols) · weightᵀ in fp32 sums, or out += scale times that; row strides in elements.
struct GemmArgs {
  WeightFormat format = WeightFormat::kF16;  // of input and weight: kF16 or kBF16
  const void* input = nullptr;
  std::int64_t input_stride = 0;   // a multiple of 8
  const void* weight = nullptr;    // (width, cols)
  std::int64_t weight_stride = 0;  // a multiple of 8
  float* out = nullptr;
  std::int64_t out_stride = 0;
  std::int64_t rows = 0;
  std::int64_t width = 0;
  std::int64_t cols = 0;  // zero in both from here to the next multiple of 8
  bool add = false;       // only MatrixLibrary looks at it
  float scale = 1.0F;     // of what is added
};

/// A library's matrix product, if there is one.
class MatrixLibrary {
 public:
  virtual ~MatrixLibrary() = default;
  /// False: not done, nothing launched; the kernels' own body takes the product instead.
  virtual bool multiply(const GemmArgs& args, cudaStream_t stream) = 0;
};

class TensorMaps;

struct KernelContext {
  cudaStream_t stream = nullptr;
  int multiprocessors = 1;
  int shared_bytes = 49152;       // cudaDevAttrMaxSharedMemoryPerBlockOptin
  bool dependent_launch = false;  // programmatic dependent launch: compute capability 9.0 and newer
  bool clusters = false;          // blocks that read each other's shared memory: the same
  // Clusters of 1, 2, 4 and 8 blocks, each block alone on a multiprocessor, that run at once: the multiprocessors are
  // grouped, so that of larger ones fewer fit. See prepare_warpgroups().
  int most_clusters[4] = {};
  bool deterministic = false;
  MatrixLibrary* library = nullptr;  // not used in deterministic mode
  const TensorMaps* maps = nullptr;  // null: not a device for tile_linear.h, or one that cannot
  Scratch scratch;
};

/// Once for each device before anything else: asks for the shared memory that kernels may use.
cudaError_t prepare_kernels(const KernelContext& context);
/// The same for the kernels that need KernelContext::maps, on compute capability 9.0 alone; fills in
/// context->most_clusters. *usable: this build has them.
cudaError_t prepare_warpgroups(KernelContext* context, bool* usable);

// The operations. All give the first error of their launches.

cudaError_t embed(const KernelContext& context, const DeviceWeight& table, const DeviceBatch& batch, float scale,
                  float* x);
/// angles (rows, 2 * half): cosines, then sines, both times `scale`.
cudaError_t rope_angles(const KernelContext& context, const float* inverse_frequencies, std::int64_t half, float scale,
                        const DeviceBatch& batch, float* angles);

struct DeviceNormQkv {
  const float* x = nullptr;
  const DeviceLinear* linear = nullptr;  // on the host
  const float* rope_angles = nullptr;
  std::int64_t rotary_dim = 0;
  std::int64_t heads = 0;
  std::int64_t layer = 0;
  DeviceNorm q_norm;
  DeviceNorm k_norm;
  float* q = nullptr;
};
cudaError_t norm_qkv(const KernelContext& context, const DeviceNormQkv& args, const DeviceBatch& batch,
                     const KvCacheView& cache);

struct DeviceAttention {
  const float* q = nullptr;
  std::int64_t heads = 0;
  std::int64_t layer = 0;
  float scale = 0;
  float soft_cap = 0;
  std::int64_t window = 0;
  const float* alibi_slopes = nullptr;
  float* out = nullptr;
  WeightFormat out_format = WeightFormat::kF32;  // kF16 or kBF16: `out` holds rows of that type
};
cudaError_t attention(const KernelContext& context, const DeviceAttention& args, const DeviceBatch& batch,
                      const KvCacheView& cache);

/// How attention() goes about a step; for whoever wants to know what is rounded.
struct AttentionPlan {
  bool tiles = false;             // prefill_tiles through tensor cores; else row by row like decode
  bool together = false;          // the blocks of a query's pieces are a cluster, and add up among themselves
  std::int32_t partials = 1;      // pieces of the context of a decoding query
  std::int32_t piece_tokens = 0;  // tokens of a piece, a multiple of 64; 0: all
};
AttentionPlan plan_attention(const KernelContext& context, std::int64_t heads, const DeviceBatch& batch,
                             const KvLayout& layout, std::int64_t window);
/// Bytes of Scratch::partials with which attention never has to do without pieces, for any step.
std::int64_t attention_partial_bytes(int multiprocessors, std::int64_t heads, std::int64_t kv_heads,
                                     std::int64_t head_dim);

/// In which type an operation hands `rows` rows over to the product that reads them: that in which the product meets
/// them anyway, where it needs nothing else done to them. Rows then lie one behind the other without gaps.
WeightFormat handed_format(const KernelContext& context, const DeviceLinear& reader, std::int64_t rows);
/// input (rows, cols) of type input_format: kF32, or handed_format() of this very Linear.
cudaError_t linear_add(const KernelContext& context, const DeviceLinear& linear, const float* input,
                       WeightFormat input_format, std::int64_t rows, float* x);
/// h of type h_format: kF32, or handed_format() of its reader.
cudaError_t norm_gated_up(const KernelContext& context, const DeviceLinear& linear, Gate gate, const float* x,
                          std::int64_t rows, float* h, WeightFormat h_format);
/// wanted (count): rows of x, on the device; null: rows 0..count-1. logits (count, width).
cudaError_t norm_head(const KernelContext& context, const DeviceLinear& linear, const float* x,
                      const std::int32_t* wanted, std::int64_t count, float* logits);
cudaError_t norm_rows(const KernelContext& context, const DeviceNorm& norm, const float* x, std::int64_t cols,
                      const std::int32_t* wanted, std::int64_t count, float* out);

/// keys, values (64, head_dim) each, on the device, widened.
cudaError_t read_kv(const KernelContext& context, const KvCacheView& cache, std::int64_t block, std::int64_t layer,
                    std::int64_t kv_head, float* keys, float* values);

}  // namespace lanner::ops::cuda
