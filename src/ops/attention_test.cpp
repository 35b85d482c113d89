// Attention on the device against the reference: around every border of blocks (64) and chunks (256), for every
// grouping of heads, alone and among other sequences.

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ops/cpu/kernels.h"
#include "ops/cpu/prompt.h"
#include "ops/ops_test_support.h"

namespace lanner::ops::testing {
namespace {

constexpr std::int64_t kLayers = 2;
constexpr std::int64_t kLayer = 1;
constexpr std::int32_t kMostCudaDecodingRows = 8;  // of a sequence

struct Shape {
  std::int64_t group = 1;  // query heads of a KV head
  std::int64_t kv_heads = 1;
  std::int64_t head_dim = 16;
  DType dtype = DType::kF32;
  int threads = 1;
  float query_size = 4.0F;
  float soft_cap = 0;
  std::int64_t window = 0;
  std::vector<float> slopes;  // (heads) or empty
  KvCodes codes = KvCodes::kNone;

  std::int64_t heads() const { return group * kv_heads; }
  float scale() const { return 1.0F / std::sqrt(static_cast<float>(head_dim)); }
};

std::int64_t blocks_for(const std::vector<Step::Sequence>& sequences) {
  std::int64_t blocks = 3;  // some that nobody has
  for (const Step::Sequence& s : sequences) blocks += (s.first_position + s.rows + kKvBlockTokens - 1) / kKvBlockTokens;
  return blocks;
}

/// The device's cache with random keys and values for each sequence, and the reference's with what the device kept.
struct Caches {
  TestCache device_cache;
  TestCache reference_cache;

  Caches(const Shape& shape, const Step& step, std::int64_t blocks, Random& random)
      : device_cache({.layers = kLayers,
                      .kv_heads = shape.kv_heads,
                      .head_dim = shape.head_dim,
                      .dtype = shape.dtype,
                      .codes = shape.codes},
                     blocks),
        reference_cache(
            {.layers = kLayers, .kv_heads = shape.kv_heads, .head_dim = shape.head_dim, .dtype = DType::kF32}, blocks) {
    Backend& backend = device(shape.threads);
    for (const SequenceSlice& slice : step.batch().slices) {
      const std::int64_t count = (slice.first_position + slice.rows) * shape.kv_heads * shape.head_dim;
      device_cache.write(backend, kLayer, slice.blocks, random.vector(count), random.vector(count));
    }
    for (std::int64_t block = 0; block < blocks; ++block) {
      for (std::int64_t h = 0; h < shape.kv_heads;
           ++h) {  // the reference's heads are keys, then values: (64, head_dim)
        auto* head = reinterpret_cast<float*>(reference_cache.view().head(block, kLayer, h));
        backend.read_kv(device_cache.view(), block, kLayer, h, head, head + kKvBlockTokens * shape.head_dim);
      }
    }
  }
};

/// What attention rounds queries, keys, softmax weights and values to, beside fp32: two of them meet in each product.
/// On tensor cores CUDA rounds queries and the weights, which are 1 at most or a power of two times that, and in
/// prompts also the numbers that codes stand for. The fast CPU rounds all four of a prompt, to 2^-9 of each.
OperandError error_in_tiles(const SequenceSlice& slice, const Shape& shape, bool fast) {
  if (shape.dtype == DType::kF32) return {};
  if (test_device() == TestDevice::kCuda) {
    const OperandError one = rounding_to(shape.dtype);
    const bool numbers_too = shape.codes != KvCodes::kNone && slice.rows > kMostCudaDecodingRows;
    return numbers_too ? OperandError{.share = 2.01 * one.share, .least = 2 * one.least} : one;
  }
  const bool prompt = fast && slice.rows >= cpu::kLeastPromptRows;
  if (!prompt || cpu::prompt_kernels_for(selected_cpu_isa()) == nullptr) return {};
  return {.share = 0x1p-8, .least = 0x1p-126};
}

/// By what the device's terms of a key, or a value, may be larger than its numbers: of codes it may add code * scale
/// and min apart, |min| is hardly more than the largest number, and code * scale = number - min.
double apart(const float* numbers, const Shape& shape) {
  if (shape.codes == KvCodes::kNone) return 0;
  double largest = 0;
  for (std::int64_t d = 0; d < shape.head_dim; ++d) {
    largest = std::max(largest, static_cast<double>(std::fabs(numbers[d])));
  }
  return 2.02 * largest;
}

/// Of codes the CPU rounds a query to 15 bits of its largest number, and a chunk's softmax weights times the scales of
/// the values to 15 bits of the largest of them.
double half_step(const Shape& shape) {
  return shape.codes == KvCodes::kNone || is_cuda(test_device()) ? 0 : 1.01 / 2 / cpu::kLargestCode;
}

double range_of(const float* numbers, std::int64_t count) {
  const auto [low, high] = std::minmax_element(numbers, numbers + count);
  return static_cast<double>(*high) - static_cast<double>(*low);
}

/// How far one query's outputs may be off. Errors e of the scores change a softmax weight by a share of at most its own
/// e and the weighted mean of all; the exponential is off by 4 roundings and that of its argument, which is below 88;
/// sums run over 256 tokens, then over chunks. All of it is relative to sum(weight * |value|).
std::vector<double> query_bound(const float* q, std::int64_t position, const SequenceSlice& slice, std::int64_t head,
                                const Shape& shape, const KvCacheView& cache, const OperandError& in_tiles) {
  const std::int64_t head_dim = shape.head_dim;
  const std::int64_t first = shape.window == 0 ? 0 : std::max<std::int64_t>(0, position + 1 - shape.window);
  const auto scale = static_cast<double>(shape.scale());
  const auto cap = static_cast<double>(shape.soft_cap);
  std::vector<double> weights;  // of tokens first..position
  std::vector<double> errors;
  double largest_query = 0;
  for (std::int64_t d = 0; d < head_dim; ++d) {
    largest_query = std::max(largest_query, static_cast<double>(std::fabs(q[d])) * scale);
  }
  const auto key_at = [&](std::int64_t t) {
    const std::int32_t block = slice.blocks[static_cast<std::size_t>(t / kKvBlockTokens)];
    const auto* place = reinterpret_cast<const float*>(cache.head(block, kLayer, head / shape.group));
    return place + t % kKvBlockTokens * head_dim;
  };
  for (std::int64_t t = first; t <= position; ++t) {
    double score = 0;
    double terms = 0;
    double sizes = 0;
    const double more = apart(key_at(t), shape);
    for (std::int64_t d = 0; d < head_dim; ++d) {
      const double query = static_cast<double>(q[d]) * scale;
      score += query * static_cast<double>(key_at(t)[d]);
      const double size = static_cast<double>(std::fabs(key_at(t)[d])) + more;
      terms += std::fabs(query) * size;
      sizes += size;
    }
    const double roundings = static_cast<double>(head_dim + (shape.codes == KvCodes::kNone ? 2 : 6));
    double error = roundings * kUnit * terms + in_tiles.of(terms) + half_step(shape) * largest_query * sizes;
    if (cap != 0) {  // tanh is flatter than its argument; it is off by 4 roundings, and there are a few more
      score = cap * std::tanh(score / cap);
      error += 8 * kUnit * std::fabs(score);
    }
    if (!shape.slopes.empty()) {
      const double slope = static_cast<double>(shape.slopes[static_cast<std::size_t>(head)]);
      score += slope * static_cast<double>(t - position);
      error += 2 * kUnit * (std::fabs(score) + slope * static_cast<double>(position - t));
    }
    weights.push_back(score);
    errors.push_back(error);
  }
  const double largest = *std::max_element(weights.begin(), weights.end());
  double sum = 0;
  double mean_error = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    sum += weights[i] = std::exp(weights[i] - largest);
    mean_error += weights[i] * errors[i];
  }
  mean_error /= sum;
  std::vector<double> bound(static_cast<std::size_t>(head_dim));
  for (std::int64_t t = first; t <= position; ++t) {
    const auto index = static_cast<std::size_t>(t - first);
    const double roundings = 256 + 88 + 32 + static_cast<double>(position + 1) / 64;
    const double rounded = weights[index] / sum * (errors[index] + mean_error + roundings * kUnit + 2 * in_tiles.share);
    const double weight = rounded + 2 * in_tiles.least / sum;
    const float* value = key_at(t) + kKvBlockTokens * head_dim;
    const double more = apart(value, shape);
    for (std::int64_t d = 0; d < head_dim; ++d) {
      bound[static_cast<std::size_t>(d)] += weight * (static_cast<double>(std::fabs(value[d])) + more);
    }
  }
  if (half_step(shape) == 0) return bound;
  const auto range_at = [&](std::int64_t t) {
    return weights[static_cast<std::size_t>(t - first)] / sum *
           range_of(key_at(t) + kKvBlockTokens * head_dim, head_dim);
  };
  for (std::int64_t chunk = first; chunk <= position; chunk = (chunk / cpu::kChunkTokens + 1) * cpu::kChunkTokens) {
    const std::int64_t end = std::min(position + 1, (chunk / cpu::kChunkTokens + 1) * cpu::kChunkTokens);
    double most = 0;
    for (std::int64_t t = chunk; t < end; ++t) most = std::max(most, range_at(t));
    for (double& each : bound) each += half_step(shape) * 1.01 * most * static_cast<double>(end - chunk);
  }
  return bound;
}

std::vector<double> step_bound(const std::vector<float>& q, const Step& step, const Shape& shape,
                               const KvCacheView& cache, bool fast) {
  std::vector<double> bound;
  for (const SequenceSlice& slice : step.batch().slices) {
    const OperandError in_tiles = error_in_tiles(slice, shape, fast);
    for (std::int64_t i = 0; i < slice.rows; ++i) {
      for (std::int64_t h = 0; h < shape.heads(); ++h) {
        const float* query = q.data() + ((slice.first_row + i) * shape.heads() + h) * shape.head_dim;
        const std::vector<double> one = query_bound(query, slice.first_position + i, slice, h, shape, cache, in_tiles);
        bound.insert(bound.end(), one.begin(), one.end());
      }
    }
  }
  return bound;
}

void check_attention_against_reference(const Shape& shape, const std::vector<Step::Sequence>& sequences,
                                       Random& random) {
  SCOPED_TRACE(::testing::Message() << shape.kv_heads << " KV heads of " << shape.head_dim << ", " << shape.group
                                    << " queries each, " << dtype_name(shape.dtype) << ", codes of "
                                    << (shape.codes == KvCodes::kNone   ? "0"
                                        : shape.codes == KvCodes::kInt8 ? "8"
                                                                        : "4")
                                    << " bits, " << shape.threads << " threads, " << sequences.size()
                                    << " sequences, the first at " << sequences[0].first_position << " + "
                                    << sequences[0].rows << ", window " << shape.window << ", cap " << shape.soft_cap
                                    << (shape.slopes.empty() ? "" : ", slopes"));
  const std::int64_t blocks = blocks_for(sequences);
  const Step step(sequences, blocks, random);
  const Caches caches(shape, step, blocks, random);
  const std::vector<float> q =
      random.vector(step.batch().rows * shape.heads() * shape.head_dim, -shape.query_size, shape.query_size);
  std::vector<float> expected(q.size());
  std::vector<float> actual(q.size());
  const auto attend = [&](Backend& backend, const TestCache& cache, std::vector<float>& out) {
    const AttentionArgs args{.q = q.data(),
                             .heads = shape.heads(),
                             .layer = kLayer,
                             .scale = shape.scale(),
                             .soft_cap = shape.soft_cap,
                             .window = shape.window,
                             .alibi_slopes = shape.slopes.empty() ? nullptr : uploaded(backend, shape.slopes),
                             .out = out.data()};
    backend.attention(args, step.batch(), cache.view());
  };
  attend(reference(), caches.reference_cache, expected);
  attend(device(shape.threads), caches.device_cache, actual);
  expect_within(actual, expected, step_bound(q, step, shape, caches.reference_cache.view(), false));
  const auto is_prompt = [](const Step::Sequence& sequence) { return sequence.rows >= cpu::kLeastPromptRows; };
  if (is_cuda(test_device()) || std::none_of(sequences.begin(), sequences.end(), is_prompt)) return;
  SCOPED_TRACE("fast");
  attend(fast_cpu(shape.threads), caches.device_cache, actual);
  expect_within(actual, expected, step_bound(q, step, shape, caches.reference_cache.view(), true));
}

constexpr std::int32_t kContexts[] = {1, 15, 16, 17, 63, 64, 65, 255, 256, 257, 511, 513, 1030};
constexpr DType kDTypes[] = {DType::kF32, DType::kF16, DType::kBF16};
constexpr std::int64_t kHeadDims[] = {16, 48, 64, 80, 96, 128, 256};
constexpr std::int64_t kGroups[] = {1, 3, 4, 9};

/// The next of all combinations of head size, grouping and threads, in turn.
Shape shape_in_turn(std::size_t turn, DType dtype) {
  return {.group = kGroups[(turn + turn / 7) % 4],
          .kv_heads = 1 + static_cast<std::int64_t>(turn / 3 % 2),
          .head_dim = kHeadDims[turn % 7],
          .dtype = dtype,
          .threads = 1 + static_cast<int>(turn / 2 % kMaxThreads)};
}

TEST(Attention, OfOneDecodingSequenceIsNearTheReferenceAtEveryBorder) {
  Random random(40);
  std::size_t turn = 0;
  for (const std::int32_t context : kContexts) {
    for (const DType dtype : kDTypes) {
      check_attention_against_reference(shape_in_turn(turn++, dtype), {{context - 1, 1}}, random);
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(Attention, OfAPromptChunkIsNearTheReferenceAtEveryBorder) {
  Random random(41);
  std::size_t turn = 0;
  for (const std::int32_t context : kContexts) {
    for (const std::int32_t rows : {2, 8, 33}) {
      const std::int32_t taken = std::min(rows, context);
      check_attention_against_reference(shape_in_turn(turn, kDTypes[turn % 3]), {{context - taken, taken}}, random);
      if (::testing::Test::HasFatalFailure()) return;
      ++turn;
    }
  }
}

TEST(Attention, OfManySequencesAtOnceIsNearTheReference) {
  Random random(42);
  const std::vector<std::vector<Step::Sequence>> steps = {
      {{0, 1}, {14, 1}, {15, 1}, {16, 1}, {62, 1}, {63, 1}, {64, 1}, {254, 1}, {255, 1}, {256, 1}, {510, 1}, {512, 1}},
      {{300, 1}, {0, 17}, {513, 1}, {60, 8}},
      {{0, 33}, {0, 5}},
      {{1029, 1}, {2, 1}},
      {{250, 9}, {500, 20}, {3, 1}, {255, 2}},
  };
  std::size_t turn = 0;
  for (const std::vector<Step::Sequence>& sequences : steps) {
    for (const DType dtype : kDTypes) {
      for (int i = 0; i < 2; ++i) {
        check_attention_against_reference(shape_in_turn(turn++, dtype), sequences, random);
        if (::testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

class AttentionOfLongAndShort : public ::testing::TestWithParam<std::tuple<std::int64_t, std::int64_t, std::int64_t>> {
};
INSTANTIATE_TEST_SUITE_P(GroupsKvHeadsWindows, AttentionOfLongAndShort,
                         ::testing::Combine(::testing::Values(1, 2, 4), ::testing::Values(2, 4),
                                            ::testing::Values(0, 300, 950)));

TEST_P(AttentionOfLongAndShort, FewAmongManyAreNearTheReference) {
  Random random(48);
  const auto [group, kv_heads, window] = GetParam();
  std::vector<Step::Sequence> sequences = {{1050, 1}};
  for (std::int32_t i = 0; i < 80; ++i) sequences.push_back({i % 50, 1});
  sequences.insert(sequences.end(), {{700, 2}, {1000, 1}, {900, 1}});
  for (const KvCodes codes : {KvCodes::kNone, KvCodes::kInt8, KvCodes::kInt4}) {
    Shape shape{.group = group,
                .kv_heads = kv_heads,
                .head_dim = group == 1 ? 64 : 128,
                .dtype = kv_heads == 2 ? DType::kF16 : DType::kBF16,
                .threads = 2};
    shape.window = window;
    shape.codes = codes;
    check_attention_against_reference(shape, sequences, random);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

TEST(Attention, EveryGroupingOfHeadsWithEveryHeadSize) {
  Random random(43);
  std::size_t turn = 0;
  for (const std::int64_t group : kGroups) {
    for (const std::int64_t head_dim : kHeadDims) {
      const Shape shape{.group = group,
                        .kv_heads = 2,
                        .head_dim = head_dim,
                        .dtype = kDTypes[turn % 3],
                        .threads = 1 + static_cast<int>(turn % kMaxThreads)};
      check_attention_against_reference(shape, {{70, 1}, {11, 6}, {40, 90}}, random);
      if (::testing::Test::HasFatalFailure()) return;
      ++turn;
    }
  }
}

TEST(Attention, OfMoreQueryHeadsThanATaskTakes) {
  Random random(44);
  for (const std::int64_t group : {47, 49, 100}) {
    check_attention_against_reference({.group = group, .head_dim = 16, .dtype = DType::kF16, .threads = 3},
                                      {{300, 1}, {5, 3}}, random);
  }
}

TEST(Attention, SharpScoresNeitherOverflowNorLoseTheOthers) {
  Random random(45);
  for (const float size : {0.0F, 60.0F, 1000.0F}) {  // from the plain mean to one token that takes all
    SCOPED_TRACE(size);
    const Shape shape{.group = 3, .head_dim = 48, .dtype = DType::kF32, .threads = 2, .query_size = size};
    check_attention_against_reference(shape, {{600, 1}, {250, 10}}, random);
  }
}

// More rows than the largest task of a prompt has, cut where its context's chunks begin and elsewhere.
TEST(Attention, OfALongPromptIsNearTheReference) {
  Random random(58);
  std::size_t turn = 0;
  for (const std::int32_t first : {0, 100, 256}) {
    for (const DType dtype : {DType::kF16, DType::kBF16}) {
      Shape shape = shape_in_turn(turn++, dtype);
      shape.window = turn % 3 == 0 ? 200 : 0;
      check_attention_against_reference(shape, {{first, 430}, {0, 21}}, random);
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

// --- windows, caps, slopes -------------------------------------------------------------------------------------

/// The slopes of the paper for a power of two of heads, and something like them for others.
std::vector<float> slopes_for(std::int64_t heads) {
  std::vector<float> slopes;
  for (std::int64_t h = 0; h < heads; ++h) {
    slopes.push_back(std::exp2(-8.0F * static_cast<float>(h + 1) / static_cast<float>(heads)));
  }
  return slopes;
}

TEST(Attention, WithAWindowIsNearTheReferenceAtEveryBorder) {
  Random random(46);
  std::size_t turn = 0;
  for (const std::int32_t first_key : {1, 63, 64, 65, 191, 192, 255, 256, 257, 319, 511, 512, 513, 600}) {
    for (const std::int32_t rows : {1, 8, 33}) {  // the last row's window begins at first_key, the others' before it
      Shape shape = shape_in_turn(turn, kDTypes[turn % 3]);
      shape.window = 601 - first_key;
      check_attention_against_reference(shape, {{601 - rows, rows}}, random);
      if (::testing::Test::HasFatalFailure()) return;
      ++turn;
    }
  }
}

TEST(Attention, WithAnyWindowOfManySequencesIsNearTheReference) {
  Random random(47);
  const std::vector<std::vector<Step::Sequence>> steps = {
      {{600, 1}}, {{1029, 1}, {2, 1}}, {{0, 90}}, {{250, 20}, {490, 33}, {3, 1}, {767, 1}}};
  std::size_t turn = 0;
  for (const std::int64_t window : {1, 2, 17, 63, 64, 65, 255, 256, 257, 300, 1 << 30}) {
    for (const std::vector<Step::Sequence>& sequences : steps) {
      Shape shape = shape_in_turn(turn, kDTypes[turn % 3]);
      shape.window = window;
      check_attention_against_reference(shape, sequences, random);
      if (::testing::Test::HasFatalFailure()) return;
      ++turn;
    }
  }
}

TEST(Attention, WithASoftCapIsNearTheReference) {
  Random random(48);
  std::size_t turn = 0;
  for (const float cap : {0.5F, 5.0F, 50.0F}) {
    for (const float query_size : {0.001F, 4.0F, 100.0F}) {
      Shape shape = shape_in_turn(turn, kDTypes[turn % 3]);
      shape.soft_cap = cap;
      shape.query_size = query_size;
      check_attention_against_reference(shape, {{300, 1}, {250, 10}}, random);
      if (::testing::Test::HasFatalFailure()) return;
      ++turn;
    }
  }
}

TEST(Attention, WithSlopesIsNearTheReference) {
  Random random(49);
  for (std::size_t turn = 0; turn < 12; ++turn) {
    Shape shape = shape_in_turn(turn, kDTypes[turn % 3]);
    shape.slopes = slopes_for(shape.heads());
    check_attention_against_reference(shape, {{1029, 1}, {250, 10}, {0, 1}}, random);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

TEST(Attention, WithAllOfThemTogetherIsNearTheReference) {
  Random random(56);
  for (std::size_t turn = 0; turn < 24; ++turn) {
    Shape shape = shape_in_turn(turn, kDTypes[turn % 3]);
    shape.window = 1 + random.below(400);
    shape.soft_cap = 2.0F;
    shape.slopes = slopes_for(shape.heads());
    const auto position = static_cast<std::int32_t>(random.below(700));
    check_attention_against_reference(
        shape, {{position, 1}, {position / 2, 1 + static_cast<std::int32_t>(random.below(60))}, {0, 3}}, random);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

// --- keys and values in codes -----------------------------------------------------------------------------------

constexpr KvCodes kCodes[] = {KvCodes::kInt8, KvCodes::kInt4};

TEST(AttentionOfCodes, IsNearTheReferenceAtEveryBorder) {
  Random random(70);
  std::size_t turn = 0;
  for (const KvCodes codes : kCodes) {
    for (const std::int32_t context : kContexts) {
      for (const std::int32_t rows : {1, 2, 8, 33}) {
        const std::int32_t taken = std::min(rows, context);
        Shape shape = shape_in_turn(turn, kDTypes[turn % 3]);
        shape.codes = codes;
        check_attention_against_reference(shape, {{context - taken, taken}}, random);
        if (::testing::Test::HasFatalFailure()) return;
        ++turn;
      }
    }
  }
}

TEST(AttentionOfCodes, WithEveryHeadSizeAndGroupingIsNearTheReference) {
  Random random(71);
  std::size_t turn = 0;
  for (const KvCodes codes : kCodes) {
    for (const std::int64_t group : kGroups) {
      for (const std::int64_t head_dim : {16, 32, 48, 64, 80, 96, 112, 128, 256}) {
        Shape shape{.group = group,
                    .kv_heads = 1 + static_cast<std::int64_t>(turn % 2),
                    .head_dim = head_dim,
                    .dtype = kDTypes[turn % 3],
                    .threads = 1 + static_cast<int>(turn % kMaxThreads)};
        shape.codes = codes;
        check_attention_against_reference(shape, {{70, 1}, {11, 6}, {40, 90}}, random);
        if (::testing::Test::HasFatalFailure()) return;
        ++turn;
      }
    }
  }
}

// Tiles of several prompts, whole and cut, behind prefixes that are in the cache, among rows that decode.
TEST(AttentionOfCodes, OfPromptsBehindPrefixesIsNearTheReference) {
  Random random(76);
  const std::vector<Step::Sequence> sequences = {{130, 70}, {5, 1}, {0, 65}, {200, 3}, {63, 66}, {310, 9}};
  std::size_t turn = 0;
  for (const KvCodes codes : kCodes) {
    for (const DType dtype : {DType::kF16, DType::kBF16}) {
      for (const std::int64_t head_dim : {64, 80, 96, 128}) {
        Shape shape{.group = 1 + static_cast<std::int64_t>((turn + turn / 4) % 3),
                    .kv_heads = 2,
                    .head_dim = head_dim,
                    .dtype = dtype,
                    .threads = 1 + static_cast<int>(turn % kMaxThreads)};
        shape.codes = codes;
        if (turn % 3 == 1) shape.window = 100;  // the first blocks of the last slice are not seen any more
        if (turn % 4 == 2) shape.soft_cap = 2.0F;
        if (turn % 5 == 3) shape.slopes = slopes_for(shape.heads());
        check_attention_against_reference(shape, sequences, random);
        if (::testing::Test::HasFatalFailure()) return;
        ++turn;
      }
    }
  }
}

// As many prompts as CUDA's scratch has room for in 16 bits, and more.
TEST(AttentionOfCodes, OfPromptsOnBothSidesOfTheScratchIsNearTheReference) {
  Random random(77);
  constexpr std::int64_t kScratchBytes = kScratchRows * 2 * kScratchCols * 4;
  constexpr std::int32_t kContext = 1090;
  std::size_t turn = 0;
  for (const KvCodes codes : kCodes) {
    Shape shape{.group = 1, .kv_heads = 2, .head_dim = 128, .dtype = kDTypes[1 + turn % 2], .threads = kMaxThreads};
    shape.codes = codes;
    const std::int64_t block_bytes = shape.kv_heads * 2 * kKvBlockTokens * shape.head_dim * 2;
    const std::int64_t fitting = kScratchBytes / ((kContext + kKvBlockTokens - 1) / kKvBlockTokens * block_bytes);
    for (const std::int64_t count : {fitting, fitting + 1}) {
      const std::vector<Step::Sequence> sequences(static_cast<std::size_t>(count), {kContext - 10, 10});
      check_attention_against_reference(shape, sequences, random);
      if (::testing::Test::HasFatalFailure()) return;
    }
    ++turn;
  }
}

TEST(AttentionOfCodes, OfAnyStepIsNearTheReference) {
  Random random(72);
  for (std::size_t turn = 0; turn < 60; ++turn) {
    Shape shape = shape_in_turn(turn, kDTypes[turn % 3]);
    shape.codes = kCodes[turn / 3 % 2];
    if (turn % 2 == 0) shape.window = 1 + random.below(400);
    if (turn % 5 == 0) shape.soft_cap = 2.0F;
    if (turn % 7 == 0) shape.slopes = slopes_for(shape.heads());
    std::vector<Step::Sequence> sequences;
    for (std::int64_t i = 0; i <= random.below(4); ++i) {
      const auto rows = random.below(3) == 0 ? 1 + random.below(80) : 1;
      sequences.push_back({static_cast<std::int32_t>(random.below(700)), static_cast<std::int32_t>(rows)});
    }
    check_attention_against_reference(shape, sequences, random);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace lanner::ops::testing
