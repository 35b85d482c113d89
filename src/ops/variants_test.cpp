// What the matrix products can do beside what Llama asks of them, on the device against the reference: layer norm,
// columns in another order, scale, norm and cap of the product, and an MLP without a gate.

#include <cmath>

#include "ops/ops_test_support.h"

namespace lanner::ops::testing {
namespace {

constexpr std::int64_t kRows[] = {1, 2, 5, 9, 33};
constexpr std::int64_t kOuts[] = {1, 15, 16, 17, 48, 100};

std::int64_t cols_for(const WeightKind& kind) { return is_quantized(kind.format) ? 192 : 33; }

std::vector<WeightKind> every_kind() {
  std::vector<WeightKind> kinds = some_of_each_kind();
  for (const std::int64_t group : {48, 96, 192}) {
    for (const WeightKind& kind : quantized_kinds(group)) kinds.push_back(kind);
  }
  return kinds;
}

/// Takes products (rows, width) through the epilogue of linear_add, and what they are off with them.
void take_through_epilogue(const HostLinear& host, std::vector<float>& products, std::vector<double>& bound) {
  for (std::size_t i = 0; i < products.size(); ++i) {
    products[i] *= host.scale;
    const double scale = static_cast<double>(std::fabs(host.scale));
    bound[i] = scale * bound[i] + 2 * kUnit * std::fabs(static_cast<double>(products[i]));
  }
  const auto width = static_cast<std::size_t>(host.width());
  for (std::size_t first = 0; first < products.size(); first += width) {
    take_through_norm(host.post_norm, std::span(products).subspan(first, width),
                      std::span(bound).subspan(first, width));
  }
}

void check_linear_add(const HostLinear& host, std::int64_t rows, int threads, Random& random) {
  SCOPED_TRACE(::testing::Message() << rows << " rows, " << host.width() << " x " << host.cols() << ", scale "
                                    << host.scale << (host.post_norm ? ", norm of the product, " : ", ") << threads
                                    << " threads");
  const std::vector<float> input = random.vector(rows * host.cols(), -2.0F, 2.0F);
  const std::vector<float> before = random.vector(rows * host.width());
  const ReferenceSide side = reference_side(host, input, rows);
  std::vector<float> products = side.products(rows);
  std::vector<double> bound = side.product_bound;
  take_through_epilogue(host, products, bound);
  std::vector<float> expected = before;
  std::vector<float> actual = before;
  reference().linear_add(side.linear, side.x.data(), rows, expected.data());
  device(threads).linear_add(host.on(device(threads)), input.data(), rows, actual.data());
  for (std::size_t i = 0; i < bound.size(); ++i) bound[i] += 2 * kUnit * std::fabs(static_cast<double>(expected[i]));
  expect_within(actual, expected, bound);
}

TEST(LinearVariants, LayerNormBeforeTheProductIsNearTheReference) {
  Random random(60);
  std::size_t turn = 0;
  for (const WeightKind& kind : some_of_each_kind()) {
    for (const bool bias : {false, true}) {
      SCOPED_TRACE(kind.name());
      const LinearShape shape{.rows = {kOuts[turn % 6]},
                              .cols = cols_for(kind),
                              .norm = true,
                              .norm_kind = NormKind::kLayer,
                              .norm_bias = bias};
      check_linear_add(random_linear(kind, shape, random), kRows[turn % 5], 1 + static_cast<int>(turn % kMaxThreads),
                       random);
      if (::testing::Test::HasFatalFailure()) return;
      ++turn;
    }
  }
}

TEST(LinearVariants, ColumnsInAnotherOrderAreNearTheReferenceInEveryFormat) {
  Random random(61);
  std::size_t turn = 0;
  for (const WeightKind& kind : every_kind()) {
    for (const bool norm : {false, true}) {
      SCOPED_TRACE(kind.name());
      const LinearShape shape{.rows = {kOuts[turn % 6], kOuts[turn / 6 % 6]},
                              .cols = cols_for(kind),
                              .norm = norm,
                              .bias = turn % 3 == 0,
                              .ordered = true};
      check_linear_add(random_linear(kind, shape, random), kRows[turn % 5], 1 + static_cast<int>(turn % kMaxThreads),
                       random);
      if (::testing::Test::HasFatalFailure()) return;
      ++turn;
    }
  }
}

TEST(LinearVariants, AnOrderThatUndoesTheWeightsOwnChangesNothing) {
  // fp32 weights with their columns shuffled, and the order that reads the input likewise: the same sum in another
  // order.
  Random random(62);
  constexpr std::int64_t kCols = 40;
  const std::vector<float> weights = random.vector(17 * kCols);
  const std::vector<std::int32_t> order = random.permutation(kCols);
  std::vector<float> shuffled(weights.size());
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const std::size_t column = i % kCols;
    shuffled[i] = weights[i - column + static_cast<std::size_t>(order[column])];
  }
  HostLinear plain;
  plain.weights = {dense_weight(weights.data(), 17, kCols)};
  HostLinear ordered;
  ordered.weights = {dense_weight(shuffled.data(), 17, kCols)};
  ordered.input_order = order;
  const std::vector<float> input = random.vector(3 * kCols);
  std::vector<float> expected(3 * 17);
  std::vector<float> actual(3 * 17);
  device(2).linear_add(plain.on(device(2)), input.data(), 3, expected.data());
  device(2).linear_add(ordered.on(device(2)), input.data(), 3, actual.data());
  std::vector<double> bound = reference_side(plain, input, 3).product_bound;
  for (double& value : bound) value *= 2;
  expect_within(actual, expected, bound);
}

TEST(LinearVariants, ScaleAndNormOfTheProductAreNearTheReference) {
  Random random(63);
  std::size_t turn = 0;
  for (const WeightKind& kind : some_of_each_kind()) {
    for (const float scale : {1.0F, 0.22F, -3.0F}) {
      for (const int norm : {0, 1, 2, 3}) {  // none, RMS, layer, layer with bias
        SCOPED_TRACE(kind.name());
        const LinearShape shape{.rows = {kOuts[1 + turn % 5], kOuts[turn / 5 % 6]},
                                .cols = cols_for(kind),
                                .bias = turn % 2 == 0,
                                .ordered = turn % 3 == 0};
        HostLinear host = random_linear(kind, shape, random);
        host.scale = scale;
        if (norm > 0) {
          host.post_norm = random_norm(norm == 1 ? NormKind::kRms : NormKind::kLayer, norm == 3, host.width(), random);
          host.post_norm.eps = 0.5F;
        }
        check_linear_add(host, kRows[turn % 5], 1 + static_cast<int>(turn % kMaxThreads), random);
        if (::testing::Test::HasFatalFailure()) return;
        ++turn;
      }
    }
  }
}

TEST(LinearVariants, WithoutAGateEveryActivationIsNearTheReference) {
  Random random(64);
  std::size_t turn = 0;
  for (const Gate gate : {Gate::kSilu, Gate::kGelu, Gate::kGeluTanh}) {
    for (const WeightKind& kind : some_of_each_kind()) {
      SCOPED_TRACE(::testing::Message() << kind.name() << ", gate " << static_cast<int>(gate));
      const std::int64_t rows = kRows[turn % 5];
      const LinearShape shape{.rows = {kOuts[turn % 6]},
                              .cols = cols_for(kind),
                              .norm = true,
                              .bias = turn % 2 == 0,
                              .norm_kind = turn % 3 == 0 ? NormKind::kRms : NormKind::kLayer,
                              .ordered = turn % 4 == 0};
      const HostLinear host = random_linear(kind, shape, random);
      const std::vector<float> x = random.vector(rows * shape.cols, -2.0F, 2.0F);
      const ReferenceSide side = reference_side(host, x, rows);
      const std::vector<float> products = side.products(rows);
      std::vector<float> expected(products.size());
      std::vector<float> actual(products.size());
      reference().norm_gated_up(side.linear, gate, side.x.data(), rows, expected.data(), nullptr);
      Backend& backend = device(1 + static_cast<int>(turn % kMaxThreads));
      backend.norm_gated_up(host.on(backend), gate, x.data(), rows, actual.data(), nullptr);
      std::vector<double> bound = side.product_bound;
      for (std::size_t i = 0; i < bound.size(); ++i) {  // as linear_test.cpp derives it, with an up of 1
        bound[i] = 1.2 * bound[i] + 8 * kUnit * std::fabs(static_cast<double>(products[i])) + 1e-30;
      }
      expect_within(actual, expected, bound);
      if (::testing::Test::HasFatalFailure()) return;
      ++turn;
    }
  }
}

TEST(LinearVariants, GeluIsWithinRoundingsOfItselfOnBothSides) {
  // One weight of 1: h = gelu(x). Far on the left, where it is x * erfc, the rounding of x^2 is what is left of the
  // digits. Sixteen columns go through the vectors and the last through the tail.
  const std::vector<float> ones(17, 1.0F);
  HostLinear host;
  host.weights = {dense_weight(ones.data(), 17, 1)};
  std::vector<float> x = {0.0F, -0.0F, 1e-30F, -1e-30F, 1e-3F, -1e-3F, 1e4F, -1e4F, 1e30F, -1e30F};
  for (int i = 0; i < 1000; ++i) x.push_back(-12.5F + 0.025F * static_cast<float>(i));
  std::vector<float> actual(x.size() * 17);
  const auto rows = static_cast<std::int64_t>(x.size());
  device(1).norm_gated_up(host.on(device(1)), Gate::kGelu, x.data(), rows, actual.data(), nullptr);
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const auto input = static_cast<double>(x[i / 17]);
    const double expected = 0.5 * input * std::erfc(-input / std::sqrt(2.0));
    const double roundings = 12 + (std::fabs(input) < 13 ? 1.5 * input * input : 0);
    ASSERT_NEAR(static_cast<double>(actual[i]), expected, roundings * kUnit * std::fabs(expected) + 1e-37)
        << "x = " << input << ", column " << i % 17;
  }
}

TEST(LinearVariants, LogitsWithScaleAndCapAreNearTheReference) {
  Random random(65);
  const std::vector<std::int32_t> wanted = {3, 0, 8, 3};
  std::size_t turn = 0;
  for (const WeightKind& kind : some_of_each_kind()) {
    for (const float scale : {1.0F, 0.0625F, -2.0F}) {
      for (const float cap : {0.0F, 0.3F, 30.0F}) {
        SCOPED_TRACE(::testing::Message() << kind.name() << ", scale " << scale << ", cap " << cap);
        const LinearShape shape{.rows = {kOuts[turn % 6]},
                                .cols = cols_for(kind),
                                .norm = turn % 3 != 0,
                                .bias = turn % 4 == 0,
                                .norm_kind = turn % 2 == 0 ? NormKind::kRms : NormKind::kLayer,
                                .ordered = turn % 5 == 0};
        HostLinear host = random_linear(kind, shape, random);
        host.scale = scale;
        host.soft_cap = cap;
        const std::vector<float> x = random.vector(9 * shape.cols);
        const ReferenceSide side = reference_side(host, x, 9);
        const auto width = static_cast<std::size_t>(host.width());
        std::vector<float> expected(wanted.size() * width);
        std::vector<float> actual(wanted.size() * width);
        reference().norm_head(side.linear, side.x.data(), wanted, expected.data());
        Backend& backend = device(1 + static_cast<int>(turn % kMaxThreads));
        backend.norm_head(host.on(backend), x.data(), wanted, actual.data());
        const std::vector<float> products = side.products(9);
        std::vector<double> bound;
        for (std::size_t i = 0; i < expected.size(); ++i) {
          // A scaled product is off by a rounding on each side; a tanh is flatter than its argument, and it, its
          // argument and the product with the cap are off by 4, 1 and 1 roundings on the device, 3, 1 and 1 in the
          // reference.
          const std::size_t product = static_cast<std::size_t>(wanted[i / width]) * width + i % width;
          const double scaled = std::fabs(static_cast<double>(scale * products[product]));
          bound.push_back(static_cast<double>(std::fabs(scale)) * side.product_bound[product] + 2 * kUnit * scaled +
                          (cap == 0 ? 0 : 11 * kUnit * std::fabs(static_cast<double>(expected[i]))));
        }
        expect_within(actual, expected, bound);
        if (::testing::Test::HasFatalFailure()) return;
        ++turn;
      }
    }
  }
}

TEST(LinearVariants, ASoftCapIsWithinRoundingsOfTheTanh) {
  // One weight of 1 and a cap of 1: the tanh itself, from where it is its argument to where it is 1.
  const std::vector<float> ones(17, 1.0F);
  HostLinear host;
  host.weights = {dense_weight(ones.data(), 17, 1)};
  std::vector<float> x = {0.0F, 1e-30F, -1e-30F, 1e-6F, -1e-6F, 30.0F, -30.0F, 1e30F, -1e30F};
  for (int i = 0; i < 1000; ++i) x.push_back(-12.5F + 0.025F * static_cast<float>(i));
  std::vector<std::int32_t> wanted(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) wanted[i] = static_cast<std::int32_t>(i);
  std::vector<float> actual(x.size() * 17);
  for (const float cap : {1.0F, 4.0F, 0.1F}) {
    host.soft_cap = cap;
    device(1).norm_head(host.on(device(1)), x.data(), wanted, actual.data());
    for (std::size_t i = 0; i < actual.size(); ++i) {
      const auto input = static_cast<double>(x[i / 17]);
      const double expected = static_cast<double>(cap) * std::tanh(input / static_cast<double>(cap));
      const double roundings = cap == 0.1F ? 6 : 4;  // with a power of two only the tanh rounds
      ASSERT_NEAR(static_cast<double>(actual[i]), expected, roundings * kUnit * std::fabs(expected)) << "x = " << input;
      ASSERT_LE(std::fabs(actual[i]), cap);
    }
  }
}

TEST(Door, EndsTheProcessOverWhatAnOperationWouldIgnore) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  Random random(66);
  const HostLinear plain = random_linear({.format = WeightFormat::kF32}, {.rows = {4, 4}, .cols = 4}, random);
  const std::vector<float> x = random.vector(4);
  const std::vector<std::int32_t> wanted = {0};
  std::vector<float> out(8);
  const auto gated = [&](const HostLinear& host) {
    reference().norm_gated_up(host.on(reference()), Gate::kSilu, x.data(), 1, out.data(), nullptr);
  };
  const auto added = [&](const HostLinear& host) {
    reference().linear_add(host.on(reference()), x.data(), 1, out.data());
  };
  const auto headed = [&](const HostLinear& host) {
    reference().norm_head(host.on(reference()), x.data(), wanted, out.data());
  };
  HostLinear scaled = plain;
  scaled.scale = 2.0F;
  EXPECT_DEATH(gated(scaled), "check_arguments.cpp:.*scale");
  HostLinear normed = plain;
  normed.post_norm = random_norm(NormKind::kRms, false, 8, random);
  EXPECT_DEATH(gated(normed), "check_arguments.cpp:.*post_norm");
  EXPECT_DEATH(headed(normed), "check_arguments.cpp:.*post_norm");
  normed.post_norm.gain.pop_back();
  EXPECT_DEATH(added(normed), "check_arguments.cpp:.*gain");
  HostLinear capped = plain;
  capped.soft_cap = 3.0F;
  EXPECT_DEATH(added(capped), "check_arguments.cpp:.*soft_cap");
  HostLinear ordered = plain;
  ordered.input_order = {0, 1, 2};
  EXPECT_DEATH(added(ordered), "check_arguments.cpp:.*input_order");
  HostLinear biased = plain;
  biased.norm = random_norm(NormKind::kRms, true, 4, random);
  EXPECT_DEATH(added(biased), "check_arguments.cpp:.*bias");
}

}  // namespace
}  // namespace lanner::ops::testing
