// norm_qkv on the device against the reference: queries, and what read_kv finds in the cache afterwards.

#include <algorithm>
#include <cmath>

#include "core/float16.h"
#include "ops/ops_test_support.h"

namespace lanner::ops::testing {
namespace {

struct Shape {
  std::int64_t heads = 1;
  std::int64_t kv_heads = 1;
  std::int64_t head_dim = 16;
  std::int64_t rotary_dim = 16;
  DType dtype = DType::kF32;
  int threads = 1;
  HostNorm q_norm, k_norm;
};

constexpr std::int64_t kLayers = 2;
constexpr std::int64_t kLayer = 1;
constexpr std::int64_t kBlocks = 12;

/// Everything that one norm_qkv leaves behind, as fp32.
struct Outcome {
  std::vector<float> q;       // (rows, heads, head_dim)
  std::vector<float> keys;    // (blocks, layers, kv_heads, 64, head_dim)
  std::vector<float> values;  // the same
};

Outcome run(Backend& backend, const Linear& linear, const std::vector<float>& x, const std::vector<float>& angles,
            const Step& step, const Shape& shape) {
  const TestCache cache(
      {.layers = kLayers, .kv_heads = shape.kv_heads, .head_dim = shape.head_dim, .dtype = shape.dtype}, kBlocks);
  Outcome outcome;
  outcome.q.resize(static_cast<std::size_t>(step.batch().rows * shape.heads * shape.head_dim));
  backend.norm_qkv({.x = x.data(),
                    .linear = &linear,
                    .rope_angles = angles.data(),
                    .rotary_dim = shape.rotary_dim,
                    .heads = shape.heads,
                    .layer = kLayer,
                    .q_norm = shape.q_norm.on(backend),
                    .k_norm = shape.k_norm.on(backend),
                    .q = outcome.q.data()},
                   step.batch(), cache.view());
  const auto head = static_cast<std::size_t>(kKvBlockTokens * shape.head_dim);
  outcome.keys.resize(static_cast<std::size_t>(kBlocks * kLayers * shape.kv_heads) * head);
  outcome.values.resize(outcome.keys.size());
  std::size_t place = 0;
  for (std::int64_t block = 0; block < kBlocks; ++block) {
    for (std::int64_t layer = 0; layer < kLayers; ++layer) {
      for (std::int64_t h = 0; h < shape.kv_heads; ++h, place += head) {
        backend.read_kv(cache.view(), block, layer, h, outcome.keys.data() + place, outcome.values.data() + place);
      }
    }
  }
  return outcome;
}

/// Takes the heads of q and k, in `products` (rows, width), through their norms; `bound` follows.
void take_heads_through_norms(std::vector<float>& products, std::vector<double>& bound, const Shape& shape,
                              std::int64_t rows) {
  const std::int64_t width = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
  const auto head_dim = static_cast<std::size_t>(shape.head_dim);
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t h = 0; h < shape.heads + shape.kv_heads; ++h) {
      const auto first = static_cast<std::size_t>(row * width + h * shape.head_dim);
      take_through_norm(h < shape.heads ? shape.q_norm : shape.k_norm, std::span(products).subspan(first, head_dim),
                        std::span(bound).subspan(first, head_dim));
    }
  }
}

/// Turning a pair mixes the errors of its two: |cos| + |sin| <= sqrt(2). `products` (rows, width) are before the turn.
std::vector<double> rotated_bound(const std::vector<float>& products, const std::vector<double>& bound,
                                  const Shape& shape, std::int64_t rows) {
  const std::int64_t width = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
  const std::int64_t half = shape.rotary_dim / 2;
  std::vector<double> result = bound;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t h = 0; h < shape.heads + shape.kv_heads; ++h) {
      for (std::int64_t i = 0; i < half; ++i) {
        const auto a = static_cast<std::size_t>(row * width + h * shape.head_dim + i);
        const std::size_t b = a + static_cast<std::size_t>(half);
        const double size = std::fabs(static_cast<double>(products[a])) + std::fabs(static_cast<double>(products[b]));
        result[a] = result[b] = bound[a] + bound[b] + 4 * kUnit * size;
      }
    }
  }
  return result;
}

float through(DType dtype, double value) {
  const auto single = static_cast<float>(value);
  if (dtype == DType::kF16) return to_float(to_half(single));
  if (dtype == DType::kBF16) return to_float(to_bfloat16(single));
  return single;
}

/// Rounding is monotonic, so a stored value lies between the roundings of the ends of where it may have been before.
void expect_stored(float actual, float exact, double bound, DType dtype) {
  const double middle = static_cast<double>(exact);
  ASSERT_GE(actual, through(dtype, middle - bound)) << "the reference has " << exact;
  ASSERT_LE(actual, through(dtype, middle + bound)) << "the reference has " << exact;
}

/// Holds the device's cache against the reference's of unrounded fp32; what was not written is NaN in both.
void expect_caches_agree(const Outcome& actual, const Outcome& exact, const std::vector<double>& bound,
                         const Step& step, const Shape& shape) {
  const std::int64_t width = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
  std::vector<bool> written(exact.keys.size());
  for (const SequenceSlice& slice : step.batch().slices) {
    for (std::int64_t i = 0; i < slice.rows; ++i) {
      const std::int64_t position = slice.first_position + i;
      const std::int64_t block = slice.blocks[static_cast<std::size_t>(position / kKvBlockTokens)];
      for (std::int64_t h = 0; h < shape.kv_heads; ++h) {
        const std::int64_t head = (block * kLayers + kLayer) * shape.kv_heads + h;
        for (std::int64_t d = 0; d < shape.head_dim; ++d) {
          const auto at =
              static_cast<std::size_t>((head * kKvBlockTokens + position % kKvBlockTokens) * shape.head_dim + d);
          const auto key =
              static_cast<std::size_t>((slice.first_row + i) * width + (shape.heads + h) * shape.head_dim + d);
          const std::size_t value = key + static_cast<std::size_t>(shape.kv_heads * shape.head_dim);
          expect_stored(actual.keys[at], exact.keys[at], bound[key], shape.dtype);
          expect_stored(actual.values[at], exact.values[at], bound[value], shape.dtype);
          if (::testing::Test::HasFatalFailure()) return;
          written[at] = true;
        }
      }
    }
  }
  for (std::size_t at = 0; at < written.size(); ++at) {
    if (written[at]) continue;
    ASSERT_TRUE(std::isnan(actual.keys[at]) && std::isnan(actual.values[at])) << "slot " << at << " is not its own";
  }
}

void check_norm_qkv_against_reference(const WeightKind& kind, const Shape& shape,
                                      const std::vector<Step::Sequence>& sequences, bool bias, Random& random,
                                      std::int64_t wanted_cols = 0) {
  SCOPED_TRACE(::testing::Message() << kind.name() << ", " << shape.heads << "/" << shape.kv_heads << " heads of "
                                    << shape.head_dim << ", rotary " << shape.rotary_dim << ", "
                                    << dtype_name(shape.dtype) << ", " << shape.threads << " threads"
                                    << (shape.q_norm ? ", norm of q" : "") << (shape.k_norm ? ", norm of k" : ""));
  const std::int64_t own_cols = is_quantized(kind.format) ? 64 : 33;
  const std::int64_t cols = wanted_cols > 0 ? wanted_cols : own_cols;
  const std::int64_t kv_width = shape.kv_heads * shape.head_dim;
  const HostLinear host = random_linear(
      kind, {.rows = {shape.heads * shape.head_dim, kv_width, kv_width}, .cols = cols, .norm = true, .bias = bias},
      random);
  const Step step(sequences, kBlocks, random);
  const std::int64_t rows = step.batch().rows;
  const std::vector<float> x = random.vector(rows * cols, -2.0F, 2.0F);
  const ReferenceSide side = reference_side(host, x, rows);
  std::vector<float> products = side.products(rows);
  std::vector<double> bound = side.product_bound;
  take_heads_through_norms(products, bound, shape, rows);
  bound = rotated_bound(products, bound, shape, rows);

  std::vector<float> angles(static_cast<std::size_t>(rows * shape.rotary_dim));
  const std::vector<float> frequencies = random.vector(shape.rotary_dim / 2, 0.01F, 1.0F);
  reference().rope_angles({uploaded(reference(), frequencies), 1.0F}, step.batch(), angles.data());
  Backend& backend = device(shape.threads);
  const Outcome actual = run(backend, host.on(backend), x, angles, step, shape);
  Shape unrounded = shape;
  unrounded.dtype = DType::kF32;
  const Outcome exact = run(reference(), side.linear, side.x, angles, step, unrounded);

  std::vector<double> q_bound;
  for (std::int64_t row = 0; row < rows; ++row) {
    const auto start = bound.begin() + static_cast<std::ptrdiff_t>(row * host.width());
    q_bound.insert(q_bound.end(), start, start + static_cast<std::ptrdiff_t>(shape.heads * shape.head_dim));
  }
  expect_within(actual.q, exact.q, q_bound);
  expect_caches_agree(actual, exact, bound, step, shape);
}

DType dtype_of(WeightFormat format) { return format == WeightFormat::kBF16 ? DType::kBF16 : DType::kF16; }

const std::vector<std::vector<Step::Sequence>> kSteps = {
    {{0, 1}},
    {{63, 1}, {64, 1}, {0, 1}},
    {{62, 5}, {127, 1}, {3, 2}},
    {{0, 33}, {200, 17}, {65, 1}},
};

TEST(NormQkv, IsNearTheReferenceForEveryShapeOfHeads) {
  Random random(30);
  std::size_t turn = 0;
  const WeightKind kinds[] = {{.format = WeightFormat::kF32}, quantized_kinds(32)[2], quantized_kinds(64)[1]};
  for (const std::int64_t head_dim : {16, 48, 64, 80, 128}) {
    for (const std::int64_t group : {1, 3, 4, 9}) {
      for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
        const std::int64_t kv_heads = 1 + static_cast<std::int64_t>(turn % 3);
        const std::int64_t rotary[] = {head_dim, head_dim / 2, 0};
        const Shape shape{.heads = group * kv_heads,
                          .kv_heads = kv_heads,
                          .head_dim = head_dim,
                          .rotary_dim = rotary[turn / 3 % 3],
                          .dtype = dtype,
                          .threads = 1 + static_cast<int>(turn / 2 % kMaxThreads)};
        check_norm_qkv_against_reference(kinds[turn % 3], shape, kSteps[turn % 4], turn % 2 == 0, random);
        if (::testing::Test::HasFatalFailure()) return;
        ++turn;
      }
    }
  }
}

// Of 4 bits with scales that fp16 holds, in shapes that CUDA keeps in panels. Some rotations fill whole panels, others
// not.
TEST(NormQkv, OfWholePanelsIsNearTheReference) {
  Random random(35);
  std::size_t turn = 0;
  for (const bool zeros : {false, true}) {
    const WeightKind kind{.format = WeightFormat::kInt4,
                          .group = zeros ? 128 : 64,
                          .offsets = true,
                          .half_scales = !zeros,
                          .zero_points = zeros};
    for (const std::int64_t head_dim : {32, 48, 64, 128, 160}) {
      for (const std::int64_t rotary_dim : {head_dim, head_dim / 2, std::int64_t{0}}) {
        const std::int64_t kv_heads = 1 + static_cast<std::int64_t>(turn % 3);
        const Shape shape{.heads = kv_heads * (1 + static_cast<std::int64_t>(turn % 2)),
                          .kv_heads = kv_heads,
                          .head_dim = head_dim,
                          .rotary_dim = rotary_dim,
                          .dtype = turn % 2 == 0 ? DType::kF16 : DType::kF32,
                          .threads = 1 + static_cast<int>(turn % 2)};
        for (const std::vector<Step::Sequence>& step : kSteps) {
          check_norm_qkv_against_reference(kind, shape, step, turn % 2 == 0, random, 256);
          if (::testing::Test::HasFatalFailure()) return;
        }
        ++turn;
      }
    }
  }
}

TEST(NormQkv, OfManyRowsIsNearTheReference) {
  Random random(34);
  const std::vector<std::vector<Step::Sequence>> steps = {
      {{60, 9}}, {{0, 33}, {200, 17}, {65, 1}}, {{0, 100}, {30, 28}}, {{10, 300}}};
  std::size_t turn = 0;
  for (const WeightFormat format : {WeightFormat::kF16, WeightFormat::kBF16}) {
    for (const std::int64_t head_dim : {16, 32, 48, 64, 80, 96, 128, 160, 256}) {
      for (const std::vector<Step::Sequence>& step : steps) {
        const std::int64_t kv_heads = 1 + static_cast<std::int64_t>(turn % 3);
        const Shape shape{.heads = kv_heads * (1 + static_cast<std::int64_t>(turn % 2)),
                          .kv_heads = kv_heads,
                          .head_dim = head_dim,
                          .rotary_dim = turn % 5 == 0 ? 0 : head_dim,
                          .dtype = turn % 3 == 0 ? DType::kF32 : dtype_of(format)};
        check_norm_qkv_against_reference({.format = format}, shape, step, turn % 2 == 0, random);
        if (::testing::Test::HasFatalFailure()) return;
        ++turn;
      }
    }
  }
}

// More heads and rows than a GPU takes at once.
TEST(NormQkv, OfVeryManyRowsIsNearTheReference) {
  Random random(35);
  const Shape shape{.heads = 24, .kv_heads = 12, .head_dim = 128, .rotary_dim = 128, .dtype = DType::kF16};
  ASSERT_TRUE(device(1).reserve({.rows = 700, .max_cols = 24 * 128}).ok());
  check_norm_qkv_against_reference({.format = WeightFormat::kF16}, shape, {{0, 690}, {3, 10}}, true, random);
  ASSERT_TRUE(device(1).reserve({.rows = kScratchRows, .max_cols = kScratchCols}).ok());
}

// Columns that can be copied sixteen bytes at a time, and in the last shape more heads than parts of a device.
TEST(NormQkv, OfFewRowsIsNearTheReference) {
  Random random(35);
  const std::vector<std::vector<Step::Sequence>> steps = {{{63, 1}}, {{64, 1}, {5, 1}}};
  std::size_t turn = 0;
  for (const WeightFormat format : {WeightFormat::kF16, WeightFormat::kBF16}) {
    for (const std::int64_t head_dim : {16, 80, 128}) {
      for (const std::int64_t rotary_dim : {head_dim, head_dim / 2, std::int64_t{0}}) {
        const Shape shape{.heads = 6,
                          .kv_heads = 2,
                          .head_dim = head_dim,
                          .rotary_dim = rotary_dim,
                          .dtype = turn % 3 == 0 ? DType::kF32 : dtype_of(format)};
        check_norm_qkv_against_reference({.format = format}, shape, steps[turn % 2], turn % 4 < 2, random,
                                         turn % 3 == 0 ? 72 : 1032);
        if (::testing::Test::HasFatalFailure()) return;
        ++turn;
      }
    }
    const Shape large{.heads = 96, .kv_heads = 8, .head_dim = 128, .rotary_dim = 128, .dtype = dtype_of(format)};
    check_norm_qkv_against_reference({.format = format}, large, steps[turn++ % 2], true, random, 520);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

TEST(NormQkv, IsNearTheReferenceInEveryFormat) {
  Random random(31);
  for (const WeightKind& kind : some_of_each_kind()) {
    for (int threads = 1; threads <= kMaxThreads; ++threads) {
      const Shape shape{
          .heads = 4, .kv_heads = 2, .head_dim = 48, .rotary_dim = 48, .dtype = DType::kF16, .threads = threads};
      check_norm_qkv_against_reference(kind, shape, kSteps[3], true, random);
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(NormQkv, NormsEachHeadBeforeTheRotation) {
  Random random(33);
  const WeightKind kinds[] = {{.format = WeightFormat::kF32}, quantized_kinds(32)[2], quantized_kinds(64)[1]};
  std::size_t turn = 0;
  for (const std::int64_t head_dim : {16, 48, 80, 128}) {
    for (const NormKind norm : {NormKind::kRms, NormKind::kLayer}) {
      for (const int which : {1, 2, 3}) {  // of q, of k, of both
        const std::int64_t rotary[] = {head_dim, 0, head_dim / 2};
        Shape shape{.heads = 4,
                    .kv_heads = 2,
                    .head_dim = head_dim,
                    .rotary_dim = rotary[turn % 3],
                    .dtype = turn % 2 == 0 ? DType::kF32 : DType::kF16,
                    .threads = 1 + static_cast<int>(turn / 2 % kMaxThreads)};
        const bool bias = norm == NormKind::kLayer && turn % 2 == 0;
        if (which != 2) shape.q_norm = random_norm(norm, bias, head_dim, random);
        if (which != 1) shape.k_norm = random_norm(norm, bias, head_dim, random);
        shape.q_norm.eps = shape.k_norm.eps = 0.1F;
        check_norm_qkv_against_reference(kinds[turn % 3], shape, kSteps[turn % 4], turn % 4 < 2, random);
        if (::testing::Test::HasFatalFailure()) return;
        ++turn;
      }
    }
  }
}

TEST(NormQkv, RoundsTiesToEvenAndKeepsTheEndsOfTheRange) {
  // One column, x = 1 and no norm: keys and values are the weights themselves.
  const std::vector<float> special = {
      0.0F,     -0.0F,      1.0F + 0x1p-11F,     1.0F + 0x1.8p-10F, -1.0F - 0x1p-11F, 65504.0F, 65519.0F, 0x1p-24F,
      0x1p-25F, 0x1.8p-25F, 0x1p-14F - 0x1p-25F, 1.0F + 0x1p-8F,    1.0F + 0x1.8p-7F, 3.0e38F,  -1e-39F,  0.1F};
  HostLinear host;
  const WeightSource source = dense_weight(special.data(), 16, 1);
  host.weights = {source, source, source};
  const std::vector<float> x = {1.0F};
  Random random(32);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const Shape shape{.head_dim = 16, .rotary_dim = 0, .dtype = dtype};
    const Step step({{5, 1}}, kBlocks, random);
    const Outcome outcome = run(device(1), host.on(device(1)), x, {}, step, shape);
    const std::int64_t head = (step.batch().slices[0].blocks[0] * kLayers + kLayer) * kKvBlockTokens * 16;
    for (std::size_t d = 0; d < special.size(); ++d) {
      const float expected = through(dtype, static_cast<double>(special[d]));
      EXPECT_EQ(outcome.keys[static_cast<std::size_t>(head + 5 * 16) + d], expected) << dtype_name(dtype) << " " << d;
      EXPECT_EQ(outcome.values[static_cast<std::size_t>(head + 5 * 16) + d], expected) << dtype_name(dtype) << " " << d;
    }
  }
}

}  // namespace
}  // namespace lanner::ops::testing
