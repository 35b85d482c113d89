// The linear operations: which kernels they are made of.
//
// Up to kFusedRows rows (two, where the tiles of Hopper take more), and all of them in deterministic mode in slabs of
// as many: one fused kernel for each kind of weight among the parts (fused_linear.h; ring_linear.h and panel_linear.h
// for what fits them). What a fused kernel cannot finish (norms over heads or over the product, a cache in codes, a
// gate whose parts differ in kind) it leaves in memory, for finish.h. More rows: the normed input in the weights'
// 16-bit type, a product for each part by the library or gemm.h, quantized weights widened one by one, unless they have
// copies, then finish.h; on Hopper, 16-bit parts that lie one behind the other in one launch that finishes them, too
// (tile_linear.h), unless the library is faster, which then adds to the output by itself (library_is_faster()) or has
// finish.h behind it (product_by_library()).

#include <algorithm>

#include "ops/cuda/attention.h"
#include "ops/cuda/device.cuh"
#include "ops/cuda/finish.h"
#include "ops/cuda/fused_linear.h"
#include "ops/cuda/gemm.h"
#include "ops/cuda/panel_linear.h"
#include "ops/cuda/rows.h"
#include "ops/cuda/tile_linear.h"
#include "ops/cuda/widen.h"

namespace lanner::ops::cuda {
namespace {

constexpr std::int64_t kFewestTileRows = 3;      // for which the tiles of Hopper are faster than the fused kernels
constexpr std::int64_t kOperandMultiple = 16;    // of the elements from row to row of an operand
constexpr std::int64_t kFewestLibraryRows = 65;  // see library_is_faster()
constexpr std::int64_t kFewestPassRows = 49;     // see product_by_library()
constexpr std::int64_t kMostGatePassRows = 768;
constexpr std::int64_t kLargeTileTokens = 256;  // of the largest tile of Hopper

/// A linear operation on all of its rows.
struct Call {
  const DeviceLinear* linear = nullptr;
  const float* x = nullptr;
  WeightFormat x_format = WeightFormat::kF32;  // else it was handed over, and is what the product reads
  const std::int32_t* row_index = nullptr;
  std::int64_t rows = 0;
  Finish finish = Finish::kAdd;
  Gate gate = Gate::kSilu;
  float* out = nullptr;
  std::int64_t out_stride = 0;
  WeightFormat out_format = WeightFormat::kF32;  // of kGate
  HeadsOut heads = {};
  DeviceNorm q_norm = {};
  DeviceNorm k_norm = {};

  std::int64_t cols() const { return linear->parts[0].weight.cols; }
  std::int64_t width() const {
    std::int64_t total = 0;
    for (int i = 0; i < linear->part_count; ++i) total += linear->parts[i].weight.rows;
    return total;
  }
};

/// The type in which a weight of this format meets its input, where rows are many.
WeightFormat operand_format(WeightFormat format) { return is_quantized(format) ? WeightFormat::kF16 : format; }

std::int64_t operand_bytes(WeightFormat format) { return format == WeightFormat::kF32 ? 4 : 2; }

bool same_kind(const DeviceWeight& a, const DeviceWeight& b) {
  return a.format == b.format && a.group == b.group && a.scale_format == b.scale_format && a.panels == b.panels;
}

bool one_kind(const DeviceLinear& linear) {
  for (int i = 1; i < linear.part_count; ++i) {
    if (!same_kind(linear.parts[0].weight, linear.parts[i].weight)) return false;
  }
  return true;
}

/// Whether so many rows go through products of 16-bit operands.
bool has_many_rows(const KernelContext& context, const DeviceLinear& linear, std::int64_t rows) {
  if (context.deterministic) return false;
  if (rows > kFusedRows) return true;
  return context.maps != nullptr && rows >= kFewestTileRows && is_half(linear.parts[0].weight.format) &&
         one_kind(linear);
}

bool all_in_panels(const DeviceLinear& linear) {
  for (int i = 0; i < linear.part_count; ++i) {
    if (!linear.parts[i].weight.panels) return false;
  }
  return true;
}

/// Whether all quantized parts are there in fp16, too; at least one of them is quantized.
bool has_copies(const DeviceLinear& linear) {
  bool any = false;
  for (int i = 0; i < linear.part_count; ++i) {
    const DeviceWeight& weight = linear.parts[i].weight;
    if (!is_quantized(weight.format)) continue;
    if (weight.copy == nullptr) return false;
    any = true;
  }
  return any;
}

DeviceLinear with_copies(const DeviceLinear& linear) {
  DeviceLinear result = linear;
  for (int i = 0; i < result.part_count; ++i) {
    DeviceWeight& weight = result.parts[i].weight;
    if (!is_quantized(weight.format)) continue;
    weight = {.format = WeightFormat::kF16,
              .rows = weight.rows,
              .cols = weight.cols,
              .stride = weight.copy_stride,
              .data = weight.copy};
  }
  return result;
}

/// What the fused kernels do in the end of themselves.
Finish fused_finish(const Call& call) {
  const DeviceLinear& linear = *call.linear;
  switch (call.finish) {
    case Finish::kAdd: return linear.post_norm.gain == nullptr ? Finish::kAdd : Finish::kStore;
    case Finish::kGate:
      if (linear.part_count == 1) return Finish::kGateAlone;
      return one_kind(linear) ? Finish::kGate : Finish::kStore;
    case Finish::kQkv:
      // Codes count from the smallest number of a head, of which these kernels have a pair at a time.
      if (call.heads.codes != KvCodes::kNone) return Finish::kStore;
      return call.q_norm.gain == nullptr && call.k_norm.gain == nullptr ? Finish::kQkv : Finish::kStore;
    default: return call.finish;
  }
}

/// The same of the kernels for few rows, which write fp32 alone but for those of panels.
Finish few_rows_finish(const Call& call) {
  if (call.out_format != WeightFormat::kF32 &&
      !(call.out_format == WeightFormat::kF16 && all_in_panels(*call.linear))) {
    return Finish::kStore;
  }
  const Finish finish = fused_finish(call);
  if (finish != Finish::kQkv || panels_turn_heads(call.heads)) return finish;
  for (int i = 0; i < call.linear->part_count; ++i) {
    if (call.linear->parts[i].weight.panels) return Finish::kStore;
  }
  return finish;
}

Product product_of(const Call& call, const float* values, std::int64_t stride) {
  Product product = {.values = values, .stride = stride, .width = call.width(), .part_count = call.linear->part_count};
  for (int i = 0; i < product.part_count; ++i) {
    const DevicePart& part = call.linear->parts[i];
    product.bias[i] = part.bias;
    product.first_column[i + 1] = product.first_column[i] + static_cast<std::int32_t>(part.weight.rows);
  }
  return product;
}

float* output_row(const Call& call, std::int64_t row) {
  const std::int64_t bytes = row * call.out_stride * operand_bytes(call.out_format);
  return reinterpret_cast<float*>(reinterpret_cast<std::byte*>(call.out) + bytes);
}

/// Rows first..first + rows - 1 of the call, from their product.
cudaError_t finish_product(const KernelContext& context, const Call& call, const Product& product, std::int64_t first,
                           std::int64_t rows) {
  const DeviceLinear& linear = *call.linear;
  float* out = output_row(call, first);
  switch (call.finish) {
    case Finish::kAdd: return finish_add(context, product, rows, linear.scale, linear.post_norm, out);
    case Finish::kGate: return finish_gate(context, product, rows, call.gate, out, call.out_format);
    case Finish::kQkv: return finish_qkv(context, product, rows, first, call.q_norm, call.k_norm, call.heads);
    case Finish::kHead: return finish_head(context, product, rows, linear.scale, linear.soft_cap, out);
    default: return cudaErrorInvalidValue;
  }
}

/// Rows first..first + rows - 1 of the call's input in a product's type, at *input: where they were handed over, or
/// prepared in the scratch.
cudaError_t prepare_input(const KernelContext& context, const Call& call, std::int64_t first, std::int64_t rows,
                          WeightFormat format, const void** input) {
  if (call.x_format != WeightFormat::kF32) {
    if (call.x_format != format) return cudaErrorInvalidValue;
    *input = reinterpret_cast<const std::byte*>(call.x) + first * call.cols() * operand_bytes(format);
    return cudaSuccess;
  }
  const PrepareRows prepare = {.x = call.row_index == nullptr ? call.x + first * call.cols() : call.x,
                               .row_index = call.row_index == nullptr ? nullptr : call.row_index + first,
                               .input_order = call.linear->input_order,
                               .norm = call.linear->norm,
                               .rows = rows,
                               .cols = call.cols(),
                               .format = format,
                               .out = context.scratch.input,
                               .stride = round_up(call.cols(), kOperandMultiple)};
  *input = context.scratch.input;
  return prepare_rows(context, prepare);
}

// --- few rows

std::int64_t pairs_of(Finish finish, const DeviceWeight& weight) {
  return finish == Finish::kGate ? weight.rows : ceil_div(weight.rows, 2);
}

/// Adds the parts of `first`'s kind that no earlier launch took to the launch.
void take_parts(const Call& call, int first, FusedLinear* launch) {
  const DeviceLinear& linear = *call.linear;
  const DeviceWeight& kind = linear.parts[first].weight;
  std::int64_t output = 0;
  for (int i = 0; i < linear.part_count; ++i) {
    const DevicePart& part = linear.parts[i];
    if (i >= first && same_kind(kind, part.weight)) {
      launch->parts[launch->part_count++] = {.data = static_cast<const std::uint8_t*>(part.weight.data),
                                             .scales = part.weight.scales,
                                             .bias = part.bias,
                                             .stride = part.weight.stride,
                                             .first_output = launch->finish == Finish::kGate ? 0 : output,
                                             .rows = static_cast<std::int32_t>(part.weight.rows),
                                             .first_pair = launch->pairs,
                                             .index = i};
      if (launch->finish != Finish::kGate || i == first) {
        launch->pairs += static_cast<std::int32_t>(pairs_of(launch->finish, part.weight));
      }
    }
    output += part.weight.rows;
  }
}

cudaError_t run_panels(const KernelContext& context, const Call& call, std::int64_t first, std::int64_t rows,
                       const FusedLinear& launch) {
  PanelLinear args = {.linear = launch, .input = nullptr, .input_stride = 0};
  if (launch.finish != Finish::kStore) args.linear.out_format = call.out_format;
  if (call.x_format != WeightFormat::kF32 || !panels_take_input(launch)) {
    args.input_stride = round_up(call.cols(), kOperandMultiple);
    const void* input = nullptr;
    LANNER_RETURN_IF_CUDA_ERROR(prepare_input(context, call, first, rows, WeightFormat::kF16, &input));
    args.input = static_cast<const std::uint16_t*>(input);
  }
  return run_panel_linear(context, args);
}

cudaError_t run_few_rows(const KernelContext& context, const Call& call, std::int64_t first, std::int64_t rows) {
  const DeviceLinear& linear = *call.linear;
  const Finish finish = few_rows_finish(call);
  auto* product = reinterpret_cast<float*>(context.scratch.product);
  FusedLinear args = {};
  args.x = call.row_index == nullptr ? call.x + first * call.cols() : call.x;
  args.row_index = call.row_index == nullptr ? nullptr : call.row_index + first;
  args.input_order = linear.input_order;
  args.norm = linear.norm;
  args.rows = static_cast<std::int32_t>(rows);
  args.first_row = static_cast<std::int32_t>(first);
  args.cols = static_cast<std::int32_t>(call.cols());
  args.finish = finish;
  args.gate = call.gate;
  args.scale = linear.scale;
  args.soft_cap = linear.soft_cap;
  args.heads = call.heads;
  args.out = finish == Finish::kStore ? product : call.out + first * call.out_stride;
  args.out_stride = finish == Finish::kStore ? call.width() : call.out_stride;
  for (int i = 0; i < linear.part_count; ++i) {
    bool taken = false;
    for (int j = 0; j < i; ++j) taken = taken || same_kind(linear.parts[j].weight, linear.parts[i].weight);
    if (taken) continue;
    FusedLinear launch = args;
    launch.group = linear.parts[i].weight.group;
    launch.scale_format = linear.parts[i].weight.scale_format;
    take_parts(call, i, &launch);
    if (linear.parts[i].weight.panels) {
      LANNER_RETURN_IF_CUDA_ERROR(run_panels(context, call, first, rows, launch));
    } else {
      LANNER_RETURN_IF_CUDA_ERROR(run_fused_linear(context, linear.parts[i].weight.format, launch));
    }
  }
  if (finish != Finish::kStore) return cudaSuccess;
  return finish_product(context, call, product_of(call, product, call.width()), first, rows);
}

// --- many rows

/// out = prepared input · weightᵀ, of a weight as it lies in memory.
GemmArgs gemm_of(const DeviceWeight& weight, const void* input, std::int64_t input_stride, std::int64_t rows,
                 float* out, std::int64_t out_stride) {
  return {.format = operand_format(weight.format),
          .input = input,
          .input_stride = input_stride,
          .weight = weight.data,
          .weight_stride = weight.stride / operand_bytes(weight.format),
          .out = out,
          .out_stride = out_stride,
          .rows = rows,
          .width = weight.rows,
          .cols = weight.cols};
}

cudaError_t multiply_part(const KernelContext& context, const DeviceWeight& weight, const void* input,
                          std::int64_t input_stride, std::int64_t rows, float* out, std::int64_t out_stride) {
  GemmArgs args = gemm_of(weight, input, input_stride, rows, out, out_stride);
  if (is_quantized(weight.format)) {
    args.weight = context.scratch.widened;
    args.weight_stride = round_up(weight.cols, 8);
    if (weight.rows * args.weight_stride * 2 > context.scratch.widened_bytes) return cudaErrorInvalidValue;
    LANNER_RETURN_IF_CUDA_ERROR(widen_weight(context, weight, context.scratch.widened, args.weight_stride));
  }
  if (args.format == WeightFormat::kF32) return multiply_float32(context, args);
  if (context.library != nullptr && context.library->multiply(args, context.stream)) return cudaGetLastError();
  return multiply_16_bit(context, args);
}

/// The part's weight and those behind it, as one: as many as lie in memory as if they were one matrix (q, k and v; gate
/// and up). `next`: the first part that does not.
DeviceWeight joined_weight(const DeviceLinear& linear, int part, int* next) {
  DeviceWeight joined = linear.parts[part].weight;
  for (*next = part + 1; *next < linear.part_count && !is_quantized(joined.format); ++*next) {
    const DeviceWeight& weight = linear.parts[*next].weight;
    const auto* end = static_cast<const std::byte*>(joined.data) + joined.rows * joined.stride;
    if (!same_kind(joined, weight) || weight.stride != joined.stride || weight.data != end) break;
    joined.rows += weight.rows;
  }
  return joined;
}

/// Parts part..next - 1 of a call, which lie one behind the other, for the tiles of Hopper.
TileLinear tile_linear_of(const Call& call, int part, int next, std::int64_t first, std::int64_t rows) {
  const DeviceLinear& linear = *call.linear;
  TileLinear args;
  args.format = linear.parts[part].weight.format;
  args.input_stride = round_up(call.cols(), kOperandMultiple);
  args.linear = {};
  args.linear.rows = static_cast<std::int32_t>(rows);
  args.linear.first_row = static_cast<std::int32_t>(first);
  args.linear.cols = static_cast<std::int32_t>(call.cols());
  args.linear.finish = fused_finish(call);
  args.linear.gate = call.gate;
  args.linear.scale = linear.scale;
  args.linear.soft_cap = linear.soft_cap;
  args.linear.heads = call.heads;
  args.linear.out = output_row(call, first);
  args.linear.out_stride = call.out_stride;
  args.linear.out_format = call.out_format;
  std::int64_t output = 0;
  for (int i = part; i < next; ++i) {
    const DeviceWeight& weight = linear.parts[i].weight;
    args.linear.parts[args.linear.part_count++] = {.data = static_cast<const std::uint8_t*>(weight.data),
                                                   .scales = nullptr,
                                                   .bias = linear.parts[i].bias,
                                                   .stride = weight.stride,
                                                   .first_output = output,
                                                   .rows = static_cast<std::int32_t>(weight.rows),
                                                   .first_pair = 0,
                                                   .index = i};
    output += weight.rows;
  }
  return args;
}

/// Does the whole of the call in one launch behind the input's, if the device and the weights allow it; else *done is
/// false.
cudaError_t run_in_tiles(const KernelContext& context, const Call& call, std::int64_t first, std::int64_t rows,
                         bool* done) {
  const DeviceLinear& linear = *call.linear;
  int next = 0;
  const DeviceWeight weight = joined_weight(linear, 0, &next);
  TileLinear args = tile_linear_of(call, 0, linear.part_count, first, rows);
  *done = next == linear.part_count && is_half(weight.format) && args.linear.finish != Finish::kStore &&
          takes_tiles(context, args);
  if (!*done) return cudaSuccess;
  LANNER_RETURN_IF_CUDA_ERROR(prepare_input(context, call, first, rows, weight.format, &args.input));
  return run_tile_linear(context, args);
}

/// Whether cuBLASLt and a pass over what it leaves are faster than tiles that finish their products. Heads are cheap to
/// write; of the gate the pass reads so much that it pays only where tiles would be few, and not full. Measured
/// (docs/perf-log.md).
bool product_by_library(const KernelContext& context, const Call& call, std::int64_t rows) {
  if (context.library == nullptr || rows < kFewestPassRows) return false;
  if (call.finish == Finish::kQkv) return true;
  return call.finish == Finish::kGate && rows < kMostGatePassRows && rows % kLargeTileTokens != 0;
}

/// The product of the parts part..next - 1, without anything done to it.
cudaError_t multiply_parts(const KernelContext& context, const Call& call, int part, int next,
                           const DeviceWeight& weight, const void* input, std::int64_t rows, float* out,
                           std::int64_t out_stride) {
  TileLinear args = tile_linear_of(call, part, next, 0, rows);
  args.linear.finish = Finish::kStore;
  if (!is_half(weight.format) || !takes_tiles(context, args)) {
    return multiply_part(context, weight, input, args.input_stride, rows, out, out_stride);
  }
  if (product_by_library(context, call, rows) &&
      context.library->multiply(gemm_of(weight, input, args.input_stride, rows, out, out_stride), context.stream)) {
    return cudaGetLastError();
  }
  args.input = input;
  args.linear.out = out;
  args.linear.out_stride = out_stride;
  return run_tile_linear(context, args);
}

/// Whether cuBLASLt is faster than the tiles of Hopper, for a product that is added to its output or is the output. Up
/// to 64 rows that does not make up for the start of a kernel that waits for the end of the one before it.
bool library_is_faster(const KernelContext& context, const Call& call, std::int64_t rows) {
  const DeviceLinear& linear = *call.linear;
  const DevicePart& part = linear.parts[0];
  if (context.library == nullptr || context.maps == nullptr || rows < kFewestLibraryRows || linear.part_count != 1 ||
      part.bias != nullptr || !is_half(part.weight.format)) {
    return false;
  }
  if (call.finish == Finish::kHead) return linear.scale == 1.0F && linear.soft_cap == 0;
  return call.finish == Finish::kAdd && linear.post_norm.gain == nullptr;
}

/// Does the whole of such a call behind its input, if the library can; else *done is false.
cudaError_t run_in_library(const KernelContext& context, const Call& call, std::int64_t first, std::int64_t rows,
                           bool* done) {
  const DeviceWeight& weight = call.linear->parts[0].weight;
  float* out = output_row(call, first);
  *done = library_is_faster(context, call, rows);
  if (!*done) return cudaSuccess;
  const void* input = nullptr;
  LANNER_RETURN_IF_CUDA_ERROR(prepare_input(context, call, first, rows, weight.format, &input));
  GemmArgs args = gemm_of(weight, input, round_up(call.cols(), kOperandMultiple), rows, out, call.out_stride);
  args.add = call.finish == Finish::kAdd;
  args.scale = call.linear->scale;
  *done = context.library->multiply(args, context.stream);
  return cudaGetLastError();
}

cudaError_t run_many_rows(const KernelContext& context, const Call& call, std::int64_t first, std::int64_t rows) {
  const DeviceLinear& linear = *call.linear;
  bool done = false;
  LANNER_RETURN_IF_CUDA_ERROR(run_in_library(context, call, first, rows, &done));
  if (done) return cudaSuccess;
  if (!product_by_library(context, call, rows)) {
    LANNER_RETURN_IF_CUDA_ERROR(run_in_tiles(context, call, first, rows, &done));
  }
  if (done) return cudaSuccess;
  const bool in_place = call.finish == Finish::kHead;  // logits are the product
  float* values = in_place ? output_row(call, first) : reinterpret_cast<float*>(context.scratch.product);
  const Product product = product_of(call, values, call.width());
  for (const WeightFormat format : {WeightFormat::kF32, WeightFormat::kF16, WeightFormat::kBF16}) {
    const void* input = nullptr;
    for (int i = 0, next = 0; i < linear.part_count; i = next) {
      const DeviceWeight weight = joined_weight(linear, i, &next);
      if (operand_format(weight.format) != format) continue;
      if (input == nullptr) {
        LANNER_RETURN_IF_CUDA_ERROR(prepare_input(context, call, first, rows, format, &input));
      }
      LANNER_RETURN_IF_CUDA_ERROR(multiply_parts(context, call, i, next, weight, input, rows,
                                                 values + product.first_column[i], product.stride));
    }
  }
  bool biased = false;
  for (int i = 0; i < linear.part_count; ++i) biased = biased || linear.parts[i].bias != nullptr;
  if (in_place && !biased && linear.scale == 1.0F && linear.soft_cap == 0) return cudaSuccess;
  return finish_product(context, call, product, first, rows);
}

/// How many rows of the call go together.
std::int64_t rows_at_once(const KernelContext& context, const Call& call, bool few) {
  const std::int64_t products = context.scratch.product_bytes / (call.width() * 4);
  if (few) return few_rows_finish(call) == Finish::kStore ? std::min(kFusedRows, products) : kFusedRows;
  const std::int64_t inputs = context.scratch.input_bytes / (round_up(call.cols(), kOperandMultiple) * 4);
  return std::min(call.rows, call.finish == Finish::kHead ? inputs : std::min(inputs, products));
}

cudaError_t run_parts(const KernelContext& context, const Call& call) {
  const bool few = !has_many_rows(context, *call.linear, call.rows);
  const std::int64_t step = rows_at_once(context, call, few);
  if (step <= 0) return call.rows == 0 ? cudaSuccess : cudaErrorInvalidValue;
  for (std::int64_t first = 0; first < call.rows; first += step) {
    const std::int64_t rows = std::min(step, call.rows - first);
    LANNER_RETURN_IF_CUDA_ERROR(few ? run_few_rows(context, call, first, rows)
                                    : run_many_rows(context, call, first, rows));
  }
  return cudaSuccess;
}

cudaError_t run_linear(const KernelContext& context, const Call& call) {
  if (context.deterministic || call.rows <= kFusedRows || !has_copies(*call.linear)) return run_parts(context, call);
  const DeviceLinear copies = with_copies(*call.linear);
  Call dense = call;
  dense.linear = &copies;
  return run_parts(context, dense);
}

HeadsOut heads_of(const DeviceNormQkv& args, const DeviceBatch& batch, const KvCacheView& cache) {
  const KvLayout& layout = cache.layout;
  return {.angles = args.rope_angles,
          .q = args.q,
          .cache = cache.head(0, args.layer, 0),
          .block_bytes = layout.block_bytes(),
          .head_bytes = layout.head_bytes(),
          .row_slice = batch.row_slice,
          .slices = batch.slices,
          .blocks = batch.blocks,
          .rotary_dim = static_cast<std::int32_t>(args.rotary_dim),
          .head_dim = static_cast<std::int32_t>(layout.head_dim),
          .heads = static_cast<std::int32_t>(args.heads),
          .kv_heads = static_cast<std::int32_t>(layout.kv_heads),
          .dtype = layout.dtype,
          .codes = layout.codes};
}

}  // namespace

cudaError_t norm_qkv(const KernelContext& context, const DeviceNormQkv& args, const DeviceBatch& batch,
                     const KvCacheView& cache) {
  return run_linear(context, {.linear = args.linear,
                              .x = args.x,
                              .rows = batch.rows,
                              .finish = Finish::kQkv,
                              .heads = heads_of(args, batch, cache),
                              .q_norm = args.q_norm,
                              .k_norm = args.k_norm});
}

WeightFormat handed_format(const KernelContext& context, const DeviceLinear& reader, std::int64_t rows) {
  const bool plain = reader.input_order == nullptr && reader.norm.gain == nullptr &&
                     reader.parts[0].weight.cols % kOperandMultiple == 0;
  const bool in_16_bits = has_many_rows(context, reader, rows) || all_in_panels(reader);
  if (!in_16_bits || !plain) return WeightFormat::kF32;
  const WeightFormat format = operand_format(reader.parts[0].weight.format);
  for (int i = 1; i < reader.part_count; ++i) {
    if (operand_format(reader.parts[i].weight.format) != format) return WeightFormat::kF32;
  }
  return format;
}

cudaError_t linear_add(const KernelContext& context, const DeviceLinear& linear, const float* input,
                       WeightFormat input_format, std::int64_t rows, float* x) {
  Call call = {.linear = &linear, .x = input, .x_format = input_format, .rows = rows, .finish = Finish::kAdd, .out = x};
  call.out_stride = call.width();
  return run_linear(context, call);
}

cudaError_t norm_gated_up(const KernelContext& context, const DeviceLinear& linear, Gate gate, const float* x,
                          std::int64_t rows, float* h, WeightFormat h_format) {
  return run_linear(context, {.linear = &linear,
                              .x = x,
                              .rows = rows,
                              .finish = Finish::kGate,
                              .gate = gate,
                              .out = h,
                              .out_stride = linear.parts[0].weight.rows,
                              .out_format = h_format});
}

cudaError_t norm_head(const KernelContext& context, const DeviceLinear& linear, const float* x,
                      const std::int32_t* wanted, std::int64_t count, float* logits) {
  Call call = {.linear = &linear, .x = x, .row_index = wanted, .rows = count, .finish = Finish::kHead, .out = logits};
  call.out_stride = call.width();
  return run_linear(context, call);
}

cudaError_t prepare_kernels(const KernelContext& context) {
  LANNER_RETURN_IF_CUDA_ERROR(prepare_fused_linear(context.shared_bytes));
  LANNER_RETURN_IF_CUDA_ERROR(prepare_panel_linear(context.shared_bytes));
  LANNER_RETURN_IF_CUDA_ERROR(prepare_gemm());
  return prepare_attention(context);
}

}  // namespace lanner::ops::cuda
