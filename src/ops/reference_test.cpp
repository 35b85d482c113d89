// The oracle itself, against cases worked by hand: all other tests trust it.

#include <cmath>
#include <cstring>
#include <numbers>

#include "ops/ops_test_support.h"

namespace lanner::ops::testing {
namespace {

HostLinear dense(const std::vector<std::vector<float>>& weights, const std::vector<std::int64_t>& rows) {
  HostLinear host;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    host.weights.push_back(
        dense_weight(weights[i].data(), rows[i], static_cast<std::int64_t>(weights[i].size()) / rows[i]));
  }
  return host;
}

void expect_close(const std::vector<float>& actual, const std::vector<double>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) EXPECT_NEAR(static_cast<double>(actual[i]), expected[i], 1e-6) << i;
}

TEST(Reference, WidensCodesWithScaleAndOffset) {
  WeightSource int8 = dense_weight(nullptr, 1, 4);
  int8.format = WeightFormat::kInt8;
  int8.group = 2;
  int8.codes = {0x80, 0x7F, 0xFF, 0x01};  // -128, 127, -1, 1
  int8.scales = {0.5F, 2.0F};
  WeightSource int4 = int8;
  int4.format = WeightFormat::kInt4;
  int4.codes = {0, 15, 8, 1};
  int4.offsets = {-4.0F, 1.0F};
  const std::vector<std::int32_t> tokens = {0};
  const std::vector<std::int32_t> blocks = {0};
  const std::vector<SequenceSlice> slices = {{.rows = 1, .blocks = blocks}};
  const Batch batch{.rows = 1, .tokens = tokens, .positions = tokens, .slices = slices};
  std::vector<float> row(4);
  reference().embed(*packed(reference(), int8, Arithmetic::kFast), batch, 1.0F, row.data());
  expect_close(row, {-64, 63.5, -2, 2});
  reference().embed(*packed(reference(), int4, Arithmetic::kFast), batch, 1.0F, row.data());
  expect_close(row, {-4, 3.5, 17, 3});
  reference().embed(*packed(reference(), int4, Arithmetic::kFast), batch, -2.0F, row.data());
  expect_close(row, {8, -7, -34, -6});
}

TEST(Reference, LinearAddAddsProductAndBias) {
  const std::vector<std::vector<float>> weights = {{1, 2, 3, 4}};  // (2, 2)
  HostLinear host = dense(weights, {2});
  host.biases = {{100, 200}};
  std::vector<float> x = {0.5F, 0.25F, 7, 8};
  const std::vector<float> input = {10, 1, -1, 0};  // (2, 2)
  reference().linear_add(host.on(reference()), input.data(), 2, x.data());
  expect_close(x, {112.5, 234.25, 106, 205});
}

TEST(Reference, NormDividesByTheRootMeanSquare) {
  const std::vector<float> x = {9, 9, 3, 4};
  const std::vector<float> gain = {1, -2};
  std::vector<float> out(2);
  const std::vector<std::int32_t> wanted = {1};
  reference().norm_rows({.gain = uploaded(reference(), gain)}, x.data(), 2, wanted, out.data());
  expect_close(out, {3 / std::sqrt(12.5), -8 / std::sqrt(12.5)});
  reference().norm_rows({.gain = uploaded(reference(), gain), .eps = 12.5F}, x.data(), 2, wanted, out.data());
  expect_close(out, {0.6, -1.6});
}

TEST(Reference, LayerNormIsOfDifferencesFromTheMean) {
  const std::vector<float> x = {9, 9, 1, 3};  // the second row has mean 2 and variance 1
  const std::vector<std::int32_t> wanted = {1};
  std::vector<float> out(2);
  HostNorm norm{.kind = NormKind::kLayer, .gain = {2, -3}, .bias = {}, .eps = 0.0F};
  reference().norm_rows(norm.on(reference()), x.data(), 2, wanted, out.data());
  expect_close(out, {-2, -3});
  norm.bias = {10, 20};
  reference().norm_rows(norm.on(reference()), x.data(), 2, wanted, out.data());
  expect_close(out, {8, 17});
  norm.eps = 3.0F;  // a deviation of 2
  reference().norm_rows(norm.on(reference()), x.data(), 2, wanted, out.data());
  expect_close(out, {9, 18.5});
}

TEST(Reference, ColumnsAreReadInTheOrderGivenAfterTheNorm) {
  const std::vector<std::vector<float>> weights = {{1, 2, 3}};
  HostLinear host = dense(weights, {1});
  host.input_order = {2, 0, 1};
  const std::vector<float> x = {10, 20, 30};
  std::vector<float> out = {1000};
  reference().linear_add(host.on(reference()), x.data(), 1, out.data());
  expect_close(out, {1000 + 30 + 2 * 10 + 3 * 20});
  const std::vector<float> y = {1, 1, 1};  // rms 1: the gain itself
  host.norm = {.gain = {10, 20, 30}, .bias = {}, .eps = 0.0F};
  out = {1000};
  reference().linear_add(host.on(reference()), y.data(), 1, out.data());
  expect_close(out, {1000 + 30 + 2 * 10 + 3 * 20});
}

TEST(Reference, AProductIsScaledThenNormedThenAdded) {
  const std::vector<std::vector<float>> weights = {{3}, {-4}};  // the norm goes over both parts
  HostLinear host = dense(weights, {1, 1});
  const std::vector<float> x = {1};
  std::vector<float> out = {100, 200};
  host.scale = 2.0F;
  reference().linear_add(host.on(reference()), x.data(), 1, out.data());
  expect_close(out, {106, 192});
  host.post_norm = {.gain = {1, 10}, .bias = {}, .eps = 14.0F};  // (36 + 64) / 2 + 14 = 8 * 8
  out = {100, 200};
  reference().linear_add(host.on(reference()), x.data(), 1, out.data());
  expect_close(out, {100 + 6 / 8.0, 200 - 80 / 8.0});
}

TEST(Reference, LogitsAreScaledThenCapped) {
  const std::vector<std::vector<float>> weights = {{1, -300}};
  HostLinear host = dense(weights, {2});
  const std::vector<float> x = {4};
  const std::vector<std::int32_t> wanted = {0};
  std::vector<float> out(2);
  host.scale = 0.25F;
  reference().norm_head(host.on(reference()), x.data(), wanted, out.data());
  expect_close(out, {1, -300});
  host.soft_cap = 2.0F;
  reference().norm_head(host.on(reference()), x.data(), wanted, out.data());
  expect_close(out, {2 * 0.4621171573, -2});  // tanh(1 / 2)
}

TEST(Reference, WithoutAnUpPartTheGateIsAll) {
  const std::vector<std::vector<float>> weights = {{1}};
  const HostLinear host = dense(weights, {1});
  const std::vector<float> x = {1, -2};
  std::vector<float> h(2);
  reference().norm_gated_up(host.on(reference()), Gate::kGelu, x.data(), 2, h.data(), nullptr);
  expect_close(h, {0.8413447461, -0.0455002639});
}

TEST(Reference, GatesAreTheTextbooks) {
  const std::vector<std::vector<float>> weights = {{1}, {3}};
  const HostLinear host = dense(weights, {1, 1});
  const std::vector<float> x = {1, -2};
  const auto gated = [&](Gate gate) {
    std::vector<float> h(2);
    reference().norm_gated_up(host.on(reference()), gate, x.data(), 2, h.data(), nullptr);
    return h;
  };
  // silu(1), silu(-2); gelu(1), gelu(-2); its tanh form: values from NumPy. The factor is 3 * x.
  expect_close(gated(Gate::kSilu), {0.7310585786 * 3, -0.2384058440 * -6});
  expect_close(gated(Gate::kGelu), {0.8413447461 * 3, -0.0455002639 * -6});
  expect_close(gated(Gate::kGeluTanh), {0.8411919906 * 3, -0.0454023059 * -6});
}

TEST(Reference, RopeTurnsTheHalvesByPositionTimesFrequency) {
  // Position 2 and frequency pi / 4: a quarter turn, (a, b) -> (-b, a). The second pair stands still.
  const std::vector<std::int32_t> tokens = {0};
  const std::vector<std::int32_t> positions = {2};
  const std::vector<std::int32_t> blocks = {0};
  const std::vector<SequenceSlice> slices = {{.rows = 1, .first_position = 2, .blocks = blocks}};
  const Batch batch{.rows = 1, .tokens = tokens, .positions = positions, .slices = slices};
  std::vector<float> angles(4);
  reference().rope_angles({uploaded(reference(), {std::numbers::pi_v<float> / 4, 0.0F}), 1.0F}, batch, angles.data());
  expect_close(angles, {0, 1, 1, 0});
  reference().rope_angles({uploaded(reference(), {std::numbers::pi_v<float> / 4, 0.0F}), 0.5F}, batch, angles.data());
  expect_close(angles, {0, 0.5, 0.5, 0});

  const std::vector<std::vector<float>> weights = {{1, 2, 3, 4, 5}, {6, 7, 8, 9, 10}, {11, 12, 13, 14, 15}};
  const HostLinear host = dense(weights, {5, 5, 5});
  const TestCache cache({.layers = 1, .kv_heads = 1, .head_dim = 5, .dtype = DType::kF32}, 1);
  const std::vector<float> turn = {0, 1, 1, 0};
  const std::vector<float> x = {1};
  const Linear linear = host.on(reference());
  std::vector<float> q(5);
  reference().norm_qkv(
      {.x = x.data(), .linear = &linear, .rope_angles = turn.data(), .rotary_dim = 4, .heads = 1, .q = q.data()}, batch,
      cache.view());
  std::vector<float> keys(64 * 5);
  std::vector<float> values(64 * 5);
  reference().read_kv(cache.view(), 0, 0, 0, keys.data(), values.data());
  expect_close(q, {-3, 2, 1, 4, 5});
  expect_close({keys.begin() + 10, keys.begin() + 15}, {-8, 7, 6, 9, 10});
  expect_close({values.begin() + 10, values.begin() + 15}, {11, 12, 13, 14, 15});
}

TEST(Reference, HeadsAreNormedBeforeTheyTurn) {
  // Two heads of q: (3, 4) and (6, 8), rms of both is their size over sqrt(2). A quarter turn of (a, b) is (-b, a).
  const std::vector<std::vector<float>> weights = {{3, 4, 6, 8}, {30, 40}, {5, 6}};
  const HostLinear host = dense(weights, {4, 2, 2});
  const TestCache cache({.layers = 1, .kv_heads = 1, .head_dim = 2, .dtype = DType::kF32}, 1);
  const std::vector<std::int32_t> tokens = {0};
  const std::vector<std::int32_t> blocks = {0};
  const std::vector<SequenceSlice> slices = {{.rows = 1, .blocks = blocks}};
  const Batch batch{.rows = 1, .tokens = tokens, .positions = tokens, .slices = slices};
  const std::vector<float> turn = {0, 1};
  const std::vector<float> x = {1};
  const Linear linear = host.on(reference());
  std::vector<float> q(4);
  const HostNorm q_norm{.gain = {1, 2}, .bias = {}, .eps = 0.0F};
  const HostNorm k_norm{.kind = NormKind::kLayer, .gain = {1, 1}, .bias = {0, 5}, .eps = 0.0F};
  reference().norm_qkv({.x = x.data(),
                        .linear = &linear,
                        .rope_angles = turn.data(),
                        .rotary_dim = 2,
                        .heads = 2,
                        .q_norm = q_norm.on(reference()),
                        .k_norm = k_norm.on(reference()),
                        .q = q.data()},
                       batch, cache.view());
  std::vector<float> keys(64 * 2);
  std::vector<float> values(64 * 2);
  reference().read_kv(cache.view(), 0, 0, 0, keys.data(), values.data());
  const double root = std::sqrt(2.0);
  expect_close(q, {-1.6 * root, 0.6 * root, -1.6 * root, 0.6 * root});
  expect_close({keys.begin(), keys.begin() + 2}, {-6, -1});  // mean 35, deviation 5: (-1, 1 + 5), turned
  expect_close({values.begin(), values.begin() + 2}, {5, 6});
}

TEST(Reference, WindowsCapsAndSlopesShapeTheScores) {
  // Keys 0, 1 and 2 have scores 0, 0 and ln(4) against the query at position 2; values are 1, 2 and 4.
  constexpr std::int64_t kDim = 16;
  const TestCache cache({.layers = 1, .kv_heads = 1, .head_dim = kDim, .dtype = DType::kF32}, 1);
  auto* head = reinterpret_cast<float*>(cache.view().head(0, 0, 0));
  std::memset(head, 0, 2 * 64 * kDim * sizeof(float));
  head[2 * kDim] = 1;
  for (const int t : {0, 1, 2}) head[(64 + t) * kDim] = static_cast<float>(1 << t);
  const std::vector<std::int32_t> tokens = {0};
  const std::vector<std::int32_t> positions = {2};
  const std::vector<std::int32_t> blocks = {0};
  const std::vector<SequenceSlice> slices = {{.rows = 1, .first_position = 2, .blocks = blocks}};
  const Batch batch{.rows = 1, .tokens = tokens, .positions = positions, .slices = slices};
  constexpr float kLn2 = std::numbers::ln2_v<float>;
  std::vector<float> q(2 * kDim);  // two heads of one group
  q[0] = q[kDim] = 4 * kLn2;
  std::vector<float> out(2 * kDim);
  const AttentionArgs plain{.q = q.data(), .heads = 2, .scale = 0.5F, .out = out.data()};
  const auto attended = [&](const AttentionArgs& args) {
    reference().attention(args, batch, cache.view());
    return std::vector<float>{out[0], out[kDim]};
  };
  expect_close(attended(plain), {(1 + 2 + 4 * 4) / 6.0, (1 + 2 + 4 * 4) / 6.0});
  AttentionArgs args = plain;
  args.window = 2;
  expect_close(attended(args), {(2 + 4 * 4) / 5.0, (2 + 4 * 4) / 5.0});
  args.window = 1;
  expect_close(attended(args), {4, 4});
  args = plain;
  args.alibi_slopes = uploaded(reference(), {kLn2, 0.0F});  // weights 1/4, 1/2 and 4 in the first head
  expect_close(attended(args), {(0.25 * 1 + 0.5 * 2 + 4 * 4) / 4.75, (1 + 2 + 4 * 4) / 6.0});
  args = plain;
  args.soft_cap = 2 * kLn2;  // the score is cap * tanh(1)
  const double weight = std::exp(2 * static_cast<double>(kLn2) * 0.7615941560);
  expect_close(attended(args), {(1 + 2 + 4 * weight) / (2 + weight), (1 + 2 + 4 * weight) / (2 + weight)});
  args.alibi_slopes = uploaded(reference(), {kLn2, 0.0F});  // added to what was capped
  expect_close(attended(args), {(0.25 + 1 + 4 * weight) / (0.75 + weight), (1 + 2 + 4 * weight) / (2 + weight)});
}

TEST(Reference, AttentionIsASoftmaxOverWhatCameBefore) {
  constexpr std::int64_t kDim = 16;
  const TestCache cache({.layers = 1, .kv_heads = 1, .head_dim = kDim, .dtype = DType::kF32}, 1);
  auto* head = reinterpret_cast<float*>(cache.view().head(0, 0, 0));  // keys (64, 16), values (64, 16)
  std::memset(head, 0, 2 * 64 * kDim * sizeof(float));
  head[0] = 1;                        // key 0 points along the query, key 1 does not
  head[64 * kDim] = 10;               // value 0
  head[64 * kDim + kDim] = 20;        // value 1
  head[64 * kDim + 2 * kDim] = 1e6F;  // value 2 lies in the future
  const std::vector<std::int32_t> tokens = {0, 0};
  const std::vector<std::int32_t> positions = {0, 1};
  const std::vector<std::int32_t> blocks = {0};
  const std::vector<SequenceSlice> slices = {{.rows = 2, .blocks = blocks}};
  const Batch batch{.rows = 2, .tokens = tokens, .positions = positions, .slices = slices};
  std::vector<float> q(2 * kDim);
  q[0] = q[kDim] = std::numbers::ln2_v<float> * 2;
  std::vector<float> out(2 * kDim);
  reference().attention({.q = q.data(), .heads = 1, .scale = 0.5F, .out = out.data()}, batch, cache.view());
  EXPECT_NEAR(out[0], 10, 1e-5);                          // only itself
  EXPECT_NEAR(out[kDim], (2 * 10 + 1 * 20) / 3.0, 1e-5);  // weights 2 : 1
}

}  // namespace
}  // namespace lanner::ops::testing
