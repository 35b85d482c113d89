// The matrix products on the device against the reference: linear_add, norm_gated_up, norm_head, over shapes that are
// multiples of nothing, in every format.

#include <cmath>
#include <ostream>

#include "ops/ops_test_support.h"

namespace lanner::ops::testing {
namespace {

constexpr std::int64_t kRows[] = {1, 2, 3, 5, 8, 9, 17, 33};
constexpr std::int64_t kOuts[] = {1, 15, 16, 17, 48, 100};

void check_linear_add(const WeightKind& kind, const LinearShape& shape, std::int64_t rows, int threads,
                      Random& random) {
  SCOPED_TRACE(::testing::Message() << kind.name() << ", " << rows << " rows, " << shape.rows.front() << " x "
                                    << shape.cols << ", " << threads << " threads");
  const HostLinear host = random_linear(kind, shape, random);
  const std::vector<float> input = random.vector(rows * shape.cols);
  const std::vector<float> before = random.vector(rows * host.width());
  const ReferenceSide side = reference_side(host, input, rows);
  std::vector<float> expected = before;
  std::vector<float> actual = before;
  reference().linear_add(side.linear, side.x.data(), rows, expected.data());
  device(threads).linear_add(host.on(device(threads)), input.data(), rows, actual.data());
  std::vector<double> bound = side.product_bound;  // and the sum is rounded, on both sides
  for (std::size_t i = 0; i < bound.size(); ++i) bound[i] += 2 * kUnit * std::fabs(static_cast<double>(expected[i]));
  expect_within(actual, expected, bound);
}

/// Every number of rows with two heights of the weight each, the next in turn; threads in turn.
void check_linear_add_shapes(const WeightKind& kind, std::int64_t cols, Random& random) {
  static std::size_t turn = 0;
  for (const std::int64_t rows : kRows) {
    for (int i = 0; i < 2 && !::testing::Test::HasFatalFailure(); ++i, ++turn) {
      const LinearShape shape{
          .rows = {kOuts[(turn + turn / 6) % 6]}, .cols = cols, .norm = turn % 5 == 0, .bias = turn % 2 == 0};
      check_linear_add(kind, shape, rows, 1 + static_cast<int>(turn % kMaxThreads), random);
    }
  }
}

TEST(LinearAdd, DenseIsNearTheReference) {
  Random random(10);
  for (const WeightKind& kind : dense_kinds()) {
    for (const std::int64_t cols : {1, 7, 33, 64, 576}) check_linear_add_shapes(kind, cols, random);
  }
}

class LinearAddOfGroups : public ::testing::TestWithParam<std::int64_t> {};
INSTANTIATE_TEST_SUITE_P(Columns, LinearAddOfGroups, ::testing::Values(16, 32, 48, 64, 128));

TEST_P(LinearAddOfGroups, QuantizedIsNearTheReferenceOfTheSameCodes) {
  Random random(11);
  for (const WeightKind& kind : quantized_kinds(GetParam())) {
    for (const std::int64_t cols : {32, 64, 96, 576, 1536}) {
      if (cols % GetParam() == 0) check_linear_add_shapes(kind, cols, random);
    }
  }
}

TEST_P(LinearAddOfGroups, ExactArithmeticWithQuantizedWeightsIsNearRounding) {
  Random random(12);
  for (WeightKind kind : quantized_kinds(GetParam())) {
    kind.arithmetic = Arithmetic::kExact;
    for (const std::int64_t cols : {128, 384}) {
      if (cols % GetParam() == 0) check_linear_add_shapes(kind, cols, random);
    }
  }
}

TEST(LinearAdd, ExactArithmeticTakesGroupsThatTheFastKernelsDoNot) {
  Random random(13);
  for (const WeightFormat format : {WeightFormat::kInt4, WeightFormat::kInt8}) {
    const WeightKind kind{.format = format, .group = 8, .offsets = true, .arithmetic = Arithmetic::kExact};
    check_linear_add(kind, {.rows = {17}, .cols = 40, .bias = true}, 5, 2, random);
  }
}

/// Of 4 bits whose scales fp16 holds, in groups of 32 and of 128.
std::vector<WeightKind> kinds_of_panels() {
  std::vector<WeightKind> kinds;
  for (const std::int64_t group : {32, 128}) {
    for (const bool offsets : {false, true}) {
      kinds.push_back({.format = WeightFormat::kInt4, .group = group, .offsets = offsets, .half_scales = true});
    }
    kinds.push_back({.format = WeightFormat::kInt4, .group = group, .offsets = true, .zero_points = true});
  }
  return kinds;
}

// Shapes that CUDA keeps in panels of 16 rows and tiles of 128 columns: one of each, fewer and more tiles than a block
// has warps, more panels than are taken at once, and columns that are not a power of two.
TEST(LinearAdd, OfWholePanelsIsNearTheReference) {
  Random random(27);
  const LinearShape shapes[] = {{.rows = {16}, .cols = 128},
                                {.rows = {48}, .cols = 1152, .norm = true, .bias = true},
                                {.rows = {32, 16}, .cols = 1664, .norm = true, .norm_kind = NormKind::kLayer},
                                {.rows = {64}, .cols = 640, .ordered = true}};
  std::size_t turn = 0;
  for (const WeightKind& kind : kinds_of_panels()) {
    for (const LinearShape& shape : shapes) {
      for (const std::int64_t rows : {1, 2, 3, 4, 5, 8, 9, 33}) {
        if (::testing::Test::HasFatalFailure()) return;
        check_linear_add(kind, shape, rows, 1 + static_cast<int>(turn++ % kMaxThreads), random);
      }
    }
  }
  ASSERT_TRUE(device(2).reserve({.rows = 33, .max_cols = 9216}).ok());
  for (const std::int64_t rows : {1, 7}) {
    if (::testing::Test::HasFatalFailure()) return;
    check_linear_add(kinds_of_panels()[2], {.rows = {9024}, .cols = 256}, rows, 2, random);
    check_linear_add(kinds_of_panels()[5], {.rows = {32}, .cols = 9216, .norm = true}, rows, 2, random);
    check_linear_add(kinds_of_panels()[4], {.rows = {16}, .cols = 9216}, rows, 2, random);
    // So many panels that on an NVIDIA H200 blocks without one help out, and that two and four share a block.
    for (const std::int64_t panels : {120, 200, 500}) {
      for (const std::int64_t cols : {128, 2304}) {
        check_linear_add(kinds_of_panels()[cols == 128 ? 5 : 2],
                         {.rows = {panels * 16}, .cols = cols, .norm = panels == 200}, rows, 2, random);
      }
    }
    for (const std::int64_t group : {256, 768}) {
      const WeightKind wide{.format = WeightFormat::kInt4, .group = group, .offsets = true, .zero_points = true};
      check_linear_add(wide, {.rows = {48}, .cols = 768}, rows, 2, random);
    }
  }
  ASSERT_TRUE(device(2).reserve({.rows = kScratchRows, .max_cols = kScratchCols}).ok());
}

// Outputs and rows of several tiles, whole and not, and columns that several blocks share.
TEST(LinearAdd, OfManyRowsAndOutputsIsNearTheReference) {
  Random random(21);
  std::size_t turn = 0;
  for (const WeightFormat format : {WeightFormat::kF16, WeightFormat::kBF16}) {
    for (const std::int64_t rows : {9, 16, 31, 64, 100, 257}) {
      for (const std::int64_t cols : {72, 200, 1096}) {
        if (::testing::Test::HasFatalFailure()) return;
        const LinearShape shape{.rows = {130 + 63 * static_cast<std::int64_t>(turn % 3)},
                                .cols = cols,
                                .norm = turn % 4 == 0,
                                .bias = turn % 2 == 0};
        check_linear_add({.format = format}, shape, rows, 1 + static_cast<int>(turn % kMaxThreads), random);
        ++turn;
      }
    }
  }
  check_linear_add({.format = WeightFormat::kF16}, {.rows = {100, 30, 200}, .cols = 136, .bias = true}, 77, 2, random);
}

// More tiles than a GPU has multiprocessors, so that a block takes one after the other; their number even and odd.
constexpr std::int64_t kRowsOfManyTiles = 700;
constexpr std::int64_t kOutsOfManyTiles = 6144;

TEST(LinearAdd, OfMoreTilesThanAreTakenAtOnceIsNearTheReference) {
  Random random(25);
  ASSERT_TRUE(device(2).reserve({.rows = kRowsOfManyTiles, .max_cols = kOutsOfManyTiles + 8}).ok());
  for (const std::int64_t more : {0, 6, 8}) {
    if (::testing::Test::HasFatalFailure()) return;
    const LinearShape shape{.rows = {kOutsOfManyTiles + more}, .cols = 24, .bias = more == 0};
    check_linear_add({.format = WeightFormat::kF16}, shape, kRowsOfManyTiles, 2, random);
  }
  ASSERT_TRUE(device(2).reserve({.rows = kScratchRows, .max_cols = kScratchCols}).ok());
}

struct WideRows {
  WeightKind kind;
  std::int64_t cols;
  friend void PrintTo(const WideRows& one, std::ostream* out) {
    *out << one.kind.name() << ", " << one.cols << " columns";
  }
};

std::vector<WideRows> wide_rows() {
  std::vector<WideRows> all;
  for (const WeightKind& kind : dense_kinds()) {
    for (const std::int64_t cols : {2052, 4104, 8200}) all.push_back({kind, cols});
  }
  all.push_back({quantized_kinds(32)[0], 16384});
  all.push_back({quantized_kinds(128)[2], 33024});
  return all;
}

class LinearAddOfWideRows : public ::testing::TestWithParam<WideRows> {};
INSTANTIATE_TEST_SUITE_P(Shapes, LinearAddOfWideRows, ::testing::ValuesIn(wide_rows()));

TEST_P(LinearAddOfWideRows, IsNearTheReference) {
  Random random(22);
  const auto& [kind, cols] = GetParam();
  ASSERT_TRUE(device(2).reserve({.rows = 33, .max_cols = cols}).ok());
  for (const std::int64_t rows : {1, 3, 8, 9, 33}) {
    if (::testing::Test::HasFatalFailure()) break;
    check_linear_add(kind, {.rows = {19}, .cols = cols, .norm = rows == 3}, rows, 2, random);
  }
  ASSERT_TRUE(device(2).reserve({.rows = kScratchRows, .max_cols = kScratchCols}).ok());
}

// So many outputs that each part of a large device takes several, of rows of one piece and of many, whole and not.
TEST(LinearAdd, OfFewRowsAndManyOutputsIsNearTheReference) {
  Random random(25);
  struct Case {
    LinearShape shape;
    WeightFormat format;
    std::int64_t rows;
  };
  const Case cases[] = {
      {{.rows = {34001}, .cols = 264, .norm = true}, WeightFormat::kF16, 1},
      {{.rows = {9001, 500, 8001}, .cols = 520, .bias = true}, WeightFormat::kBF16, 2},
      {{.rows = {7001}, .cols = 2048}, WeightFormat::kF16, 2},
      {{.rows = {7000}, .cols = 2056, .norm = true, .bias = true}, WeightFormat::kBF16, 1},
      {{.rows = {2501}, .cols = 8192}, WeightFormat::kF16, 1},
      {{.rows = {2501}, .cols = 8200, .bias = true}, WeightFormat::kBF16, 2},
  };
  ASSERT_TRUE(device(2).reserve({.rows = 2, .max_cols = 8200}).ok());
  for (const Case& one : cases) {
    check_linear_add({.format = one.format}, one.shape, one.rows, 2, random);
    if (::testing::Test::HasFatalFailure()) return;
  }
  ASSERT_TRUE(device(2).reserve({.rows = kScratchRows, .max_cols = kScratchCols}).ok());
}

TEST(LinearAdd, ExtremesOfCodesOnBothSidesDoNotOverflow) {
  // The largest sums that codes can make: all -128 or 127, 0 or 15, against activations that are all at their maximum.
  Random random(14);
  std::vector<WeightKind> kinds = quantized_kinds(32);
  kinds.push_back(quantized_kinds(16)[0]);
  for (const WeightKind& kind : kinds) {
    for (const int code : {-128, 127}) {
      for (const float value : {1.0F, -1.0F}) {
        SCOPED_TRACE(kind.name());
        HostLinear host = random_linear(kind, {.rows = {17}, .cols = 1536}, random);
        const bool nibbles = kind.format == WeightFormat::kInt4;
        const int largest = nibbles ? (code < 0 ? 0 : 15) : code;
        std::ranges::fill(host.weights[0].codes, static_cast<std::uint8_t>(largest));
        const std::vector<float> input(3 * 1536, value);
        const ReferenceSide side = reference_side(host, input, 3);
        std::vector<float> expected(3 * 17);
        std::vector<float> actual(3 * 17);
        reference().linear_add(side.linear, side.x.data(), 3, expected.data());
        device(2).linear_add(host.on(device(2)), input.data(), 3, actual.data());
        expect_within(actual, expected, side.product_bound);
      }
    }
  }
}

TEST(LinearAdd, GroupsOfInputThatAreZeroOrVastAreKeptApart) {
  Random random(15);
  for (const WeightKind& kind : quantized_kinds(32)) {
    SCOPED_TRACE(kind.name());
    const HostLinear host = random_linear(kind, {.rows = {33}, .cols = 128}, random);
    std::vector<float> input = random.vector(2 * 128);
    std::fill_n(input.begin(), 32, 0.0F);
    for (std::size_t i = 32; i < 64; ++i) input[i] *= 1e4F;
    for (std::size_t i = 64; i < 96; ++i) input[i] *= 1e-6F;
    const ReferenceSide side = reference_side(host, input, 2);
    std::vector<float> expected(2 * 33);
    std::vector<float> actual(2 * 33);
    reference().linear_add(side.linear, side.x.data(), 2, expected.data());
    device(1).linear_add(host.on(device(1)), input.data(), 2, actual.data());
    expect_within(actual, expected, side.product_bound);
  }
}

TEST(LinearAdd, PartsOfDifferentFormatsAreEachWhatTheyAreAlone) {
  Random random(16);
  constexpr std::int64_t kCols = 96;
  HostLinear host;
  std::vector<WeightKind> kinds = dense_kinds();
  kinds.insert(kinds.begin() + 1, quantized_kinds(32)[2]);
  kinds.push_back(quantized_kinds(16)[0]);
  const std::int64_t heights[] = {17, 33, 48, 1, 16};
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    host.weights.push_back(random_weight(kinds[i], heights[i], kCols, random));
    host.biases.push_back(random.vector(heights[i]));
  }
  host.norm.gain = random.vector(kCols);
  for (const std::int64_t rows : {1, 9}) {
    const std::vector<float> input = random.vector(rows * kCols);
    std::vector<float> all(static_cast<std::size_t>(rows * host.width()));
    device(2).linear_add(host.on(device(2)), input.data(), rows, all.data());
    std::int64_t column = 0;
    for (std::size_t part = 0; part < kinds.size(); ++part) {
      SCOPED_TRACE(kinds[part].name());
      const std::int64_t height = heights[part];
      std::vector<float> alone(static_cast<std::size_t>(rows * height));
      device(2).linear_add(host.part_on(device(2), part), input.data(), rows, alone.data());
      for (std::int64_t row = 0; row < rows; ++row) {
        expect_same_bits(
            std::span(all).subspan(static_cast<std::size_t>(row * host.width() + column),
                                   static_cast<std::size_t>(height)),
            std::span(alone).subspan(static_cast<std::size_t>(row * height), static_cast<std::size_t>(height)));
      }
      column += height;
    }
  }
}

/// How far gate(g) * u may be off when g and u are off by their bounds. |d gate / dx| < 1.13 for all gates, so < 1.2
/// leaves room for the second order; each gate's own arithmetic stays within 8 roundings of |g|.
std::vector<double> gated_bound(const std::vector<float>& products, const std::vector<double>& bound, std::int64_t rows,
                                std::int64_t width) {
  std::vector<double> result;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t i = 0; i < width; ++i) {
      const auto gate = static_cast<std::size_t>(row * 2 * width + i);
      const std::size_t up = gate + static_cast<std::size_t>(width);
      const double g = std::fabs(static_cast<double>(products[gate]));
      const double u = std::fabs(static_cast<double>(products[up])) + bound[up];
      result.push_back((1.2 * bound[gate] + 8 * kUnit * g) * u + (g + bound[gate]) * bound[up] + 1e-30);
    }
  }
  return result;
}

void check_norm_gated_up(const WeightKind& kind, Gate gate, const LinearShape& shape, std::int64_t rows, int threads,
                         Random& random) {
  SCOPED_TRACE(::testing::Message() << kind.name() << ", gate " << static_cast<int>(gate) << ", " << rows << " rows, "
                                    << shape.rows.front() << " x " << shape.cols << ", " << threads << " threads");
  const HostLinear host = random_linear(kind, shape, random);
  const std::int64_t width = shape.rows.front();
  const std::vector<float> x = random.vector(rows * shape.cols, -2.0F, 2.0F);
  const ReferenceSide side = reference_side(host, x, rows);
  const std::vector<float> products = side.products(rows);
  std::vector<float> expected(static_cast<std::size_t>(rows * width));
  std::vector<float> actual = expected;
  reference().norm_gated_up(side.linear, gate, side.x.data(), rows, expected.data(), nullptr);
  device(threads).norm_gated_up(host.on(device(threads)), gate, x.data(), rows, actual.data(), nullptr);
  expect_within(actual, expected, gated_bound(products, side.product_bound, rows, width));
}

TEST(NormGatedUp, IsNearTheReferenceForEveryGateAndFormat) {
  Random random(17);
  std::size_t turn = 0;
  for (const Gate gate : {Gate::kSilu, Gate::kGelu, Gate::kGeluTanh}) {
    for (const WeightKind& kind : some_of_each_kind()) {
      for (const std::int64_t rows : kRows) {
        if (::testing::Test::HasFatalFailure()) return;
        const std::int64_t out = kOuts[(turn + turn / 6) % 6];
        const LinearShape shape{
            .rows = {out, out}, .cols = is_quantized(kind.format) ? 192 : 33, .norm = true, .bias = turn % 2 == 0};
        check_norm_gated_up(kind, gate, shape, rows, 1 + static_cast<int>(turn % kMaxThreads), random);
        ++turn;
      }
    }
  }
}

TEST(NormGatedUp, OfManyRowsAndOutputsIsNearTheReference) {
  Random random(23);
  std::size_t turn = 0;
  for (const WeightFormat format : {WeightFormat::kF16, WeightFormat::kBF16}) {
    for (const std::int64_t rows : {9, 16, 31, 64, 100, 257}) {
      for (const std::int64_t out : {8, 72, 100, 200}) {
        if (::testing::Test::HasFatalFailure()) return;
        const LinearShape shape{.rows = {out, out}, .cols = 328, .norm = true, .bias = turn % 2 == 0};
        check_norm_gated_up({.format = format}, static_cast<Gate>(turn % 3), shape, rows, 2, random);
        ++turn;
      }
    }
  }
}

TEST(NormGatedUp, OfMoreTilesThanAreTakenAtOnceIsNearTheReference) {
  Random random(26);
  ASSERT_TRUE(device(2).reserve({.rows = kRowsOfManyTiles, .max_cols = kOutsOfManyTiles}).ok());
  const LinearShape shape{.rows = {kOutsOfManyTiles / 2, kOutsOfManyTiles / 2}, .cols = 24, .norm = true};
  check_norm_gated_up({.format = WeightFormat::kF16}, Gate::kSilu, shape, kRowsOfManyTiles, 2, random);
  ASSERT_TRUE(device(2).reserve({.rows = kScratchRows, .max_cols = kScratchCols}).ok());
}

TEST(NormGatedUp, OfWholePanelsIsNearTheReference) {
  Random random(28);
  std::size_t turn = 0;
  for (const WeightKind& kind : kinds_of_panels()) {
    for (const std::int64_t rows : {1, 2, 4, 7, 12}) {
      for (const std::int64_t out : {16, 4512}) {
        if (::testing::Test::HasFatalFailure()) return;
        const LinearShape shape{.rows = {out, out}, .cols = out == 16 ? 384 : 128, .norm = true, .bias = turn % 2 == 0};
        ASSERT_TRUE(device(2).reserve({.rows = 12, .max_cols = out == 16 ? kScratchCols : 2 * out}).ok());
        check_norm_gated_up(kind, static_cast<Gate>(turn % 3), shape, rows, 2, random);
        ++turn;
      }
    }
  }
  ASSERT_TRUE(device(2).reserve({.rows = kScratchRows, .max_cols = kScratchCols}).ok());
}

TEST(NormGatedUp, OfFewRowsAndManyOutputsIsNearTheReference) {
  Random random(26);
  for (const std::int64_t rows : {1, 2}) {
    const WeightFormat format = rows == 1 ? WeightFormat::kF16 : WeightFormat::kBF16;
    const std::int64_t cols = rows == 1 ? 1032 : 264;
    check_norm_gated_up({.format = format}, Gate::kSilu, {.rows = {9001, 9001}, .cols = cols, .norm = true}, rows, 2,
                        random);
    if (::testing::Test::HasFatalFailure()) return;
    check_norm_gated_up({.format = format}, Gate::kGelu,
                        {.rows = {77, 77}, .cols = cols + 488, .norm = true, .bias = true}, rows, 2, random);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

TEST(NormGatedUp, HandsOverWhatTheNextProductReads) {
  Random random(24);
  constexpr std::int64_t kInner = 48;
  constexpr std::int64_t kOut = 33;
  // What writes may be of another kind than what reads, and then be done by other kernels.
  std::vector<std::pair<WeightKind, WeightKind>> kinds = {
      {{.format = WeightFormat::kF32}, {.format = WeightFormat::kF16}}};
  for (const WeightKind& kind : dense_kinds()) kinds.emplace_back(kind, kind);
  for (const auto& [up_kind, kind] : kinds) {
    for (const std::int64_t rows : {2, 7, 40}) {
      SCOPED_TRACE(::testing::Message() << up_kind.name() << " before " << kind.name() << ", " << rows << " rows");
      const HostLinear up = random_linear(up_kind, {.rows = {kInner, kInner}, .cols = 64, .norm = true}, random);
      const HostLinear down = random_linear(kind, {.rows = {kOut}, .cols = kInner, .bias = true}, random);
      const std::vector<float> x = random.vector(rows * 64, -2.0F, 2.0F);
      const std::vector<float> before = random.vector(rows * kOut);
      const ReferenceSide side = reference_side(up, x, rows);
      std::vector<float> h(static_cast<std::size_t>(rows * kInner));
      reference().norm_gated_up(side.linear, Gate::kSilu, side.x.data(), rows, h.data(), nullptr);
      std::vector<float> expected = before;
      reference().linear_add(down.on(reference()), h.data(), rows, expected.data());

      Backend& backend = device(1);
      const Linear up_here = up.on(backend);
      const Linear down_here = down.on(backend);
      std::vector<float> handed(h.size());
      std::vector<float> actual = before;
      backend.norm_gated_up(up_here, Gate::kSilu, x.data(), rows, handed.data(), &down_here);
      backend.handed_linear_add(down_here, handed.data(), rows, actual.data());

      const std::vector<double> of_h = gated_bound(side.products(rows), side.product_bound, rows, kInner);
      const std::vector<float> weights = magnitudes(down.weights[0]);
      const OperandError rounded = input_error(down.weights[0], kind.arithmetic, rows);
      std::vector<double> bound;
      for (std::int64_t row = 0; row < rows; ++row) {
        for (std::int64_t out = 0; out < kOut; ++out) {
          double off = 2 * kUnit * std::fabs(static_cast<double>(expected[static_cast<std::size_t>(row * kOut + out)]));
          for (std::int64_t i = 0; i < kInner; ++i) {
            const auto at = static_cast<std::size_t>(row * kInner + i);
            const double size = std::fabs(static_cast<double>(h[at])) + of_h[at];
            const auto weight = static_cast<double>(weights[static_cast<std::size_t>(out * kInner + i)]);
            off += weight * (of_h[at] + rounded.of(size) + 2 * kInner * kUnit * size);
          }
          bound.push_back(off + 4 * kUnit);
        }
      }
      expect_within(actual, expected, bound);
    }
  }
}

TEST(NormGatedUp, GatesOfLargeInputsSaturate) {
  // One column, weights 1: the gate sees x itself, from where e^-x underflows to where it overflows.
  HostLinear host;
  const WeightKind kind{.format = WeightFormat::kF32};
  Random random(18);
  for (int part = 0; part < 2; ++part) host.weights.push_back(random_weight(kind, 17, 1, random));
  for (const Gate gate : {Gate::kSilu, Gate::kGelu, Gate::kGeluTanh}) {
    for (const float size : {0.0F, 1e-20F, 5.0F, 20.0F, 60.0F, 86.0F, 89.0F, 120.0F, 1e6F}) {
      SCOPED_TRACE(size);
      const std::vector<float> x = {size, -size};
      const ReferenceSide side = reference_side(host, x, 2);
      const std::vector<float> products = side.products(2);
      std::vector<float> expected(2 * 17);
      std::vector<float> actual(2 * 17);
      reference().norm_gated_up(side.linear, gate, x.data(), 2, expected.data(), nullptr);
      device(1).norm_gated_up(host.on(device(1)), gate, x.data(), 2, actual.data(), nullptr);
      expect_within(actual, expected, gated_bound(products, side.product_bound, 2, 17));
    }
  }
}

TEST(NormGatedUp, SiluIsWithinRoundingsOfItselfFromUnderflowOn) {
  // Both weights 1: h = silu(x) * x. For negative x it is x^2 e^x, so that the exponential's own error shows: 4 of 8
  // roundings are its share. Sixteen columns go through the vectors and the last through the tail.
  const std::vector<float> ones(17, 1.0F);
  HostLinear host;
  host.weights = {dense_weight(ones.data(), 17, 1), dense_weight(ones.data(), 17, 1)};
  std::vector<float> x;
  for (int i = 0; i < 1000; ++i) x.push_back(-80.0F + 0.1F * static_cast<float>(i));
  std::vector<float> actual(1000 * 17);
  device(1).norm_gated_up(host.on(device(1)), Gate::kSilu, x.data(), 1000, actual.data(), nullptr);
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const auto input = static_cast<double>(x[i / 17]);
    const double expected = input / (1 + std::exp(-input)) * input;
    ASSERT_NEAR(static_cast<double>(actual[i]), expected, 8 * kUnit * std::fabs(expected)) << "x = " << input;
  }
}

TEST(NormGatedUp, ThePartsMayHaveDifferentFormats) {
  Random random(19);
  HostLinear host;
  host.weights.push_back(random_weight(quantized_kinds(32)[2], 49, 96, random));  // int4
  host.weights.push_back(random_weight(quantized_kinds(32)[1], 49, 96, random));  // int8
  host.norm.gain = random.vector(96);
  const std::vector<float> x = random.vector(9 * 96);
  const ReferenceSide side = reference_side(host, x, 9);
  const std::vector<float> products = side.products(9);
  std::vector<float> expected(9 * 49);
  std::vector<float> actual(9 * 49);
  reference().norm_gated_up(side.linear, Gate::kSilu, side.x.data(), 9, expected.data(), nullptr);
  device(3).norm_gated_up(host.on(device(3)), Gate::kSilu, x.data(), 9, actual.data(), nullptr);
  expect_within(actual, expected, gated_bound(products, side.product_bound, 9, 49));
}

TEST(NormHead, TakesTheWantedRowsInTheirOrder) {
  Random random(20);
  const std::vector<std::vector<std::int32_t>> choices = {{16}, {0}, {3, 3, 1}, {16, 0, 7, 8, 9, 1, 2, 15, 4}};
  std::size_t turn = 0;
  for (const WeightKind& kind : some_of_each_kind()) {
    for (const std::vector<std::int32_t>& wanted : choices) {
      SCOPED_TRACE(kind.name());
      const std::int64_t cols = is_quantized(kind.format) ? 192 : wanted.size() % 2 == 0 ? 33 : 264;
      const LinearShape shape{.rows = {kOuts[turn++ % 6]}, .cols = cols, .norm = turn % 3 != 0, .bias = turn % 4 == 0};
      const HostLinear host = random_linear(kind, shape, random);
      const std::vector<float> x = random.vector(17 * cols);
      const ReferenceSide side = reference_side(host, x, 17);
      const auto width = static_cast<std::size_t>(host.width());
      std::vector<float> expected(wanted.size() * width);
      std::vector<float> actual = expected;
      reference().norm_head(side.linear, side.x.data(), wanted, expected.data());
      Backend& backend = device(1 + static_cast<int>(turn % kMaxThreads));
      backend.norm_head(host.on(backend), x.data(), wanted, actual.data());
      std::vector<double> bound;
      for (const std::int32_t row : wanted) {
        const auto start =
            side.product_bound.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(row) * width);
        bound.insert(bound.end(), start, start + static_cast<std::ptrdiff_t>(width));
      }
      expect_within(actual, expected, bound);
    }
  }
}

}  // namespace
}  // namespace lanner::ops::testing
