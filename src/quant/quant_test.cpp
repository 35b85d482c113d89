#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "core/float16.h"
#include "core/thread_pool.h"
#include "model/decoder.h"
#include "model/decoder_config.h"
#include "model/fake_checkpoint.h"
#include "quant/awq_matrix.h"
#include "quant/calibration_windows.h"
#include "quant/channel_statistics.h"
#include "quant/int8_matrix.h"
#include "quant/layer_runner.h"
#include "quant/plan.h"
#include "quant/quantized_folder.h"
#include "quant/scale_search.h"
#include "quant/smoothing.h"

namespace lanner::quant {
namespace {

using model::FakeCheckpoint;

TEST(CalibrationWindows, BeginWherePythonWouldBegin) {
  // python3 -c "import random; random.seed(0); print([random.randint(0, 1000) for _ in range(8)])", and so on
  const std::array<std::uint32_t, 8> thousand{864, 394, 776, 911, 430, 41, 265, 988};
  PythonRandom random;
  for (const std::uint32_t wanted : thousand) EXPECT_EQ(random.at_most(1000), wanted);
  const std::array<std::uint32_t, 4> million{885440, 403958, 794772, 933488};
  PythonRandom other;
  for (const std::uint32_t wanted : million) EXPECT_EQ(other.at_most(1'000'000), wanted);
}

TEST(CalibrationWindows, AreCutFromTheText) {
  std::vector<std::int32_t> tokens(1010);
  std::iota(tokens.begin(), tokens.end(), 0);
  const auto windows = draw_windows(tokens, 3, 10);
  ASSERT_TRUE(windows.ok());
  ASSERT_EQ(windows->size(), 3U);
  EXPECT_EQ((*windows)[0].front(), 864);
  EXPECT_EQ((*windows)[2].back(), 776 + 9);
  EXPECT_EQ(draw_windows(tokens, 2, 1010)->back().front(), 0);
  EXPECT_EQ(draw_windows(tokens, 1, 1011).status().code(), StatusCode::kInvalidArgument);
}

TEST(ChannelStatistics, AreThoseOfAllRows) {
  ChannelStatistics statistics(2);
  statistics.add(std::array{1.0F, -4.0F, 3.0F, 2.0F});
  statistics.add(std::array{-2.0F, 0.0F});
  EXPECT_EQ(statistics.rows(), 3);
  EXPECT_EQ(statistics.least()[0], -2);
  EXPECT_EQ(statistics.greatest()[1], 2);
  EXPECT_EQ(statistics.absolute_greatest(), (std::vector<float>{3, 4}));
  EXPECT_FLOAT_EQ(statistics.mean()[0], 2.0F / 3);
  EXPECT_FLOAT_EQ(statistics.absolute_mean()[1], 2.0F);
  EXPECT_TRUE(statistics.finite());
  statistics.add(std::array{NAN, 0.0F});
  EXPECT_FALSE(statistics.finite());
}

TEST(ChannelStatistics, ComeBackFromTheirBytes) {
  ChannelStatistics statistics(2);
  statistics.add(std::array{1.0F, -4.0F, 3.0F, 2.0F});
  std::string bytes;
  statistics.append_to(bytes);
  statistics.append_to(bytes);
  std::string_view rest = bytes;
  for (int i = 0; i < 2; ++i) {
    auto again = ChannelStatistics::take_from(rest, 2);
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(again->rows(), 2);
    EXPECT_EQ(again->mean(), statistics.mean());
    EXPECT_EQ(again->absolute_mean(), statistics.absolute_mean());
    EXPECT_EQ(again->absolute_greatest(), (std::vector<float>{3, 4}));
  }
  EXPECT_TRUE(rest.empty());
  rest = std::string_view(bytes).substr(0, bytes.size() / 2 - 1);
  EXPECT_EQ(ChannelStatistics::take_from(rest, 2).status().code(), StatusCode::kCorrupt);
}

TEST(Smoothing, ScalesByHand) {
  // sqrt(a / w) is 2, 4, 1; the middle of the greatest and the least is 2.
  const auto scales = smoothing_scales(std::array{1.0F, 8.0F, 0.5F}, std::array{0.25F, 0.5F, 0.5F}, {});
  EXPECT_FLOAT_EQ(scales[0], 1);
  EXPECT_FLOAT_EQ(scales[1], 2);
  EXPECT_FLOAT_EQ(scales[2], 0.5F);
  // A channel without gain counts for nothing and stays as it is.
  const auto gated =
      smoothing_scales(std::array{1.0F, 8.0F, 1e6F}, std::array{0.25F, 0.5F, 0.5F}, std::array{1.0F, -1.0F, 0.0F});
  EXPECT_FLOAT_EQ(gated[0], 2 / std::sqrt(8.0F));
  EXPECT_EQ(gated[2], 1);
  // Nothing came in, or all weights are zero.
  for (const float scale : smoothing_scales(std::array{0.0F, 1.0F}, std::array{0.0F, 0.0F}, {})) {
    EXPECT_TRUE(std::isfinite(scale) && scale > 0);
  }
}

TEST(Smoothing, OtherFormulasByHand) {
  ChannelStatistics inputs(2);
  inputs.add(std::array{1.0F, -4.0F, 1.0F, 12.0F});  // means 1 and 8, greatest 1 and 12
  const std::array weights{0.25F, 0.5F};
  const auto ratio = [&](const ScaleFormula& formula) {
    const auto scales = smoothing_scales(inputs, weights, {}, formula);
    EXPECT_FLOAT_EQ(scales[0] * scales[1], 1);
    return scales[1] / scales[0];
  };
  EXPECT_FLOAT_EQ(ratio({}), std::sqrt(12.0F / 2));
  EXPECT_FLOAT_EQ(ratio({.greatest = false, .of_inputs = 1.0 / 3, .of_weights = 0}), 2);
  EXPECT_FLOAT_EQ(ratio({.greatest = false, .of_inputs = 0, .of_weights = 1}), 0.5F);
  EXPECT_EQ(ratio({.greatest = false, .of_inputs = 0, .of_weights = 0}), 1);
}

TEST(ScaleSearch, TriesToSmoothNothingAndWhatIsDoneWithoutASearch) {
  const auto formulas = searched_formulas();
  const auto tries = [&](const ScaleFormula& wanted) {
    return std::ranges::count_if(formulas, [&](const ScaleFormula& one) {
      return one.of_inputs == wanted.of_inputs && one.of_weights == wanted.of_weights &&
             (one.greatest == wanted.greatest || one.of_inputs == 0);
    });
  };
  EXPECT_EQ(formulas.size(), 41U);
  EXPECT_EQ(tries({.of_inputs = 0, .of_weights = 0}), 1);
  EXPECT_EQ(tries({}), 1);
  for (const ScaleFormula& shared : shared_formulas()) EXPECT_EQ(tries(shared), 1);
  EXPECT_EQ(tries({.greatest = false, .of_inputs = 0.95, .of_weights = 0}), 1);
}

model::Json llama_config(std::int64_t kv_heads) {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"hidden_size", 64},
          {"intermediate_size", 96},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"num_key_value_heads", kv_heads},
          {"vocab_size", 48},
          {"max_position_embeddings", 128},
          {"rms_norm_eps", 1e-5},
          {"hidden_act", "silu"},
          {"tie_word_embeddings", false},
          {"rope_theta", 10000.0}};
}

/// A Llama of random weights, the same in each run.
FakeCheckpoint make_llama(std::int64_t kv_heads) {
  FakeCheckpoint checkpoint;
  checkpoint.config_value = llama_config(kv_heads);
  std::uint32_t state = 7;
  const auto add = [&](const std::string& name, std::vector<std::int64_t> shape, float size, float center) {
    std::int64_t count = 1;
    for (const std::int64_t one : shape) count *= one;
    std::vector<float> values;
    for (std::int64_t i = 0; i < count; ++i) {
      state = state * 1664525U + 1013904223U;
      values.push_back(center + size * (static_cast<float>(state >> 8U) / 8388608.0F - 1.0F));
    }
    checkpoint.shapes[name] = std::move(shape);
    checkpoint.values[name] = std::move(values);
  };
  add("model.embed_tokens.weight", {48, 64}, 1.0F, 0);
  add("lm_head.weight", {48, 64}, 0.3F, 0);
  add("model.norm.weight", {64}, 0.5F, 1);
  for (const char* layer : {"model.layers.0.", "model.layers.1."}) {
    const std::string prefix = layer;
    add(prefix + "input_layernorm.weight", {64}, 0.8F, 1);
    add(prefix + "post_attention_layernorm.weight", {64}, 0.8F, 1);
    add(prefix + "self_attn.q_proj.weight", {64, 64}, 0.3F, 0);
    add(prefix + "self_attn.k_proj.weight", {kv_heads * 16, 64}, 0.3F, 0);
    add(prefix + "self_attn.v_proj.weight", {kv_heads * 16, 64}, 0.3F, 0);
    add(prefix + "self_attn.o_proj.weight", {64, 64}, 0.3F, 0);
    add(prefix + "mlp.gate_proj.weight", {96, 64}, 0.3F, 0);
    add(prefix + "mlp.up_proj.weight", {96, 64}, 0.3F, 0);
    add(prefix + "mlp.down_proj.weight", {64, 96}, 0.3F, 0);
  }
  return checkpoint;
}

/// The final hidden states (tokens, 64) of the whole model, by the decoder in one step; as calibration computes them,
/// or with nothing rounded.
std::vector<float> hidden_states(const FakeCheckpoint& checkpoint, std::span<const std::int32_t> tokens,
                                 bool exact = false) {
  const auto rows = static_cast<std::int32_t>(tokens.size());
  const auto spec = model::read_decoder_spec(checkpoint);
  EXPECT_TRUE(spec.ok()) << spec.status().message();
  auto backend = ops::make_cpu_backend({.threads = 1, .deterministic = exact});
  auto decoder = model::Decoder::load(checkpoint, *spec, **backend, {});
  EXPECT_TRUE((*decoder)->reserve({.rows = rows, .output_rows = rows, .sequences = 1, .blocks = 1}).ok());
  const ops::KvLayout layout = (*decoder)->kv_layout(exact ? DType::kF32 : DType::kF16);
  const ops::KvCacheView cache{
      .layout = layout, .data = *(*backend)->allocate(layout.block_bytes(), "test"), .blocks = 1};
  std::vector<std::int32_t> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), 0);
  const std::array<std::int32_t, 1> blocks{0};
  const ops::SequenceSlice slice{.first_row = 0, .rows = rows, .first_position = 0, .blocks = blocks};
  const ops::Batch batch{.rows = rows, .tokens = tokens, .positions = positions, .slices = {&slice, 1}};
  const auto output = (*decoder)->forward(batch, cache, {.hidden = positions});
  return {output.hidden, output.hidden + tokens.size() * 64};
}

constexpr std::array<std::int32_t, 40> kTokens{3, 1, 4, 1, 5, 9, 2, 6, 5,  3, 5, 8, 9, 7, 9, 3,  2, 3, 8,  4,
                                               6, 2, 6, 4, 3, 3, 8, 3, 27, 9, 5, 0, 2, 8, 8, 41, 9, 7, 16, 9};

/// Embedding and final norm by hand, the layers by a LayerRunner each; what it tells goes into the statistics.
std::vector<float> layer_by_layer(const FakeCheckpoint& checkpoint, std::vector<LayerStatistics>& statistics) {
  const auto spec = model::read_decoder_spec(checkpoint);
  const std::vector<float>& table = checkpoint.values.at("model.embed_tokens.weight");
  std::vector<float> hidden;
  for (const std::int32_t token : kTokens) {
    hidden.insert(hidden.end(), table.begin() + token * 64, table.begin() + (token + 1) * 64);
  }
  for (std::size_t layer = 0; layer < 2; ++layer) {
    auto runner = LayerRunner::load(checkpoint, *spec, layer, {.rows = kTokens.size(), .threads = 1});
    EXPECT_TRUE(runner.ok()) << runner.status().message();
    statistics.push_back(make_layer_statistics(spec->layers[layer]));
    EXPECT_TRUE((*runner)
                    ->run(hidden,
                          [&](LinearInput input, std::span<const float> values) {
                            statistics.back()[static_cast<std::size_t>(input)].add(values);
                          })
                    .ok());
  }
  const std::vector<float>& gain = checkpoint.values.at("model.norm.weight");
  for (std::size_t row = 0; row < kTokens.size(); ++row) {
    double squares = 0;
    for (std::size_t i = 0; i < 64; ++i) squares += std::pow(static_cast<double>(hidden[row * 64 + i]), 2);
    const double scale = 1 / std::sqrt(squares / 64 + 1e-5);
    for (std::size_t i = 0; i < 64; ++i) {
      hidden[row * 64 + i] = static_cast<float>(static_cast<double>(hidden[row * 64 + i] * gain[i]) * scale);
    }
  }
  return hidden;
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, static_cast<double>(std::fabs(a[i] - b[i])));
  return most;
}

TEST(LayerRunner, LayersOneByOneAreTheModel) {
  const FakeCheckpoint checkpoint = make_llama(2);
  std::vector<LayerStatistics> statistics;
  const auto one_by_one = layer_by_layer(checkpoint, statistics);
  EXPECT_LT(largest_difference(one_by_one, hidden_states(checkpoint, kTokens)), 1e-5);
  for (const LayerStatistics& layer : statistics) {
    for (const ChannelStatistics& input : layer) EXPECT_EQ(input.rows(), kTokens.size());
    EXPECT_EQ(layer[3].channels(), 96);
  }
}

class SmoothedModel : public testing::TestWithParam<std::int64_t> {};

TEST_P(SmoothedModel, ComputesWhatItDidBefore) {
  FakeCheckpoint checkpoint = make_llama(GetParam());
  const auto spec = model::read_decoder_spec(checkpoint);
  std::vector<LayerStatistics> statistics;
  layer_by_layer(checkpoint, statistics);
  const auto before = hidden_states(checkpoint, kTokens, /*exact=*/true);
  SmoothingFactors factors;
  for (std::size_t layer = 0; layer < 2; ++layer) {
    const auto scales = scales_of_layer(checkpoint, *spec, spec->layers[layer], statistics[layer], 32);
    ASSERT_TRUE(scales.ok());
    EXPECT_EQ(scales->size(), GetParam() == 4 ? 4U : 3U);  // o is smoothed where v has as many heads as q
    add_factors(smoothing_groups(*spec, spec->layers[layer]), *scales, factors);
  }
  for (auto& [name, values] : checkpoint.values) {
    const auto found = factors.find(name);
    if (found == factors.end()) continue;
    const std::size_t cols =
        checkpoint.shapes[name].size() == 2 ? static_cast<std::size_t>(checkpoint.shapes[name][1]) : 1;
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!found->second.multiply_columns.empty()) values[i] *= found->second.multiply_columns[i % cols];
      if (!found->second.divide_rows.empty()) values[i] /= found->second.divide_rows[i / cols];
    }
  }
  EXPECT_LT(largest_difference(before, hidden_states(checkpoint, kTokens, /*exact=*/true)), 1e-4);
  checkpoint.values["model.layers.1.mlp.up_proj.weight"][7] *= 9;
  EXPECT_GT(largest_difference(before, hidden_states(checkpoint, kTokens, /*exact=*/true)), 1e-2);
}

INSTANTIATE_TEST_SUITE_P(KvHeads, SmoothedModel, testing::Values(2, 4));

TEST(AwqMatrix, RoundsAndPacksByHand) {
  FakeCheckpoint checkpoint;
  checkpoint.shapes["m.weight"] = {8, 32};
  std::vector<float> values(8 * 32);
  for (std::size_t i = 0; i < 32; ++i) {
    values[i] = static_cast<float>(i % 16) - 4.0F;       // row 0: a scale of 1, a zero point of 4
    values[32 + i] = 0.5F * static_cast<float>(i % 16);  // row 1: 0.5 and 0
    values[64 + i] = -2.0F;                              // row 2: a constant
  }
  values[96 + 5] = 15;  // row 3: halves are rounded to even
  values[96 + 6] = 0.5F;
  values[96 + 7] = 1.5F;
  checkpoint.values["m.weight"] = values;
  const auto rows = DenseRows::open(checkpoint, {.name = "m.weight", .rows = 8, .cols = 32});
  ASSERT_TRUE(rows.ok());
  const auto pool = ThreadPool::create(2);
  const auto matrix = round_awq(*rows, {}, {.size = 32}, **pool);
  ASSERT_TRUE(matrix.ok());
  const std::array<std::uint32_t, 8> nibble{0, 4, 1, 5, 2, 6, 3, 7};  // of each row
  const auto code = [&](std::uint32_t word, std::size_t row) { return word >> 4U * nibble[row] & 15U; };
  for (std::size_t i = 0; i < 32; ++i) {
    EXPECT_EQ(code(matrix->codes[i], 0), i % 16);
    EXPECT_EQ(code(matrix->codes[i], 1), i % 16);
  }
  EXPECT_EQ(code(matrix->codes[5], 3), 15U);
  EXPECT_EQ(code(matrix->codes[6], 3), 0U);
  EXPECT_EQ(code(matrix->codes[7], 3), 2U);
  EXPECT_EQ(code(matrix->codes[0], 2), 0U);
  EXPECT_EQ(code(matrix->zeros[0], 0), 4U);
  EXPECT_EQ(code(matrix->zeros[0], 1), 0U);
  EXPECT_EQ(code(matrix->zeros[0], 2), 15U);  // the constant is the lowest code
  EXPECT_EQ(to_float(Half{matrix->scales[0]}), 1.0F);
  EXPECT_EQ(to_float(Half{matrix->scales[1]}), 0.5F);
  // With factors: columns first.
  TensorFactors factors;
  factors.multiply_columns.assign(32, 3.0F);
  factors.divide_rows.assign(8, 1.5F);
  EXPECT_EQ(to_float(Half{round_awq(*rows, factors, {.size = 32}, **pool)->scales[1]}), 1.0F);
  values[7 * 32] = 2e6F;
  checkpoint.values["m.weight"] = values;
  const auto huge = DenseRows::open(checkpoint, {.name = "m.weight", .rows = 8, .cols = 32});
  EXPECT_EQ(round_awq(*huge, {}, {.size = 32}, **pool).status().code(), StatusCode::kCorrupt);
}

TEST(Int8Matrix, RoundsRowsByHand) {
  FakeCheckpoint checkpoint;
  checkpoint.shapes["m.weight"] = {3, 32};
  std::vector<float> values(3 * 32);
  for (std::size_t i = 0; i < 32; ++i) values[i] = static_cast<float>(i) - 31.75F;  // row 0: a scale of 1/4
  values[32] = -254;                                                                // row 1: 2; halves go to even
  values[33] = 1;
  values[34] = 3;
  checkpoint.values["m.weight"] = values;
  const auto rows = DenseRows::open(checkpoint, {.name = "m.weight", .rows = 3, .cols = 32});
  ASSERT_TRUE(rows.ok());
  const auto pool = ThreadPool::create(2);
  const auto matrix = round_int8(*rows, {}, **pool);
  ASSERT_TRUE(matrix.ok());
  EXPECT_EQ(matrix->scales, (std::vector<float>{0.25F, 2, 1}));  // of a row of zeros it is 1
  for (std::size_t i = 0; i < 32; ++i) EXPECT_EQ(matrix->codes[i], static_cast<int>(4 * i) - 127);
  EXPECT_EQ(matrix->codes[32], -127);
  EXPECT_EQ(matrix->codes[33], 0);
  EXPECT_EQ(matrix->codes[34], 2);
  EXPECT_EQ(matrix->codes[64], 0);
  // With factors: columns first.
  TensorFactors factors;
  factors.multiply_columns.assign(32, 3.0F);
  factors.divide_rows.assign(3, 1.5F);
  EXPECT_EQ(round_int8(*rows, factors, **pool)->scales[0], 0.5F);
  // Powers of two as scales of columns change nothing where all are the same.
  const auto weights = int8_weights(*rows, std::vector<float>(32, 4.0F), **pool);
  ASSERT_TRUE(weights.ok());
  EXPECT_EQ((*weights)[3], values[3]);
  EXPECT_EQ((*weights)[33], 0.0F);
  factors.multiply_columns.assign(32, 3e38F);
  EXPECT_EQ(round_int8(*rows, factors, **pool).status().code(), StatusCode::kCorrupt);
}

TEST(Plan, GroupsMustFitAllMatrices) {
  const FakeCheckpoint checkpoint = make_llama(2);
  const auto spec = model::read_decoder_spec(checkpoint);
  EXPECT_EQ(largest_group_size(*spec, 128), 32);  // 96 columns
  EXPECT_EQ(largest_group_size(*spec, 16), 0);
  EXPECT_TRUE(make_plan(checkpoint, Method::kAwq, {.size = 32}).ok());
  EXPECT_EQ(make_plan(checkpoint, Method::kAwq, {.size = 64}).status().code(), StatusCode::kInvalidArgument);
}

TEST(QuantizedFolder, TensorsFillShards) {
  const FakeCheckpoint checkpoint = make_llama(2);
  auto plan = make_plan(checkpoint, Method::kAwq, {.size = 32});
  ASSERT_TRUE(plan.ok());
  model::TensorMap tensors;
  for (const auto& [name, values] : checkpoint.values) {
    tensors[name] = {.name = name,
                     .dtype = "F32",
                     .shape = checkpoint.shapes.at(name),
                     .bytes = std::as_bytes(std::span(values)),
                     .owner = nullptr};
  }
  EXPECT_EQ(plan_shards(tensors, *plan)->front().file, "model.safetensors");
  plan->most_shard_bytes = 7000;
  const auto shards = plan_shards(tensors, *plan);
  ASSERT_TRUE(shards.ok());
  ASSERT_GT(shards->size(), 3U);
  EXPECT_EQ(shards->front().file, fmt::format("model-00001-of-{:05}.safetensors", shards->size()));
  std::size_t count = 0;
  for (const OutputShard& shard : *shards) {
    EXPECT_LE(shard_bytes({shard}), 7000);
    for (const OutputTensor& tensor : shard.tensors) count += tensor.headers.size();
  }
  EXPECT_EQ(count, 7U + 14 * 3);  // two norms a layer, the last one, embedding and head; three tensors a matrix
}

}  // namespace
}  // namespace lanner::quant
