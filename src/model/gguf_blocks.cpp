#include "model/gguf_blocks.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/check.h"
#include "core/float16.h"
#include "model/tensor_view.h"

namespace lanner::model {
namespace {

/// Where the values of one block go.
struct BlockOut {
  std::uint8_t* codes;  // (block elements)
  float* scales;        // (block elements / group)
  float* offsets;       // (block elements / group), or null
};

using UnpackBlock = void (*)(const std::uint8_t* block, const BlockOut& out);

struct BlockFormat {
  std::uint32_t type;
  ops::WeightFormat format;
  std::int64_t group;
  bool has_offsets;
  UnpackBlock unpack;
};

float half_at(const std::uint8_t* bytes) {
  Half half;
  std::memcpy(&half.bits, bytes, sizeof(half.bits));
  return to_float(half);
}

std::uint8_t signed_code(int value) { return static_cast<std::uint8_t>(static_cast<std::int8_t>(value)); }

/// 32 codes of four bits: the low halves of 16 bytes, then the high halves.
void unpack_nibbles(const std::uint8_t* packed, std::uint8_t* codes) {
  for (int i = 0; i < 16; ++i) {
    codes[i] = packed[i] & 0x0FU;
    codes[i + 16] = static_cast<std::uint8_t>(packed[i] >> 4U);
  }
}

// Q4_0: d, 16 bytes; w = d (q - 8)
void unpack_q4_0(const std::uint8_t* block, const BlockOut& out) {
  out.scales[0] = half_at(block);
  out.offsets[0] = -8.0F * out.scales[0];
  unpack_nibbles(block + 2, out.codes);
}

// Q4_1: d, m, 16 bytes; w = d q + m
void unpack_q4_1(const std::uint8_t* block, const BlockOut& out) {
  out.scales[0] = half_at(block);
  out.offsets[0] = half_at(block + 2);
  unpack_nibbles(block + 4, out.codes);
}

/// Adds the fifth bits, one of a 32-bit word for each code.
void unpack_five_bits(const std::uint8_t* high, const std::uint8_t* low, std::uint8_t* codes, int bias) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, high, sizeof(bits));
  unpack_nibbles(low, codes);
  for (unsigned i = 0; i < 32; ++i) {
    const unsigned code = codes[i] | (((bits >> i) & 1U) << 4U);
    codes[i] = signed_code(static_cast<int>(code) - bias);
  }
}

// Q5_0: d, fifth bits, 16 bytes; w = d (q - 16)
void unpack_q5_0(const std::uint8_t* block, const BlockOut& out) {
  out.scales[0] = half_at(block);
  unpack_five_bits(block + 2, block + 6, out.codes, 16);
}

// Q5_1: d, m, fifth bits, 16 bytes; w = d q + m
void unpack_q5_1(const std::uint8_t* block, const BlockOut& out) {
  out.scales[0] = half_at(block);
  out.offsets[0] = half_at(block + 2);
  unpack_five_bits(block + 4, block + 8, out.codes, 0);
}

// Q8_0: d, 32 signed bytes; w = d q
void unpack_q8_0(const std::uint8_t* block, const BlockOut& out) {
  out.scales[0] = half_at(block);
  std::memcpy(out.codes, block + 2, 32);
}

/// Scale and offset of the eight groups of a Q4_K or Q5_K block, six bits each in 12 bytes: group j < 4 has the low
/// six bits of bytes j and j + 4; group j + 4 has a half of byte j + 8, and its two high bits on top of those two.
void unpack_k_scales(const std::uint8_t* block, const BlockOut& out) {
  const float d = half_at(block);
  const float d_min = half_at(block + 2);
  const std::uint8_t* packed = block + 4;
  for (int j = 0; j < 4; ++j) {
    const unsigned scale_byte = packed[j];
    const unsigned min_byte = packed[j + 4];
    const unsigned rest = packed[j + 8];
    out.scales[j] = d * static_cast<float>(scale_byte & 63U);
    out.offsets[j] = -d_min * static_cast<float>(min_byte & 63U);
    out.scales[j + 4] = d * static_cast<float>((rest & 15U) | ((scale_byte >> 6U) << 4U));
    out.offsets[j + 4] = -d_min * static_cast<float>((rest >> 4U) | ((min_byte >> 6U) << 4U));
  }
}

// Q4_K: d, d_min, 12 bytes of scales, 128 bytes; each 32 bytes hold two groups, low halves first
void unpack_q4_k(const std::uint8_t* block, const BlockOut& out) {
  unpack_k_scales(block, out);
  const std::uint8_t* packed = block + 16;
  for (int pair = 0; pair < 4; ++pair) {
    for (int i = 0; i < 32; ++i) {
      const std::uint8_t byte = packed[32 * pair + i];
      out.codes[64 * pair + i] = byte & 0x0FU;
      out.codes[64 * pair + 32 + i] = static_cast<std::uint8_t>(byte >> 4U);
    }
  }
}

// Q5_K: as Q4_K with 32 bytes of fifth bits before the codes: bit g of byte i belongs to element i of group g
void unpack_q5_k(const std::uint8_t* block, const BlockOut& out) {
  unpack_k_scales(block, out);
  const std::uint8_t* high = block + 16;
  const std::uint8_t* low = block + 48;
  for (unsigned group = 0; group < 8; ++group) {
    for (unsigned i = 0; i < 32; ++i) {
      const unsigned nibble = (low[32 * (group / 2) + i] >> (4 * (group % 2))) & 15U;
      const unsigned fifth = (static_cast<unsigned>(high[i]) >> group) & 1U;
      out.codes[32 * group + i] = static_cast<std::uint8_t>(nibble | (fifth << 4U));
    }
  }
}

// Q6_K: 128 bytes of low halves, 64 bytes of bit pairs, 16 signed scales, d. Each half of 128 elements has 64 low
// bytes and 32 pair bytes; its quarter k of 32 takes low byte 32 (k % 2) + i, upper half from k = 2 on, and pair k.
void unpack_q6_k(const std::uint8_t* block, const BlockOut& out) {
  const float d = half_at(block + 208);
  for (unsigned i = 0; i < 16; ++i) {
    out.scales[i] = d * static_cast<float>(static_cast<std::int8_t>(block[192 + i]));
  }
  for (unsigned half = 0; half < 2; ++half) {
    const std::uint8_t* low = block + 64 * half;
    const std::uint8_t* high = block + 128 + 32 * half;
    for (unsigned quarter = 0; quarter < 4; ++quarter) {
      for (unsigned i = 0; i < 32; ++i) {
        const unsigned nibble = (low[32 * (quarter % 2) + i] >> (4 * (quarter / 2))) & 15U;
        const unsigned pair = (static_cast<unsigned>(high[i]) >> (2 * quarter)) & 3U;
        out.codes[128 * half + 32 * quarter + i] = signed_code(static_cast<int>(nibble | (pair << 4U)) - 32);
      }
    }
  }
}

constexpr std::array<BlockFormat, 8> kBlockFormats{{
    {ggml::kQ4_0, ops::WeightFormat::kInt4, 32, true, unpack_q4_0},
    {ggml::kQ4_1, ops::WeightFormat::kInt4, 32, true, unpack_q4_1},
    {ggml::kQ5_0, ops::WeightFormat::kInt8, 32, false, unpack_q5_0},
    {ggml::kQ5_1, ops::WeightFormat::kInt8, 32, true, unpack_q5_1},
    {ggml::kQ8_0, ops::WeightFormat::kInt8, 32, false, unpack_q8_0},
    {ggml::kQ4_K, ops::WeightFormat::kInt4, 32, true, unpack_q4_k},
    {ggml::kQ5_K, ops::WeightFormat::kInt8, 32, true, unpack_q5_k},
    {ggml::kQ6_K, ops::WeightFormat::kInt8, 16, false, unpack_q6_k},
}};

const BlockFormat* find_block_format(std::uint32_t type) {
  for (const BlockFormat& format : kBlockFormats) {
    if (format.type == type) return &format;
  }
  return nullptr;
}

bool all_finite(const std::vector<float>& values) {
  for (const float value : values) {
    if (!std::isfinite(value)) return false;
  }
  return true;
}

ops::WeightSource unpack_blocks(const GgufTensor& tensor, const BlockFormat& format) {
  ops::WeightSource source;
  source.format = format.format;
  source.rows = tensor.shape[0];
  source.cols = tensor.shape[1];
  source.group = format.group;
  const std::int64_t elements = source.rows * source.cols;
  const std::int64_t groups = elements / format.group;
  source.codes.resize(static_cast<std::size_t>(elements));
  source.scales.resize(static_cast<std::size_t>(groups));
  if (format.has_offsets) source.offsets.resize(static_cast<std::size_t>(groups));
  const auto* block = reinterpret_cast<const std::uint8_t*>(tensor.bytes.data());
  BlockOut out{source.codes.data(), source.scales.data(), format.has_offsets ? source.offsets.data() : nullptr};
  const std::int64_t blocks = elements / tensor.type.block_elements;
  const std::int64_t block_groups = tensor.type.block_elements / format.group;
  for (std::int64_t i = 0; i < blocks; ++i) {
    format.unpack(block, out);
    block += tensor.type.block_bytes;
    out.codes += tensor.type.block_elements;
    out.scales += block_groups;
    if (out.offsets != nullptr) out.offsets += block_groups;
  }
  return source;
}

}  // namespace

Result<ops::WeightFormat> gguf_format(const GgmlType& type, std::string_view where) {
  if (type.id == ggml::kF32) return ops::WeightFormat::kF32;
  if (type.id == ggml::kF16) return ops::WeightFormat::kF16;
  if (type.id == ggml::kBF16) return ops::WeightFormat::kBF16;
  if (const BlockFormat* format = find_block_format(type.id)) return format->format;
  return unsupported(
      fmt::format("{}: type {} cannot be computed with; use F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K "
                  "or Q6_K",
                  where, type.name));
}

Result<ops::WeightSource> unpack_gguf_matrix(const GgufTensor& tensor, const std::shared_ptr<const void>& owner,
                                             std::string_view where) {
  LANNER_CHECK(tensor.shape.size() == 2);
  LANNER_ASSIGN_OR_RETURN(const ops::WeightFormat format, gguf_format(tensor.type, where));
  if (!ops::is_quantized(format)) {
    return dense_matrix(format, tensor.bytes.data(), tensor.shape[0], tensor.shape[1], owner);
  }
  ops::WeightSource source = unpack_blocks(tensor, *find_block_format(tensor.type.id));
  if (!all_finite(source.scales) || !all_finite(source.offsets)) {
    return corrupt(fmt::format("{}: holds a scale that is not finite", where));
  }
  return source;
}

}  // namespace lanner::model
