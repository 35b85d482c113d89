#include "ops/cpu/pack.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <optional>

#include "core/check.h"
#include "core/float16.h"

namespace lanner::ops::cpu {
namespace {

constexpr std::int64_t kDotColumns = 4;  // columns of a row that lie together, for one dot instruction

bool exact_in_half(const std::vector<float>& values) {
  for (const float value : values) {
    if (to_float(to_half(value)) != value) return false;
  }
  return true;
}

std::int64_t unit_columns(std::int64_t group) { return group % kActivationGroup == 0 ? kActivationGroup : kSumGroup; }

/// kUnsupported for columns and groups that no kernel takes.
Status check_groups(WeightFormat format, std::int64_t cols, std::int64_t group) {
  if (group > 0 && cols % group == 0 && cols % kActivationGroup == 0 && group % unit_columns(group) == 0 &&
      (format != WeightFormat::kInt4 || group % kActivationGroup == 0)) {
    return {};
  }
  return unsupported(
      fmt::format("{} weights with {} columns in groups of {}", weight_format_name(format), cols, group));
}

/// Where things of one group lie within a panel.
struct GroupPlace {
  const WeightView& view;
  std::int64_t code_bytes = view.format == WeightFormat::kInt4 ? view.group * kPanelRows / 2 : view.group * kPanelRows;
  std::int64_t scale_bytes = view.half_scales ? 2 : 4;
  std::int64_t bytes = code_bytes + (view.has_offsets ? 2 : 1) * kPanelRows * scale_bytes;

  std::int64_t code_byte(std::int64_t column, std::int64_t lane) const {
    const std::int64_t quad = column / kDotColumns;
    const std::int64_t vector = view.format == WeightFormat::kInt4 ? quad / 2 : quad;
    return vector * kPanelRows * kDotColumns + lane * kDotColumns + column % kDotColumns;
  }
  bool high_nibble(std::int64_t column) const { return column / kDotColumns % 2 == 1; }
  std::int64_t scale_byte(std::int64_t lane) const { return code_bytes + lane * scale_bytes; }
  std::int64_t offset_byte(std::int64_t lane) const { return code_bytes + (kPanelRows + lane) * scale_bytes; }
};

std::int64_t quantized_panel_bytes(const WeightView& view) { return view.cols / view.group * GroupPlace{view}.bytes; }

/// Whether every group's zero point is the middle of int4's codes. Exact: 8 is a power of two.
bool is_centered(const WeightSource& source) {
  if (source.format != WeightFormat::kInt4 || source.offsets.size() != source.scales.size()) return false;
  for (std::size_t i = 0; i < source.scales.size(); ++i) {
    if (source.offsets[i] != -static_cast<float>(kCenter) * source.scales[i]) return false;
  }
  return true;
}

/// The z of a group whose offset is exactly -scale * z, if there is one among int4's codes.
std::optional<float> zero_point(float scale, float offset) {
  constexpr float kLargest = 15;
  const float zero = scale == 0.0F ? 0.0F : std::nearbyint(-offset / scale);
  if (!(zero >= 0.0F && zero <= kLargest) || offset != -scale * zero) return std::nullopt;
  return zero;
}

bool has_zero_points(const WeightSource& source) {
  for (std::size_t i = 0; i < source.scales.size(); ++i) {
    if (!zero_point(source.scales[i], source.offsets[i])) return false;
  }
  return true;
}

/// The layout that pack_weight will write. Offsets that a kernel has no variant without are written as zeros.
WeightView plan_quantized(const WeightSource& source) {
  WeightView view;
  view.format = source.format;
  view.cols = source.cols;
  view.group = source.group;
  const bool small_groups = unit_columns(source.group) != kActivationGroup;
  const bool nibbles = source.format == WeightFormat::kInt4;
  view.has_offsets = nibbles ? !is_centered(source) : small_groups || !source.offsets.empty();
  const bool half_variant = nibbles || !view.has_offsets;
  if (half_variant && exact_in_half(source.scales)) {
    const bool half_offsets = !view.has_offsets || exact_in_half(source.offsets);
    view.zero_points = !half_offsets && has_zero_points(source);
    view.half_scales = half_offsets || view.zero_points;
  }
  view.panel_bytes = quantized_panel_bytes(view);
  return view;
}

/// Rows of the weight in this panel. The lanes behind them stay zero: their scales are, whatever codes of zero mean.
std::int64_t used_lanes(const WeightSource& source, std::int64_t panel) {
  return std::min(kPanelRows, source.rows - panel * kPanelRows);
}

void write_scale(std::byte* place, float value, bool half) {
  if (half) {
    const Half bits = to_half(value);
    std::memcpy(place, &bits, sizeof(bits));
  } else {
    std::memcpy(place, &value, sizeof(value));
  }
}

float read_scale(const std::byte* place, bool half) {
  if (half) {
    Half bits;
    std::memcpy(&bits, place, sizeof(bits));
    return to_float(bits);
  }
  float value = 0;
  std::memcpy(&value, place, sizeof(value));
  return value;
}

/// An element of a dense matrix of 16 bits, which may not be aligned.
float half_element(const WeightSource& source, std::int64_t index) {
  std::uint16_t bits = 0;
  std::memcpy(&bits, source.dense + index * 2, sizeof(bits));
  return source.format == WeightFormat::kF16 ? to_float(Half{bits}) : to_float(BFloat16{bits});
}

void pack_quantized_panel(const WeightSource& source, const WeightView& view, std::int64_t panel, std::byte* out) {
  const GroupPlace place{view};
  const std::int64_t groups = source.cols / source.group;
  const bool nibbles = source.format == WeightFormat::kInt4;
  for (std::int64_t lane = 0; lane < used_lanes(source, panel); ++lane) {
    const std::int64_t row = panel * kPanelRows + lane;
    for (std::int64_t g = 0; g < groups; ++g) {
      std::byte* group = out + g * place.bytes;
      const std::uint8_t* codes = source.codes.data() + row * source.cols + g * source.group;
      for (std::int64_t column = 0; column < source.group; ++column) {
        std::byte& target = group[place.code_byte(column, lane)];
        if (!nibbles) {
          target = static_cast<std::byte>(codes[column] ^ 0x80U);  // two's complement to excess 128
        } else if (place.high_nibble(column)) {
          target |= static_cast<std::byte>(codes[column] << 4U);
        } else {
          target |= static_cast<std::byte>(codes[column]);
        }
      }
      write_scale(group + place.scale_byte(lane), source.scales[static_cast<std::size_t>(row * groups + g)],
                  view.half_scales);
      if (view.has_offsets && !source.offsets.empty()) {
        const auto at = static_cast<std::size_t>(row * groups + g);
        const float offset = source.offsets[at];
        write_scale(group + place.offset_byte(lane),
                    view.zero_points ? -zero_point(source.scales[at], offset).value_or(0) : offset, view.half_scales);
      }
    }
  }
}

template <typename T>
void pack_dense_panel(const WeightSource& source, std::int64_t panel, std::byte* out) {
  for (std::int64_t lane = 0; lane < used_lanes(source, panel); ++lane) {
    const std::int64_t row = panel * kPanelRows + lane;
    const std::byte* in = source.dense + row * source.cols * static_cast<std::int64_t>(sizeof(T));
    for (std::int64_t column = 0; column < source.cols; ++column) {
      std::memcpy(out + (column * kPanelRows + lane) * static_cast<std::int64_t>(sizeof(T)),
                  in + column * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
    }
  }
}

void pack_widened_panel(const WeightSource& source, std::int64_t panel, std::byte* out) {
  const std::int64_t groups = source.cols / source.group;
  auto* values = reinterpret_cast<float*>(out);
  for (std::int64_t lane = 0; lane < used_lanes(source, panel); ++lane) {
    const std::int64_t row = panel * kPanelRows + lane;
    for (std::int64_t column = 0; column < source.cols; ++column) {
      const auto group = static_cast<std::size_t>(row * groups + column / source.group);
      const std::uint8_t code = source.codes[static_cast<std::size_t>(row * source.cols + column)];
      const float number = source.format == WeightFormat::kInt4 ? static_cast<float>(code)
                                                                : static_cast<float>(static_cast<std::int8_t>(code));
      const float offset = source.offsets.empty() ? 0.0F : source.offsets[group];
      values[column * kPanelRows + lane] = source.scales[group] * number + offset;
    }
  }
}

/// What a dense matrix that may be int8 becomes: in groups of 128 where they fit, since each takes time to read.
WeightView plan_rounded(std::int64_t cols) {
  WeightView view;
  view.format = WeightFormat::kInt8;
  view.cols = cols;
  for (const std::int64_t group : {32, 64, 128}) {
    if (cols % group == 0) view.group = group;
  }
  view.half_scales = true;
  view.panel_bytes = quantized_panel_bytes(view);
  return view;
}

bool rounds(const WeightSource& source, Arithmetic arithmetic) {
  return source.may_be_int8 && is_half(source.format) && arithmetic == Arithmetic::kFast &&
         source.cols % kActivationGroup == 0;
}

/// The least scale in fp16 that reaches `largest` with 127 steps. 0 or NaN where there is none to speak of.
float int8_scale(float largest) {
  constexpr float kSteps = 127;
  Half scale = to_half(largest / kSteps);
  if (to_float(scale) * kSteps < largest) ++scale.bits;
  return to_float(scale);
}

/// Whether the panel's numbers could be rounded: fp16 has no scale for what is not finite, or far too large.
bool pack_rounded_panel(const WeightSource& source, const WeightView& view, std::int64_t panel, std::byte* out) {
  const GroupPlace place{view};
  std::vector<float> values(static_cast<std::size_t>(view.group));
  for (std::int64_t lane = 0; lane < used_lanes(source, panel); ++lane) {
    const std::int64_t row = panel * kPanelRows + lane;
    for (std::int64_t first = 0; first < source.cols; first += view.group) {
      std::byte* group = out + first / view.group * place.bytes;
      float largest = 0;
      std::int64_t element = row * source.cols + first;
      for (float& value : values) {
        value = half_element(source, element++);
        if (!std::isfinite(value)) return false;
        largest = std::max(largest, std::abs(value));
      }
      const float scale = int8_scale(largest);
      if (!std::isfinite(scale)) return false;
      for (std::int64_t i = 0; i < view.group; ++i) {
        const float code = scale == 0.0F ? 0.0F : std::nearbyint(values[static_cast<std::size_t>(i)] / scale);
        group[place.code_byte(i, lane)] = static_cast<std::byte>(static_cast<int>(code) + 128);
      }
      write_scale(group + place.scale_byte(lane), scale, true);
    }
  }
  return true;
}

WeightView plan_dense(WeightFormat format, std::int64_t cols) {
  WeightView view;
  view.format = format;
  view.cols = cols;
  view.panel_bytes = cols * kPanelRows * (format == WeightFormat::kF32 ? 4 : 2);
  return view;
}

void pack_panel(const WeightSource& source, const WeightView& view, std::int64_t panel, std::byte* out) {
  if (is_quantized(view.format)) return pack_quantized_panel(source, view, panel, out);
  if (is_quantized(source.format)) return pack_widened_panel(source, panel, out);
  if (source.format == WeightFormat::kF32) return pack_dense_panel<float>(source, panel, out);
  return pack_dense_panel<std::uint16_t>(source, panel, out);
}

/// The layout that an image says it has, against its bytes and what there are kernels for.
Result<WeightView> image_view(const WeightSource& source) {
  const PackedImage& image = *source.packed;
  const auto wrong = [&](std::string_view why) {
    return corrupt(fmt::format("packed {} weights of ({}, {}): {}", weight_format_name(image.format), source.rows,
                               source.cols, why));
  };
  WeightView view = plan_dense(image.format, source.cols);
  if (is_quantized(image.format)) {
    LANNER_RETURN_IF_ERROR(check_groups(image.format, source.cols, image.group));
    view.group = image.group;
    view.has_offsets = image.has_offsets;
    view.half_scales = image.half_scales;
    view.zero_points = image.zero_points;
    const bool nibbles = image.format == WeightFormat::kInt4;
    const bool needs_offsets = unit_columns(image.group) != kActivationGroup;
    if (needs_offsets && !image.has_offsets) return wrong("offsets are missing");
    if (image.half_scales && !nibbles && image.has_offsets) return wrong("scales of 16 bits beside offsets");
    if (image.zero_points && !(nibbles && image.half_scales && image.has_offsets)) {
      return wrong("zero points where there are none");
    }
    view.panel_bytes = quantized_panel_bytes(view);
  }
  const std::int64_t panels = panels_of(source.rows);
  if (static_cast<std::int64_t>(image.bytes.size()) != panels * view.panel_bytes) {
    return wrong(fmt::format("{} bytes, not {}", image.bytes.size(), panels * view.panel_bytes));
  }
  constexpr std::uintptr_t kAlignment = 64;
  if (reinterpret_cast<std::uintptr_t>(image.bytes.data()) % kAlignment != 0) return wrong("not aligned");
  view.data = image.bytes.data();
  return view;
}

Result<std::shared_ptr<const CpuWeight>> adopt(const WeightSource& source, Arithmetic arithmetic, WeightRoom& room) {
  LANNER_ASSIGN_OR_RETURN(const WeightView view, image_view(source));
  const auto weight = std::make_shared<const CpuWeight>(view, source.rows, source.packed->owner);
  if (!is_quantized(view.format) || arithmetic == Arithmetic::kFast) return weight;
  WeightView wide = plan_dense(WeightFormat::kF32, source.cols);
  LANNER_ASSIGN_OR_RETURN(const auto memory, room.allocate(weight->panels() * wide.panel_bytes));
  wide.data = memory.get();
  std::vector<float> row(static_cast<std::size_t>(source.cols));
  for (std::int64_t r = 0; r < source.rows; ++r) {
    weight->read_row(r, row.data());
    float* lane = reinterpret_cast<float*>(memory.get() + r / kPanelRows * wide.panel_bytes) + r % kPanelRows;
    for (std::size_t c = 0; c < row.size(); ++c) lane[c * kPanelRows] = row[c];
  }
  return std::make_shared<const CpuWeight>(wide, source.rows, memory);
}

}  // namespace

Result<std::shared_ptr<std::byte>> WeightRoom::allocate(std::int64_t bytes) {
  constexpr std::int64_t kBufferBytes = std::int64_t{64} << 20;  // only what is written to takes memory
  constexpr std::int64_t kLine = 64;
  if (buffer_ == nullptr || bytes > buffer_->bytes() - used_) {
    LANNER_ASSIGN_OR_RETURN(AlignedBuffer fresh, AlignedBuffer::allocate(std::max(bytes, kBufferBytes), "weights"));
    const auto buffer = std::make_shared<AlignedBuffer>(std::move(fresh));
    // A large matrix has one of its own, and those behind it go on where the small ones are.
    if (buffer_ != nullptr && buffer->bytes() - bytes < buffer_->bytes() - used_) {
      return std::shared_ptr<std::byte>(buffer, buffer->data());
    }
    buffer_ = buffer;
    used_ = 0;
  }
  std::shared_ptr<std::byte> memory(buffer_, buffer_->data() + used_);
  used_ = std::min(buffer_->bytes(), (used_ + bytes + kLine - 1) / kLine * kLine);
  return memory;
}

Result<std::shared_ptr<const CpuWeight>> pack_weight(WeightSource source, Arithmetic arithmetic, ThreadPool& pool,
                                                     WeightRoom& room) {
  LANNER_CHECK(source.input_order.empty());  // a Linear's affair, not a weight's
  if (source.packed != nullptr) return adopt(source, arithmetic, room);
  const bool rounded = rounds(source, arithmetic);
  WeightView view;
  if (rounded) {
    view = plan_rounded(source.cols);
  } else if (!is_quantized(source.format)) {
    view = plan_dense(source.format, source.cols);
  } else {
    LANNER_CHECK(source.group > 0 && source.cols % source.group == 0);
    if (arithmetic == Arithmetic::kExact) {
      view = plan_dense(WeightFormat::kF32, source.cols);
    } else {
      LANNER_RETURN_IF_ERROR(check_groups(source.format, source.cols, source.group));
      view = plan_quantized(source);
    }
  }
  const std::int64_t panels = panels_of(source.rows);
  LANNER_ASSIGN_OR_RETURN(const auto memory, room.allocate(panels * view.panel_bytes));
  view.data = memory.get();
  std::atomic<bool> done{true};
  pool.run([&](ThreadPool::Worker& worker) {
    const auto [begin, end] = worker.share(panels);
    for (std::int64_t panel = begin; panel < end; ++panel) {
      std::byte* out = memory.get() + panel * view.panel_bytes;
      if (!rounded) {
        pack_panel(source, view, panel, out);
      } else if (!pack_rounded_panel(source, view, panel, out)) {
        done.store(false, std::memory_order_relaxed);
        return;
      }
    }
  });
  if (!done.load(std::memory_order_relaxed)) {  // it stays as it is
    source.may_be_int8 = false;
    return pack_weight(std::move(source), arithmetic, pool, room);
  }
  return std::make_shared<const CpuWeight>(view, source.rows, memory);
}

PackedImage CpuWeight::image() const {
  return {.format = view_.format,
          .group = view_.group,
          .half_scales = view_.half_scales,
          .has_offsets = view_.has_offsets,
          .zero_points = view_.zero_points,
          .bytes = {view_.data, static_cast<std::size_t>(bytes())},
          .owner = owner_};
}

void CpuWeight::read_row(std::int64_t row, float* out) const {
  const std::byte* panel = view_.data + row / kPanelRows * view_.panel_bytes;
  const std::int64_t lane = row % kPanelRows;
  if (view_.format == WeightFormat::kF32) {
    for (std::int64_t c = 0; c < view_.cols; ++c) out[c] = reinterpret_cast<const float*>(panel)[c * kPanelRows + lane];
    return;
  }
  if (!is_quantized(view_.format)) {
    const auto* bits = reinterpret_cast<const std::uint16_t*>(panel);
    const bool half = view_.format == WeightFormat::kF16;
    for (std::int64_t c = 0; c < view_.cols; ++c) {
      const std::uint16_t element = bits[c * kPanelRows + lane];
      out[c] = half ? to_float(Half{element}) : to_float(BFloat16{element});
    }
    return;
  }
  const GroupPlace place{view_};
  for (std::int64_t g = 0; g < view_.cols / view_.group; ++g, panel += place.bytes) {
    const float scale = read_scale(panel + place.scale_byte(lane), view_.half_scales);
    float offset = 0;
    if (view_.has_offsets) {
      offset = read_scale(panel + place.offset_byte(lane), view_.half_scales);
      if (view_.zero_points) offset *= scale;
    } else if (view_.format == WeightFormat::kInt4) {
      offset = -static_cast<float>(kCenter) * scale;
    }
    for (std::int64_t column = 0; column < view_.group; ++column) {
      const auto stored = static_cast<unsigned>(panel[place.code_byte(column, lane)]);
      int code = static_cast<int>(stored) - 128;
      if (view_.format == WeightFormat::kInt4) {
        code = static_cast<int>(place.high_nibble(column) ? stored >> 4U : stored & 15U);
      }
      out[g * view_.group + column] = scale * static_cast<float>(code) + offset;
    }
  }
}

}  // namespace lanner::ops::cpu
