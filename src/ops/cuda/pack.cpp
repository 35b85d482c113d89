#include "ops/cuda/pack.h"

#include <fmt/format.h>

#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <utility>

#include "core/check.h"
#include "core/float16.h"
#include "ops/cuda/cuda_error.h"
#include "ops/cuda/panel_linear.h"
#include "ops/cuda/widen.h"

namespace lanner::ops::cuda {
namespace {

constexpr std::int64_t kRowAlignment = 16;  // bytes: what one load of a thread takes
constexpr std::int64_t kInt8Multiple = 16;  // of a group's columns, for the kernels to take it
constexpr std::int64_t kInt4Multiple = 32;
constexpr std::uint8_t kExcess = 0x80;  // turns two's complement into code + 128

std::int64_t aligned(std::int64_t bytes) { return (bytes + kRowAlignment - 1) / kRowAlignment * kRowAlignment; }

std::int64_t element_bytes(WeightFormat format) { return format == WeightFormat::kF32 ? 4 : 2; }

/// How the weight will lie on the device.
WeightFormat packed_format(const WeightSource& source, Arithmetic arithmetic, std::optional<DType> dense) {
  if (arithmetic == Arithmetic::kExact) return WeightFormat::kF32;
  if (is_quantized(source.format)) {
    LANNER_CHECK(source.group > 0 && source.cols % source.group == 0);
    const std::int64_t multiple = source.format == WeightFormat::kInt4 ? kInt4Multiple : kInt8Multiple;
    return source.group % multiple == 0 ? source.format : WeightFormat::kF16;
  }
  if (!dense) return source.format;
  LANNER_CHECK(*dense == DType::kF16 || *dense == DType::kBF16);
  return *dense == DType::kF16 ? WeightFormat::kF16 : WeightFormat::kBF16;
}

float code_number(const WeightSource& source, std::size_t index) {
  const std::uint8_t code = source.codes[index];
  return source.format == WeightFormat::kInt4 ? static_cast<float>(code)
                                              : static_cast<float>(static_cast<std::int8_t>(code));
}

/// Element `index` of (rows, cols), as fp32.
float element(const WeightSource& source, std::int64_t index) {
  const auto place = static_cast<std::size_t>(index);
  if (is_quantized(source.format)) {
    const std::int64_t row = index / source.cols;
    const auto group =
        static_cast<std::size_t>(row * (source.cols / source.group) + index % source.cols / source.group);
    const float offset = source.offsets.empty() ? 0.0F : source.offsets[group];
    return source.scales[group] * code_number(source, place) + offset;
  }
  if (source.format == WeightFormat::kF32) {
    float value = 0;
    std::memcpy(&value, source.dense + index * 4, sizeof(value));
    return value;
  }
  std::uint16_t bits = 0;
  std::memcpy(&bits, source.dense + index * 2, sizeof(bits));
  return source.format == WeightFormat::kF16 ? to_float(Half{bits}) : to_float(BFloat16{bits});
}

/// One row in a dense format; false where a finite number became infinite.
bool fill_dense_row(const WeightSource& source, WeightFormat format, std::int64_t row, std::byte* out) {
  const std::int64_t cols = source.cols;
  const std::int64_t size = element_bytes(format);
  std::memset(out + cols * size, 0, static_cast<std::size_t>(aligned(cols * size) - cols * size));
  if (format == source.format) {
    std::memcpy(out, source.dense + row * cols * size, static_cast<std::size_t>(cols * size));
    return true;
  }
  bool held = true;
  for (std::int64_t col = 0; col < cols; ++col) {
    const float value = element(source, row * cols + col);
    if (format == WeightFormat::kF32) {
      std::memcpy(out + col * 4, &value, sizeof(value));
      continue;
    }
    const std::uint16_t bits = format == WeightFormat::kF16 ? to_half(value).bits : to_bfloat16(value).bits;
    const float back = format == WeightFormat::kF16 ? to_float(Half{bits}) : to_float(BFloat16{bits});
    held = held && (std::isfinite(back) || !std::isfinite(value));
    std::memcpy(out + col * 2, &bits, sizeof(bits));
  }
  return held;
}

void fill_int8_row(const WeightSource& source, std::int64_t row, std::byte* out) {
  const std::uint8_t* codes = source.codes.data() + row * source.cols;
  for (std::int64_t col = 0; col < source.cols; ++col) out[col] = static_cast<std::byte>(codes[col] ^ kExcess);
  std::memset(out + source.cols, 0, static_cast<std::size_t>(aligned(source.cols) - source.cols));
}

/// Eight codes as a word.
std::uint32_t pack_codes(const std::uint8_t* codes) {
  std::uint32_t word = 0;
  for (int i = 0; i < 8; ++i) word |= std::uint32_t{codes[i]} << (4 * int4_nibble(i));
  return word;
}

void fill_int4_row(const WeightSource& source, std::int64_t row, std::byte* out) {
  const std::uint8_t* codes = source.codes.data() + row * source.cols;
  for (std::int64_t first = 0; first < source.cols; first += 8) {
    const std::uint32_t word = pack_codes(codes + first);
    std::memcpy(out + first / 2, &word, sizeof(word));
  }
  std::memset(out + source.cols / 2, 0, static_cast<std::size_t>(aligned(source.cols / 2) - source.cols / 2));
}

/// Panel `panel` of a weight in panels.
void fill_int4_panel(const WeightSource& source, std::int64_t panel, std::byte* out) {
  for (std::int64_t row = 0; row < kPanelHeight; ++row) {
    const std::uint8_t* codes = source.codes.data() + (panel * kPanelHeight + row) * source.cols;
    for (std::int64_t col = 0; col < source.cols; col += 8) {
      const std::uint32_t word = pack_codes(codes + col);
      std::memcpy(out + panel_word(source.cols, row, col), &word, sizeof(word));
    }
  }
}

float offset_of(const WeightSource& source, std::size_t group) {
  return source.offsets.empty() ? 0.0F : source.offsets[group];
}

bool half_holds(float value) { return to_float(to_half(value)) == value; }

/// The zero point for which offset = -scale * zero, exactly, in numbers that fp16 holds; else nothing.
std::optional<float> half_zero(float scale, float offset) {
  if (offset == 0) return 0.0F;
  if (scale == 0) return std::nullopt;
  const float zero = -offset / scale;
  if (half_holds(zero) && -scale * zero == offset) return zero;
  return std::nullopt;
}

/// How a weight's scales are kept.
struct ScaleKind {
  ScaleFormat format = ScaleFormat::kFloat;
  bool whole_zeros = false;  // kHalfZero: all are whole numbers of 0 to 63
};

ScaleKind scale_kind(const WeightSource& source) {
  constexpr float kMostZero = 63;
  bool plain = true;
  bool zeros = true;
  bool whole = true;
  for (std::size_t group = 0; group < source.scales.size(); ++group) {
    if (!half_holds(source.scales[group])) return {};
    const float offset = offset_of(source, group);
    plain = plain && half_holds(offset);
    if (zeros) {
      const std::optional<float> zero = half_zero(source.scales[group], offset);
      zeros = zero.has_value();
      whole = whole && zeros && *zero >= 0 && *zero <= kMostZero && *zero == std::floor(*zero);
    }
    if (!plain && !zeros) return {};
  }
  return {.format = plain ? ScaleFormat::kHalf : ScaleFormat::kHalfZero, .whole_zeros = whole};
}

void store_half_pair(const WeightSource& source, ScaleFormat format, std::size_t group, std::byte* out) {
  const float scale = source.scales[group];
  const float offset = offset_of(source, group);
  const float second = format == ScaleFormat::kHalf ? offset : *half_zero(scale, offset);
  const std::uint16_t pair[2] = {to_half(scale).bits, to_half(second).bits};
  std::memcpy(out, pair, sizeof(pair));
}

void fill_scales(const WeightSource& source, ScaleFormat format, std::int64_t row, std::byte* out) {
  const std::int64_t groups = source.cols / source.group;
  for (std::int64_t g = 0; g < groups; ++g) {
    const auto group = static_cast<std::size_t>(row * groups + g);
    if (format == ScaleFormat::kFloat) {
      const float pair[2] = {source.scales[group], offset_of(source, group)};
      std::memcpy(out + g * 8, pair, sizeof(pair));
    } else {
      store_half_pair(source, format, group, out + g * 4);
    }
  }
}

void fill_panel_scales(const WeightSource& source, ScaleFormat format, std::int64_t panel, std::byte* out) {
  const std::int64_t groups = source.cols / source.group;
  for (std::int64_t row = 0; row < kPanelHeight; ++row) {
    for (std::int64_t g = 0; g < groups; ++g) {
      const auto group = static_cast<std::size_t>((panel * kPanelHeight + row) * groups + g);
      store_half_pair(source, format, group, out + panel_pair(groups, row, g) * 4);
    }
  }
}

/// Whether the weight can lie in panels: see kernels.h, and panels_fit().
bool suits_panels(const WeightSource& source, const ScaleKind& scales, const KernelContext& context) {
  const bool whole = source.rows % kPanelHeight == 0 && source.cols % kPanelColumns == 0;
  const bool doubled = std::has_single_bit(static_cast<std::uint64_t>(source.group)) || source.group == source.cols;
  return source.format == WeightFormat::kInt4 && whole && doubled && panels_fit(context, source.cols, source.group) &&
         (scales.format == ScaleFormat::kHalf || (scales.format == ScaleFormat::kHalfZero && scales.whole_zeros));
}

Result<std::shared_ptr<const DeviceBuffer>> allocate_weight(std::int64_t bytes) {
  LANNER_ASSIGN_OR_RETURN(DeviceBuffer buffer, DeviceBuffer::allocate(bytes, "weights"));
  return std::shared_ptr<const DeviceBuffer>(std::make_shared<const DeviceBuffer>(std::move(buffer)));
}

/// Memory for `rows` more rows of a dense weight, behind the one before if that kept room; `offset`: where in it.
Result<std::shared_ptr<const DeviceBuffer>> take_room(const WeightSource& source, const DeviceWeight& view,
                                                      WeightRoom& room, std::int64_t* offset) {
  const std::int64_t bytes = source.rows * view.stride;
  const bool fits = room.memory != nullptr && room.format == view.format && room.stride == view.stride &&
                    room.memory->bytes() - room.used >= bytes;
  if (!fits) {
    room = {.format = view.format, .stride = view.stride};
    LANNER_ASSIGN_OR_RETURN(room.memory, allocate_weight(bytes + source.rows_behind * view.stride));
  }
  *offset = room.used;
  room.used += bytes;
  std::shared_ptr<const DeviceBuffer> memory = room.memory;
  if (room.used == room.memory->bytes()) room = {};
  return memory;
}

Status copy_codes(const WeightSource& source, DeviceWeight& view, Staging& staging,
                  std::shared_ptr<const DeviceBuffer>& data) {
  const bool nibbles = source.format == WeightFormat::kInt4;
  view.stride = aligned(nibbles ? source.cols / 2 : source.cols);
  LANNER_ASSIGN_OR_RETURN(data, allocate_weight(source.rows * view.stride));
  view.data = data->data();
  if (view.panels) {
    return staging.copy_rows(
        source.rows / kPanelHeight, kPanelHeight * view.stride,
        [&](std::int64_t panel, std::byte* out) { fill_int4_panel(source, panel, out); }, data->data());
  }
  return staging.copy_rows(
      source.rows, view.stride,
      [&](std::int64_t row, std::byte* out) {
        nibbles ? fill_int4_row(source, row, out) : fill_int8_row(source, row, out);
      },
      data->data());
}

Status copy_scales(const WeightSource& source, DeviceWeight& view, Staging& staging, DeviceBuffer& scales) {
  const std::int64_t row_bytes = source.cols / source.group * (view.scale_format == ScaleFormat::kFloat ? 8 : 4);
  LANNER_ASSIGN_OR_RETURN(scales, DeviceBuffer::allocate(source.rows * row_bytes, "weights' scales"));
  view.scales = scales.data();
  if (view.panels) {
    return staging.copy_rows(
        source.rows / kPanelHeight, kPanelHeight * row_bytes,
        [&](std::int64_t panel, std::byte* out) { fill_panel_scales(source, view.scale_format, panel, out); },
        scales.data());
  }
  return staging.copy_rows(
      source.rows, row_bytes,
      [&](std::int64_t row, std::byte* out) { fill_scales(source, view.scale_format, row, out); }, scales.data());
}

Status copy_dense(const WeightSource& source, DeviceWeight& view, Staging& staging, WeightRoom& room,
                  std::shared_ptr<const DeviceBuffer>& data) {
  view.stride = aligned(source.cols * element_bytes(view.format));
  std::int64_t offset = 0;
  LANNER_ASSIGN_OR_RETURN(data, take_room(source, view, room, &offset));
  view.data = data->data() + offset;
  std::atomic<bool> held = true;
  LANNER_RETURN_IF_ERROR(staging.copy_rows(
      source.rows, view.stride,
      [&](std::int64_t row, std::byte* out) {
        if (!fill_dense_row(source, view.format, row, out)) held.store(false, std::memory_order_relaxed);
      },
      data->data() + offset));
  if (held) return {};
  return unsupported(
      fmt::format("a weight is too large for {}: use bfloat16 or float32", weight_format_name(view.format)));
}

/// The weight once more in fp16, if there is memory for it.
Status add_copy(const WeightSource& source, DeviceWeight& view, Packer& packer,
                std::shared_ptr<const DeviceBuffer>& copy) {
  const DeviceWeight dense = {.format = WeightFormat::kF16, .stride = aligned(source.cols * 2)};
  std::int64_t offset = 0;
  auto memory = take_room(source, dense, packer.copy_room, &offset);
  if (!memory.ok()) {
    return memory.status().code() == StatusCode::kResourceExhausted ? Status{} : memory.status();
  }
  copy = *std::move(memory);
  LANNER_RETURN_IF_ERROR(
      cuda_status(widen_weight(packer.context, view, copy->data() + offset, dense.stride / 2), "a copy of a weight"));
  view.copy = copy->data() + offset;
  view.copy_stride = dense.stride;
  return {};
}

}  // namespace

Result<std::shared_ptr<const PackedWeight>> pack_weight(const WeightSource& source, Arithmetic arithmetic,
                                                        const PackOptions& options, Packer& packer) {
  LANNER_CHECK(source.input_order.empty());
  if (source.packed != nullptr) {
    return unsupported("this model was converted for the CPU: run it with --device cpu, or take the original");
  }
  DeviceWeight view;
  view.format = packed_format(source, arithmetic, options.dense);
  view.rows = source.rows;
  view.cols = source.cols;
  std::shared_ptr<const DeviceBuffer> data;
  std::shared_ptr<const DeviceBuffer> copy;
  DeviceBuffer scales;
  if (is_quantized(view.format)) {
    view.group = static_cast<std::int32_t>(source.group);
    const ScaleKind kind = scale_kind(source);
    view.scale_format = kind.format;
    view.panels = options.panels && suits_panels(source, kind, packer.context);
    LANNER_RETURN_IF_ERROR(copy_codes(source, view, packer.staging, data));
    LANNER_RETURN_IF_ERROR(copy_scales(source, view, packer.staging, scales));
    if (options.copies) LANNER_RETURN_IF_ERROR(add_copy(source, view, packer, copy));
  } else {
    LANNER_RETURN_IF_ERROR(copy_dense(source, view, packer.staging, packer.room, data));
  }
  return std::shared_ptr<const PackedWeight>(
      std::make_shared<CudaWeight>(view, std::move(data), std::move(scales), std::move(copy)));
}

}  // namespace lanner::ops::cuda
