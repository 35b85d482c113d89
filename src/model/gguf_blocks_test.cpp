// Blocks are packed here with the steps of ggml's quantizers (ggml-quants.c) from known codes and scales; unpacking
// has to bring those back. tests/model/test_checkpoints.py compares with gguf-py on random blocks.

#include "model/gguf_blocks.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <random>

#include "core/float16.h"
#include "model/file_builders.h"

namespace lanner::model {
namespace {

struct Packed {
  std::string bytes;
  std::vector<float> expected;
};

using Codes = std::array<unsigned, 256>;

Codes random_codes(unsigned seed, unsigned limit) {
  std::mt19937 random(seed);
  Codes codes{};
  for (unsigned& code : codes) code = random() % limit;
  return codes;
}

void append_half(std::string& out, float value) { append(out, to_half(value).bits); }

/// One block of 32 of the older formats. `minimum` is the second half of Q4_1 and Q5_1.
Packed pack_32(std::uint32_t type, float d, float minimum, const Codes& codes) {
  const bool five = type == ggml::kQ5_0 || type == ggml::kQ5_1;
  const bool has_minimum = type == ggml::kQ4_1 || type == ggml::kQ5_1;
  Packed packed;
  append_half(packed.bytes, d);
  if (has_minimum) append_half(packed.bytes, minimum);
  std::uint32_t fifth = 0;
  for (unsigned i = 0; i < 32; ++i) fifth |= (codes[i] >> 4U) << i;
  if (five) append(packed.bytes, fifth);
  for (unsigned i = 0; i < 16; ++i) {
    append(packed.bytes, static_cast<std::uint8_t>((codes[i] & 15U) | ((codes[i + 16] & 15U) << 4U)));
  }
  for (unsigned i = 0; i < 32; ++i) {
    const float code = static_cast<float>(codes[i]);
    packed.expected.push_back(has_minimum ? d * code + minimum : d * (code - (five ? 16.0F : 8.0F)));
  }
  return packed;
}

struct KScales {
  std::array<unsigned, 8> scale, minimum;
};

/// set of quantize_row_q4_K_ref
std::array<std::uint8_t, 12> pack_k_scales(const KScales& in) {
  std::array<std::uint8_t, 12> out{};
  for (unsigned j = 0; j < 8; ++j) {
    const unsigned ls = in.scale[j], lm = in.minimum[j];
    if (j < 4) {
      out[j] = static_cast<std::uint8_t>(ls);
      out[j + 4] = static_cast<std::uint8_t>(lm);
    } else {
      out[j + 4] = static_cast<std::uint8_t>((ls & 15U) | ((lm & 15U) << 4U));
      out[j - 4] = static_cast<std::uint8_t>(out[j - 4] | ((ls >> 4U) << 6U));
      out[j] = static_cast<std::uint8_t>(out[j] | ((lm >> 4U) << 6U));
    }
  }
  return out;
}

Packed pack_k(bool five, float d, float d_min, const KScales& scales, const Codes& codes) {
  Packed packed;
  append_half(packed.bytes, d);
  append_half(packed.bytes, d_min);
  for (const std::uint8_t byte : pack_k_scales(scales)) append(packed.bytes, byte);
  std::array<std::uint8_t, 32> high{};
  std::string low;
  for (unsigned n = 0; n < 256; n += 64) {
    for (unsigned j = 0; j < 32; ++j) {
      const unsigned first = codes[n + j], second = codes[n + j + 32];
      if (first > 15) high[j] = static_cast<std::uint8_t>(high[j] | (1U << (2 * (n / 64))));
      if (second > 15) high[j] = static_cast<std::uint8_t>(high[j] | (2U << (2 * (n / 64))));
      append(low, static_cast<std::uint8_t>((first & 15U) | ((second & 15U) << 4U)));
    }
  }
  if (five) packed.bytes.append(reinterpret_cast<const char*>(high.data()), high.size());
  packed.bytes += low;
  for (unsigned i = 0; i < 256; ++i) {
    const unsigned group = i / 32;
    packed.expected.push_back(d * static_cast<float>(scales.scale[group]) * static_cast<float>(codes[i]) -
                              d_min * static_cast<float>(scales.minimum[group]));
  }
  return packed;
}

Packed pack_q6_k(float d, const std::array<int, 16>& scales, const Codes& codes) {
  Packed packed;
  std::string high;
  for (unsigned j = 0; j < 256; j += 128) {
    std::array<std::uint8_t, 64> low{};
    for (unsigned l = 0; l < 32; ++l) {
      const unsigned a = codes[j + l], b = codes[j + l + 32], c = codes[j + l + 64], e = codes[j + l + 96];
      low[l] = static_cast<std::uint8_t>((a & 15U) | ((c & 15U) << 4U));
      low[l + 32] = static_cast<std::uint8_t>((b & 15U) | ((e & 15U) << 4U));
      append(high, static_cast<std::uint8_t>((a >> 4U) | ((b >> 4U) << 2U) | ((c >> 4U) << 4U) | ((e >> 4U) << 6U)));
    }
    packed.bytes.append(reinterpret_cast<const char*>(low.data()), low.size());
  }
  packed.bytes += high;
  for (const int scale : scales) append(packed.bytes, static_cast<std::int8_t>(scale));
  append_half(packed.bytes, d);
  for (unsigned i = 0; i < 256; ++i) {
    packed.expected.push_back(d * static_cast<float>(scales[i / 16]) * (static_cast<float>(codes[i]) - 32.0F));
  }
  return packed;
}

GgufTensor tensor_of(std::uint32_t type, std::string_view name, std::int64_t elements, const std::string& bytes,
                     std::int64_t rows) {
  GgufTensor tensor;
  tensor.type = {type, name, elements, static_cast<std::int64_t>(bytes.size()) / rows};
  tensor.shape = {rows, elements};
  tensor.bytes = as_bytes(bytes);
  return tensor;
}

float value_at(const ops::WeightSource& source, std::size_t i) {
  const std::size_t group = i / static_cast<std::size_t>(source.group);
  const int code = source.format == ops::WeightFormat::kInt8 ? static_cast<std::int8_t>(source.codes[i])
                                                             : static_cast<int>(source.codes[i]);
  const float offset = source.offsets.empty() ? 0.0F : source.offsets[group];
  return source.scales[group] * static_cast<float>(code) + offset;
}

/// Two rows of one block each.
void expect_unpacks(std::uint32_t type, ops::WeightFormat format, std::int64_t group, const Packed& first,
                    const Packed& second) {
  const std::string bytes = first.bytes + second.bytes;
  const auto elements = static_cast<std::int64_t>(first.expected.size());
  const GgufTensor tensor = tensor_of(type, "T", elements, bytes, 2);
  const auto source = unpack_gguf_matrix(tensor, nullptr, "x: t");
  ASSERT_TRUE(source.ok()) << source.status().message();
  EXPECT_EQ(source->format, format);
  EXPECT_EQ(source->group, group);
  EXPECT_EQ(source->codes.size(), 2 * first.expected.size());
  EXPECT_EQ(source->scales.size(), 2 * first.expected.size() / static_cast<std::size_t>(group));
  for (std::size_t i = 0; i < first.expected.size(); ++i) {
    ASSERT_EQ(value_at(*source, i), first.expected[i]) << i;
    ASSERT_EQ(value_at(*source, i + first.expected.size()), second.expected[i]) << i;
  }
}

TEST(GgufBlocks, OlderFormatsOf32) {
  const struct {
    std::uint32_t type;
    ops::WeightFormat format;
    unsigned limit;
  } kinds[] = {{ggml::kQ4_0, ops::WeightFormat::kInt4, 16},
               {ggml::kQ4_1, ops::WeightFormat::kInt4, 16},
               {ggml::kQ5_0, ops::WeightFormat::kInt8, 32},
               {ggml::kQ5_1, ops::WeightFormat::kInt8, 32}};
  for (const auto& kind : kinds) {
    SCOPED_TRACE(kind.type);
    expect_unpacks(kind.type, kind.format, 32, pack_32(kind.type, 0.5F, -3.25F, random_codes(1, kind.limit)),
                   pack_32(kind.type, -0.03125F, 0.75F, random_codes(2, kind.limit)));
  }
}

TEST(GgufBlocks, Q8_0) {
  Packed packed;
  append_half(packed.bytes, 0.25F);
  for (int i = 0; i < 32; ++i) {
    const auto code = static_cast<std::int8_t>(8 * i - 128);
    append(packed.bytes, code);
    packed.expected.push_back(0.25F * static_cast<float>(code));
  }
  expect_unpacks(ggml::kQ8_0, ops::WeightFormat::kInt8, 32, packed, packed);
}

constexpr KScales kScales{{63, 1, 17, 32, 48, 15, 16, 62}, {0, 63, 16, 15, 33, 47, 62, 5}};

TEST(GgufBlocks, Q4_K) {
  expect_unpacks(ggml::kQ4_K, ops::WeightFormat::kInt4, 32, pack_k(false, 0.5F, 0.125F, kScales, random_codes(3, 16)),
                 pack_k(false, -2.0F, -0.5F, kScales, random_codes(4, 16)));
}

TEST(GgufBlocks, Q5_K) {
  expect_unpacks(ggml::kQ5_K, ops::WeightFormat::kInt8, 32, pack_k(true, 0.5F, 0.125F, kScales, random_codes(5, 32)),
                 pack_k(true, -2.0F, -0.5F, kScales, random_codes(6, 32)));
}

TEST(GgufBlocks, Q6_K) {
  const std::array<int, 16> scales{-128, 127, 0, 1, -1, 2, 3, 5, 7, -11, 13, 17, 19, 23, -29, 31};
  expect_unpacks(ggml::kQ6_K, ops::WeightFormat::kInt8, 16, pack_q6_k(0.5F, scales, random_codes(7, 64)),
                 pack_q6_k(-0.0625F, scales, random_codes(8, 64)));
}

TEST(GgufBlocks, DenseStaysWhereItIs) {
  const std::string bytes(12, 'x');
  for (const auto& [type, format] :
       {std::pair{ggml::kF32, ops::WeightFormat::kF32}, std::pair{ggml::kF16, ops::WeightFormat::kF16},
        std::pair{ggml::kBF16, ops::WeightFormat::kBF16}}) {
    const auto source = unpack_gguf_matrix(tensor_of(type, "T", 3, bytes, 1), nullptr, "x: t");
    ASSERT_TRUE(source.ok());
    EXPECT_EQ(source->format, format);
    EXPECT_EQ(source->dense, as_bytes(bytes).data());
  }
}

TEST(GgufBlocks, RefusesScalesThatAreNotFinite) {
  const float infinity = std::numeric_limits<float>::infinity();
  const auto status = [](std::uint32_t type, const Packed& packed) {
    const auto elements = static_cast<std::int64_t>(packed.expected.size());
    return unpack_gguf_matrix(tensor_of(type, "T", elements, packed.bytes, 1), nullptr, "x: t").status();
  };
  const Codes codes = random_codes(9, 16);
  EXPECT_EQ(status(ggml::kQ4_0, pack_32(ggml::kQ4_0, infinity, 0, codes)).message(),
            "x: t: holds a scale that is not finite");
  EXPECT_EQ(status(ggml::kQ4_1, pack_32(ggml::kQ4_1, 1, -infinity, codes)).code(), StatusCode::kCorrupt);
  EXPECT_EQ(status(ggml::kQ5_1, pack_32(ggml::kQ5_1, 1, std::nanf(""), codes)).code(), StatusCode::kCorrupt);
  EXPECT_EQ(status(ggml::kQ4_K, pack_k(false, 1, infinity, kScales, codes)).code(), StatusCode::kCorrupt);
  EXPECT_EQ(status(ggml::kQ5_K, pack_k(true, std::nanf(""), 1, kScales, codes)).code(), StatusCode::kCorrupt);
  EXPECT_EQ(status(ggml::kQ6_K, pack_q6_k(infinity, {1}, codes)).code(), StatusCode::kCorrupt);
}

TEST(GgufBlocks, RefusesOtherTypesByName) {
  const std::string bytes(84, 'x');
  const Status status = unpack_gguf_matrix(tensor_of(10, "Q2_K", 256, bytes, 1), nullptr, "x: t").status();
  EXPECT_EQ(status.code(), StatusCode::kUnsupported);
  EXPECT_NE(status.message().find("Q2_K"), std::string::npos);
}

}  // namespace
}  // namespace lanner::model
