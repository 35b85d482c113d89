// Keys and values in codes of 8 and 4 bits: what a token's numbers become, by hand, by the formula, and on the device
// as in the reference. Attention over them is in attention_test.cpp.

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/float16.h"
#include "ops/ops_test_support.h"

namespace lanner::ops::testing {
namespace {

KvLayout layout_of(KvCodes codes, std::int64_t head_dim, std::int64_t kv_heads = 1) {
  return {.layers = 1, .kv_heads = kv_heads, .head_dim = head_dim, .dtype = DType::kF16, .codes = codes};
}

float levels_of(KvCodes codes) { return codes == KvCodes::kInt8 ? 255.0F : 15.0F; }

/// What the cache gives back of keys and values, (tokens, kv_heads, head_dim) each, of one sequence from position 0 on.
struct Read {
  std::vector<float> keys;
  std::vector<float> values;
};
Read through_cache(Backend& backend, const KvLayout& layout, const std::vector<float>& keys,
                   const std::vector<float>& values) {
  const auto width = static_cast<std::size_t>(layout.kv_heads * layout.head_dim);
  const std::size_t tokens = keys.size() / width;
  const std::size_t blocks = (tokens + 63) / 64;
  std::vector<std::int32_t> own(blocks);
  std::iota(own.rbegin(), own.rend(), 0);  // the last block first
  TestCache cache(layout, static_cast<std::int64_t>(blocks));
  cache.write(backend, 0, own, keys, values);
  Read read{.keys = std::vector<float>(keys.size()), .values = std::vector<float>(keys.size())};
  const auto head_dim = static_cast<std::size_t>(layout.head_dim);
  std::vector<float> block_keys(64 * head_dim);
  std::vector<float> block_values(64 * head_dim);
  for (std::size_t block = 0; block < blocks; ++block) {
    for (std::int64_t h = 0; h < layout.kv_heads; ++h) {
      backend.read_kv(cache.view(), own[block], 0, h, block_keys.data(), block_values.data());
      for (std::size_t t = block * 64; t < std::min(tokens, block * 64 + 64); ++t) {
        const std::size_t to = t * width + static_cast<std::size_t>(h) * head_dim;
        std::copy_n(block_keys.data() + t % 64 * head_dim, head_dim, read.keys.data() + to);
        std::copy_n(block_values.data() + t % 64 * head_dim, head_dim, read.values.data() + to);
      }
    }
  }
  return read;
}

TEST(KvLayout, OfCodesHasTheBytesOfTheFormat) {
  // InternLM2-1.8B: 24 layers, 8 KV heads of 128.
  const auto bytes_per_token = [](KvCodes codes) {
    const KvLayout layout{.layers = 24, .kv_heads = 8, .head_dim = 128, .dtype = DType::kF16, .codes = codes};
    return layout.block_bytes() / kKvBlockTokens;
  };
  EXPECT_EQ(bytes_per_token(KvCodes::kNone), 98304);
  EXPECT_EQ(bytes_per_token(KvCodes::kInt8), 50688);
  EXPECT_EQ(bytes_per_token(KvCodes::kInt4), 26112);
}

TEST(KvCodes, CountStepsFromTheSmallestNumber) {
  // 16 numbers of which the steps are powers of two: each code stands for its number exactly, or for the nearest.
  std::vector<float> numbers(16);
  for (std::size_t i = 0; i < 16; ++i) numbers[(i * 5) % 16] = -1.0F + 0.25F * static_cast<float>(i);
  std::vector<float> values = numbers;
  for (float& value : values) value = 8.0F * value - 100.0F;
  for (Backend* backend : {&device(1), &reference()}) {
    const Read int4 = through_cache(*backend, layout_of(KvCodes::kInt4, 16), numbers, values);
    expect_same_bits(int4.keys, numbers);
    expect_same_bits(int4.values, values);
  }
  // (x - min) / scale halfway between two steps goes to the even one: scale 1, min 0.
  std::vector<float> halves(16);
  for (std::size_t i = 0; i < 16; ++i) halves[i] = static_cast<float>(i) < 15 ? static_cast<float>(i) + 0.5F : 15.0F;
  halves[0] = 0.0F;
  const std::vector<float> rounded = {0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10, 12, 12, 14, 14, 15};
  expect_same_bits(through_cache(device(1), layout_of(KvCodes::kInt4, 16), halves, halves).values, rounded);
  expect_same_bits(through_cache(device(1), layout_of(KvCodes::kInt4, 16), halves, halves).keys, rounded);
}

TEST(KvCodes, OfEqualNumbersAreThatNumber) {
  for (const KvCodes codes : {KvCodes::kInt8, KvCodes::kInt4}) {
    for (const float number : {0.0F, 0.5F, -3.0F, 0x1p-24F}) {
      const std::vector<float> equal(48, number);
      const Read read = through_cache(device(1), layout_of(codes, 48), equal, equal);
      for (const float value : read.keys) EXPECT_EQ(value, number);
      for (const float value : read.values) EXPECT_EQ(value, number);
    }
  }
}

/// Numbers of sizes from 1e-9 to 1e3 a token, some of them far from zero, some tokens with one that sticks out.
std::vector<float> tokens_of_many_sizes(std::int64_t tokens, const KvLayout& layout, Random& random) {
  std::vector<float> numbers;
  for (std::int64_t i = 0; i < tokens * layout.kv_heads; ++i) {
    const float size = std::pow(10.0F, random.uniform(-9.0F, 3.0F));
    const float offset = i % 3 == 0 ? random.uniform(-5.0F, 5.0F) * size : 0.0F;
    std::vector<float> head = random.vector(layout.head_dim, offset - size, offset + size);
    if (i % 4 == 0) head[static_cast<std::size_t>(random.below(layout.head_dim))] *= 3.0F;
    numbers.insert(numbers.end(), head.begin(), head.end());
  }
  return numbers;
}

/// Each number is at most half a step away, and what rounding scale and min to fp16 takes: half a unit of fp16's last
/// place of each, and of the scale that for as many steps as there are.
void expect_near(std::span<const float> read, std::span<const float> written, const KvLayout& layout) {
  const auto head_dim = static_cast<std::size_t>(layout.head_dim);
  for (std::size_t first = 0; first < written.size(); first += head_dim) {
    const auto [low, high] = std::ranges::minmax(written.subspan(first, head_dim));
    const double range = static_cast<double>(high) - static_cast<double>(low);
    const double step = range / static_cast<double>(levels_of(layout.codes));
    const double scale_off = step * 0x1p-11 + 0x1p-25;
    const double min_off = std::fabs(static_cast<double>(low)) * 0x1p-11 + 0x1p-25;
    const double bound = step / 2 + static_cast<double>(levels_of(layout.codes)) * scale_off + min_off;
    for (std::size_t i = first; i < first + head_dim; ++i) {
      ASSERT_NEAR(static_cast<double>(read[i]), static_cast<double>(written[i]), 1.00001 * bound)
          << "number " << i << " of a head between " << low << " and " << high;
    }
  }
}

TEST(KvCodes, AreWithinHalfAStepAndThoseOfTheReference) {
  Random random(73);
  std::size_t turn = 0;
  for (const KvCodes codes : {KvCodes::kInt8, KvCodes::kInt4}) {
    for (const std::int64_t head_dim : {16, 32, 48, 64, 80, 96, 112, 128, 256}) {
      const KvLayout layout = layout_of(codes, head_dim, 1 + static_cast<std::int64_t>(turn % 3));
      SCOPED_TRACE(::testing::Message() << levels_of(codes) << " levels, heads of " << head_dim);
      const std::int64_t tokens = turn % 2 == 0 ? 70 : 129;
      const std::vector<float> keys = tokens_of_many_sizes(tokens, layout, random);
      const std::vector<float> values = tokens_of_many_sizes(tokens, layout, random);
      const Read read = through_cache(device(1 + static_cast<int>(turn % kMaxThreads)), layout, keys, values);
      const Read expected = through_cache(reference(), layout, keys, values);
      expect_near(read.keys, keys, layout);
      expect_near(read.values, values, layout);
      if (::testing::Test::HasFatalFailure()) return;
      expect_same_bits(read.keys, expected.keys);
      expect_same_bits(read.values, expected.values);
      ++turn;
    }
  }
}

/// Keys and values, (rows, kv_heads, head_dim) each, that norm_qkv writes of `rows` tokens from position 60 on, through
/// a norm of the keys, if it is asked for, and a rotation.
Read written_by_norm_qkv(const KvLayout& layout, bool normed, std::int64_t rotary_dim, std::int32_t rows,
                         std::uint32_t seed) {
  Random random(seed);
  Backend& backend = device(1);
  const std::int64_t width = layout.kv_heads * layout.head_dim;
  const HostLinear host =
      random_linear({.format = WeightFormat::kF32}, {.rows = {width, width, width}, .cols = 32}, random);
  const std::vector<float> x = random.vector(rows * 32);
  const std::vector<float> angles = random.vector(rows * std::max<std::int64_t>(rotary_dim, 1));
  const HostNorm k_norm = normed ? random_norm(NormKind::kRms, false, layout.head_dim, random) : HostNorm{};
  constexpr std::int64_t kBlocks = 3;
  const Step step({{60, rows}}, kBlocks, random);
  const TestCache cache(layout, kBlocks);
  const Linear linear = host.on(backend);
  std::vector<float> q(static_cast<std::size_t>(rows * width));
  backend.norm_qkv({.x = x.data(),
                    .linear = &linear,
                    .rope_angles = angles.data(),
                    .rotary_dim = rotary_dim,
                    .heads = layout.kv_heads,
                    .k_norm = k_norm.on(backend),
                    .q = q.data()},
                   step.batch(), cache.view());
  Read read;
  std::vector<float> keys(static_cast<std::size_t>(64 * layout.head_dim));
  std::vector<float> values(keys.size());
  for (std::int64_t token = 60; token < 60 + rows; ++token) {
    const std::int32_t block = step.batch().slices[0].blocks[static_cast<std::size_t>(token / 64)];
    for (std::int64_t h = 0; h < layout.kv_heads; ++h) {
      backend.read_kv(cache.view(), block, 0, h, keys.data(), values.data());
      const auto first = static_cast<std::ptrdiff_t>(token % 64 * layout.head_dim);
      read.keys.insert(read.keys.end(), keys.begin() + first, keys.begin() + first + layout.head_dim);
      read.values.insert(read.values.end(), values.begin() + first, values.begin() + first + layout.head_dim);
    }
  }
  return read;
}

class KvCodesOfTurnedKeys : public ::testing::TestWithParam<std::tuple<KvCodes, bool>> {};
INSTANTIATE_TEST_SUITE_P(CodesNorms, KvCodesOfTurnedKeys,
                         ::testing::Combine(::testing::Values(KvCodes::kInt8, KvCodes::kInt4), ::testing::Bool()));

TEST_P(KvCodesOfTurnedKeys, AreNearThem) {
  const auto [codes, normed] = GetParam();
  std::uint32_t seed = 75;
  for (const std::int64_t head_dim : {48, 64, 128, 256}) {
    for (const std::int64_t rotary_dim : {std::int64_t{0}, head_dim / 2, head_dim}) {
      for (const std::int32_t rows : {1, 3, 20, 70}) {
        SCOPED_TRACE(::testing::Message() << levels_of(codes) << " levels, heads of " << head_dim << ", " << rotary_dim
                                          << " turned, " << rows << (normed ? " rows, normed" : " rows"));
        const KvLayout layout = layout_of(codes, head_dim, 2);
        KvLayout numbers = layout;
        numbers.codes = KvCodes::kNone;
        numbers.dtype = DType::kF32;
        const Read written = written_by_norm_qkv(numbers, normed, rotary_dim, rows, ++seed);
        const Read read = written_by_norm_qkv(layout, normed, rotary_dim, rows, seed);
        expect_near(read.keys, written.keys, layout);
        expect_near(read.values, written.values, layout);
        if (::testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

/// Keys of which one number is none, and values that all are, of one token of a head.
void expect_no_numbers(KvCodes codes, std::size_t head_dim, float poison) {
  Random random(74);
  const auto size = static_cast<std::int64_t>(head_dim);
  const KvLayout layout = layout_of(codes, size);
  const std::vector<float> healthy = random.vector(size);
  std::vector<float> sick = random.vector(size);
  sick[20] = poison;
  for (Backend* backend : {&device(1), &reference()}) {
    const TestCache cache(layout, 1);
    // Written as they are: a product would spread what is no number over the row.
    std::vector<float> keys(64 * head_dim);
    std::vector<float> values(64 * head_dim);
    HostLinear host;
    std::vector<float> column = random.vector(size);
    host.weights = {dense_weight(column.data(), size, 1), dense_weight(sick.data(), size, 1),
                    dense_weight(healthy.data(), size, 1)};
    const std::vector<float> x = {1.0F};
    const Step step({{5, 1}}, 1, random);
    const Linear linear = host.on(*backend);
    std::vector<float> q(head_dim);
    backend->norm_qkv({.x = x.data(), .linear = &linear, .heads = 1, .q = q.data()}, step.batch(), cache.view());
    backend->read_kv(cache.view(), 0, 0, 0, keys.data(), values.data());
    for (std::size_t d = 0; d < head_dim; ++d) {
      EXPECT_FALSE(std::isfinite(keys[5 * head_dim + d]));
      EXPECT_TRUE(std::isfinite(values[5 * head_dim + d]));
    }
  }
}

TEST(KvCodes, OfWhatIsNoNumberAreNone) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const KvCodes codes : {KvCodes::kInt8, KvCodes::kInt4}) {
    for (const std::size_t head_dim : {48, 64, 128}) {
      for (const float poison : {std::numeric_limits<float>::quiet_NaN(), kInfinity, -kInfinity}) {
        expect_no_numbers(codes, head_dim, poison);
      }
    }
  }
}

}  // namespace
}  // namespace lanner::ops::testing
