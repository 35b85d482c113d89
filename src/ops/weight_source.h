#pragma once
// A weight matrix on the host, in the form in which model/ hands it to a device to be repacked.
//
// Checkpoint formats differ in how they pack bits; here they are all alike: dense elements as they lie in the
// file, or one byte a code with a scale, and where needed an offset, for each group of input columns:
//
//     w[row, col] = scale[row, col / group] * code[row, col] + offset[row, col / group]
//
// int8 codes are signed (-128..127), int4 codes unsigned (0..15). A format with a zero point z stores
// offset = -scale * z. One matrix at a time exists in this form, while it is loaded.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace lanner::ops {

enum class WeightFormat : std::uint8_t { kF32, kF16, kBF16, kInt8, kInt4 };

inline bool is_half(WeightFormat format) { return format == WeightFormat::kF16 || format == WeightFormat::kBF16; }
inline bool is_quantized(WeightFormat format) { return format == WeightFormat::kInt8 || format == WeightFormat::kInt4; }

inline std::string_view weight_format_name(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32: return "float32";
    case WeightFormat::kF16: return "float16";
    case WeightFormat::kBF16: return "bfloat16";
    case WeightFormat::kInt8: return "int8";
    case WeightFormat::kInt4: return "int4";
  }
  return "unknown";
}

/// A matrix as the CPU keeps it, packed at an earlier time and now read where it lies (WeightView in ops/cpu/kernels.h
/// says how; the same for every instruction set).
struct PackedImage {
  WeightFormat format = WeightFormat::kF32;
  std::int64_t group = 0;
  bool half_scales = false;
  bool has_offsets = false;
  bool zero_points = false;          // which stand for the offsets; int4 with half_scales and has_offsets
  std::span<const std::byte> bytes;  // begins at a multiple of 64
  std::shared_ptr<const void> owner;
};

struct WeightSource {
  WeightFormat format = WeightFormat::kF32;
  std::int64_t rows = 0;  // output features
  std::int64_t cols = 0;  // input features

  /// Rows of the weights that are packed next and multiplied together with this one, the parts of a Linear behind it: a
  /// device may keep room for them, so that they lie one behind the other and are multiplied as one. A hint.
  std::int64_t rows_behind = 0;

  /// Whether a device may keep a dense matrix in int8, with a scale for 32 to 128 columns, where that is faster: set
  /// for the head of a model whose layers are quantized. A hint.
  bool may_be_int8 = false;

  // Dense: (rows, cols) elements of `format`, row major, possibly unaligned; kept alive by `owner`.
  const std::byte* dense = nullptr;
  std::shared_ptr<const void> owner;

  // Quantized: `group` divides cols.
  std::int64_t group = 0;
  std::vector<std::uint8_t> codes;  // (rows, cols); int8 codes as their two's complement bits
  std::vector<float> scales;        // (rows, cols / group)
  std::vector<float> offsets;       // (rows, cols / group), or empty for all zero

  /// Column i of the codes reads column input_order[i] of the input: what GPTQ's act-order leaves behind. A
  /// permutation of 0..cols-1; empty: the identity. The loader moves it to Linear::input_order; pack() takes none.
  std::vector<std::int32_t> input_order;

  // In place of all of these: packed before. Only the CPU takes it, and nothing may move its rows.
  std::shared_ptr<const PackedImage> packed;
};

}  // namespace lanner::ops
