// What loading does to a checkpoint, seen in what the decoder computes with the reference backend.

#include "model/decoder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>

#include "model/decoder_config.h"
#include "model/fake_checkpoint.h"
#include "ops/forwarding_backend.h"

namespace lanner::model {
namespace {

constexpr std::int32_t kTokens = 6;
constexpr std::int64_t kHeads = 4, kKvHeads = 2, kHeadDim = 16, kHidden = 32;
constexpr std::int64_t kQueryRows = kHeads * kHeadDim, kKeyRows = kKvHeads * kHeadDim;

/// A Llama of one layer without weights.
FakeCheckpoint empty_llama() {
  FakeCheckpoint checkpoint;
  checkpoint.config_value = Json::parse(R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
      "vocab_size": 8, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
      "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64, "tie_word_embeddings": true})");
  checkpoint.has_every_tensor = true;
  return checkpoint;
}

std::vector<float> random_values(std::mt19937& random, std::int64_t count) {
  std::normal_distribution<float> normal(0.0F, 0.4F);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

/// The names of a tensor in a folder and in a GGUF file, its shape, and how many heads rotate in it (0: none).
struct Tensor {
  const char* folder;
  const char* gguf;
  std::int64_t rows;
  std::int64_t cols;  // 1 for vectors
  std::int64_t rotated_heads = 0;
};

const Tensor kTensors[] = {
    {"model.embed_tokens.weight", "token_embd.weight", 8, kHidden},
    {"model.norm.weight", "output_norm.weight", kHidden, 1},
    {"model.layers.0.input_layernorm.weight", "blk.0.attn_norm.weight", kHidden, 1},
    {"model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight", kQueryRows, kHidden, kHeads},
    {"model.layers.0.self_attn.q_proj.bias", "blk.0.attn_q.bias", kQueryRows, 1, kHeads},
    {"model.layers.0.self_attn.k_proj.weight", "blk.0.attn_k.weight", kKeyRows, kHidden, kKvHeads},
    {"model.layers.0.self_attn.k_proj.bias", "blk.0.attn_k.bias", kKeyRows, 1, kKvHeads},
    {"model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight", kKeyRows, kHidden},
    {"model.layers.0.self_attn.v_proj.bias", "blk.0.attn_v.bias", kKeyRows, 1},
    {"model.layers.0.self_attn.o_proj.weight", "blk.0.attn_output.weight", kHidden, kQueryRows}};

/// The order of llama.cpp's converter: reshape(heads, 2, head_dim / 2, …).swapaxes(1, 2).
std::vector<float> pairwise(const std::vector<float>& plain, std::int64_t heads) {
  const std::int64_t width = static_cast<std::int64_t>(plain.size()) / (heads * kHeadDim);
  std::vector<float> result;
  for (std::int64_t head = 0; head < heads; ++head) {
    for (std::int64_t i = 0; i < kHeadDim / 2; ++i) {
      for (std::int64_t half = 0; half < 2; ++half) {
        const auto row = plain.begin() + (head * kHeadDim + half * kHeadDim / 2 + i) * width;
        result.insert(result.end(), row, row + width);
      }
    }
  }
  return result;
}

/// The same weights for every call, as this kind of checkpoint holds them.
FakeCheckpoint llama_with_biases(CheckpointKind kind) {
  FakeCheckpoint checkpoint = empty_llama();
  checkpoint.kind_value = kind;
  checkpoint.config_value["attention_bias"] = kind == CheckpointKind::kFolder;
  std::mt19937 random(1);
  for (const Tensor& tensor : kTensors) {
    std::vector<float> values = random_values(random, tensor.rows * tensor.cols);
    const bool gguf = kind == CheckpointKind::kGguf;
    if (gguf && tensor.rotated_heads > 0) values = pairwise(values, tensor.rotated_heads);
    const std::string name = gguf ? tensor.gguf : tensor.folder;
    checkpoint.values[name] = std::move(values);
    checkpoint.shapes[name] = {};  // a GGUF shows which biases there are
  }
  return checkpoint;
}

struct Computed {
  std::vector<float> keys;    // (kv_heads, 64, head_dim), rotated
  std::vector<float> hidden;  // (tokens, hidden), which queries reach through attention
};

/// The tokens 1, 2, … of one sequence, in one step.
Computed compute(const Checkpoint& checkpoint, LoadOptions options) {
  const auto backend = ops::make_reference_backend();
  options.arithmetic = ops::Arithmetic::kExact;
  const auto spec = read_decoder_spec(checkpoint);
  EXPECT_TRUE(spec.ok()) << spec.status().message();
  const auto decoder = Decoder::load(checkpoint, *spec, *backend, options);
  EXPECT_TRUE(decoder.ok()) << decoder.status().message();
  EXPECT_TRUE((*decoder)->reserve({.rows = kTokens, .output_rows = kTokens}).ok());
  const ops::KvLayout layout = (*decoder)->kv_layout(DType::kF32);
  const ops::KvCacheView cache{layout, *backend->allocate(layout.block_bytes(), "the KV cache"), 1};

  std::vector<std::int32_t> positions(kTokens), tokens(kTokens);
  std::iota(positions.begin(), positions.end(), 0);
  std::iota(tokens.begin(), tokens.end(), 1);
  const std::int32_t blocks[] = {0};
  const ops::SequenceSlice slice{.first_row = 0, .rows = kTokens, .first_position = 0, .blocks = blocks};
  const ops::Batch batch{kTokens, tokens, positions, {&slice, 1}};
  const StepOutput output = (*decoder)->forward(batch, cache, {.hidden = positions});

  Computed computed;
  computed.hidden.assign(output.hidden, output.hidden + kTokens * kHidden);
  const auto head_elements = static_cast<std::size_t>(ops::kKvBlockTokens * kHeadDim);
  computed.keys.resize(kKvHeads * head_elements);
  std::vector<float> values(head_elements);
  for (std::int64_t head = 0; head < kKvHeads; ++head) {
    float* const keys = computed.keys.data() + static_cast<std::size_t>(head) * head_elements;
    backend->read_kv(cache, 0, 0, head, keys, values.data());
  }
  return computed;
}

float largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  float largest = 0.0F;
  for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

TEST(Decoder, PairwiseWeightsAndBiasesOfAGgufComputeWhatTheFolderDoes) {
  const Computed folder = compute(llama_with_biases(CheckpointKind::kFolder), {});
  const Computed gguf = compute(llama_with_biases(CheckpointKind::kGguf), {});
  EXPECT_LT(largest_difference(folder.keys, gguf.keys), 1e-5F);
  EXPECT_LT(largest_difference(folder.hidden, gguf.hidden), 1e-5F);
}

TEST(Decoder, EveryPairwiseTensorCounts) {  // or else the test above would not see one that stays as it was
  const Computed right = compute(llama_with_biases(CheckpointKind::kGguf), {});
  const FakeCheckpoint plain = llama_with_biases(CheckpointKind::kFolder);
  for (const Tensor& tensor : kTensors) {
    if (tensor.rotated_heads == 0) continue;
    FakeCheckpoint wrong = llama_with_biases(CheckpointKind::kGguf);
    wrong.values[tensor.gguf] = plain.values.find(tensor.folder)->second;
    EXPECT_GT(largest_difference(right.hidden, compute(wrong, {}).hidden), 1e-3F) << tensor.gguf;
  }
}

/// The rows of q, k and v of each key-value head together, as InternLM 2 has them; of weights or of biases.
std::vector<float> by_kv_head(const FakeCheckpoint& llama, const std::string& kind) {
  const auto rows_of = [&](const char* part) {
    return llama.values.find(std::string("model.layers.0.self_attn.") + part + "_proj." + kind)->second;
  };
  const auto q = rows_of("q"), k = rows_of("k"), v = rows_of("v");
  const auto group = static_cast<std::ptrdiff_t>(q.size()) / kKvHeads;
  const auto head = static_cast<std::ptrdiff_t>(k.size()) / kKvHeads;
  std::vector<float> fused;
  for (std::ptrdiff_t g = 0; g < kKvHeads; ++g) {
    fused.insert(fused.end(), q.begin() + g * group, q.begin() + (g + 1) * group);
    fused.insert(fused.end(), k.begin() + g * head, k.begin() + (g + 1) * head);
    fused.insert(fused.end(), v.begin() + g * head, v.begin() + (g + 1) * head);
  }
  return fused;
}

/// The model of llama_with_biases() as an InternLM 2.
FakeCheckpoint internlm2_with_biases() {
  const FakeCheckpoint llama = llama_with_biases(CheckpointKind::kFolder);
  FakeCheckpoint checkpoint = empty_llama();
  checkpoint.config_value["architectures"] = {"InternLM2ForCausalLM"};
  checkpoint.config_value["bias"] = true;
  const std::pair<const char*, const char*> names[] = {
      {"model.embed_tokens.weight", "model.tok_embeddings.weight"},
      {"model.norm.weight", "model.norm.weight"},
      {"model.layers.0.input_layernorm.weight", "model.layers.0.attention_norm.weight"},
      {"model.layers.0.self_attn.o_proj.weight", "model.layers.0.attention.wo.weight"}};
  for (const auto& [llama_name, name] : names) checkpoint.values[name] = llama.values.find(llama_name)->second;
  for (const std::string kind : {"weight", "bias"}) {
    checkpoint.values["model.layers.0.attention.wqkv." + kind] = by_kv_head(llama, kind);
  }
  return checkpoint;
}

/// Rows to codes, each group by itself, so that it does not matter which rows are in one tensor.
void quantize(ops::WeightFormat format, ops::WeightSource& source) {
  std::vector<float> values(static_cast<std::size_t>(source.rows * source.cols));
  std::memcpy(values.data(), source.dense, values.size() * sizeof(float));
  const float steps = format == ops::WeightFormat::kInt4 ? 15.0F : 255.0F;
  const int least = format == ops::WeightFormat::kInt4 ? 0 : -128;
  ops::WeightSource result;
  result.format = format;
  result.rows = source.rows;
  result.cols = source.cols;
  result.group = 32;
  for (std::size_t i = 0; i < values.size(); i += 32) {
    const auto [low, high] = std::minmax_element(values.begin() + static_cast<std::ptrdiff_t>(i),
                                                 values.begin() + static_cast<std::ptrdiff_t>(i) + 32);
    const float scale = std::max(*high - *low, 1e-6F) / steps;
    result.scales.push_back(scale);
    result.offsets.push_back(*low - scale * static_cast<float>(least));
    for (std::size_t j = i; j < i + 32; ++j) {
      result.codes.push_back(
          static_cast<std::uint8_t>(static_cast<int>(std::lround((values[j] - *low) / scale)) + least));
    }
  }
  source = std::move(result);
}

TEST(Decoder, FusedTensorsOfEveryFormatComputeWhatSeparateOnesDo) {
  for (const auto format : {ops::WeightFormat::kF32, ops::WeightFormat::kInt8, ops::WeightFormat::kInt4}) {
    FakeCheckpoint separate = llama_with_biases(CheckpointKind::kFolder);
    FakeCheckpoint fused = internlm2_with_biases();
    for (FakeCheckpoint* checkpoint : {&separate, &fused}) {
      checkpoint->alter = [format](std::string_view name, ops::WeightSource& source) {
        const bool is_qkv =
            name.find("_proj.") != std::string_view::npos || name.find("wqkv") != std::string_view::npos;
        if (format != ops::WeightFormat::kF32 && is_qkv && name.find("o_proj") == std::string_view::npos) {
          if (source.cols % 32 == 0) quantize(format, source);
        }
      };
    }
    const Computed expected = compute(separate, {});
    const Computed actual = compute(fused, {});
    EXPECT_EQ(actual.keys, expected.keys) << ops::weight_format_name(format);
    EXPECT_EQ(actual.hidden, expected.hidden) << ops::weight_format_name(format);
  }
}

/// Remembers what may be int8.
class HintBackend final : public ops::ForwardingBackend {
 public:
  HintBackend() : ForwardingBackend(ops::make_reference_backend()) {}
  Result<std::shared_ptr<const ops::PackedWeight>> pack(ops::WeightSource source, ops::Arithmetic arithmetic) override {
    may_be_int8.push_back(source.may_be_int8);
    return ForwardingBackend::pack(std::move(source), arithmetic);
  }
  std::vector<bool> may_be_int8;  // of each matrix, the head's last
};

TEST(Decoder, OnlyTheHeadOfAModelWithQuantizedLayersMayBeInt8) {
  for (const bool quantized : {false, true}) {
    FakeCheckpoint checkpoint = llama_with_biases(CheckpointKind::kFolder);
    checkpoint.config_value["tie_word_embeddings"] = false;
    checkpoint.alter = [quantized](std::string_view name, ops::WeightSource& source) {
      if (quantized && name.ends_with("q_proj.weight")) quantize(ops::WeightFormat::kInt4, source);
    };
    HintBackend backend;
    ASSERT_TRUE(Decoder::load(checkpoint, *read_decoder_spec(checkpoint), backend, {}).ok());
    std::vector<bool> expected(9, false);  // embedding, q, k, v, o, gate, up, down, head
    expected.back() = quantized;
    EXPECT_EQ(backend.may_be_int8, expected);
  }
}

/// The columns of a dense fp32 matrix in another order, as act-order leaves them.
void reorder_columns(const std::vector<std::int32_t>& order, ops::WeightSource& source) {
  const auto count = static_cast<std::size_t>(source.rows * source.cols);
  std::vector<float> values(count);
  std::memcpy(values.data(), source.dense, count * sizeof(float));
  auto copy = std::make_shared<std::vector<float>>(count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t col = i % static_cast<std::size_t>(source.cols);
    (*copy)[i] = values[i - col + static_cast<std::size_t>(order[col])];
  }
  source.dense = reinterpret_cast<const std::byte*>(copy->data());
  source.owner = std::move(copy);
  source.input_order = order;
}

TEST(Decoder, InputOrdersGoToTheirLinearWhetherTheyAgreeOrNot) {
  const Computed expected = compute(llama_with_biases(CheckpointKind::kFolder), {});
  for (const std::int32_t turn : {0, 1}) {  // by which k differs from q and v
    FakeCheckpoint ordered = llama_with_biases(CheckpointKind::kFolder);
    ordered.alter = [turn](std::string_view name, ops::WeightSource& source) {
      if (name.find("self_attn") == std::string_view::npos && name.find("embed") == std::string_view::npos) return;
      const auto cols = static_cast<std::int32_t>(source.cols);
      std::vector<std::int32_t> order(static_cast<std::size_t>(cols));
      const std::int32_t shift = 5 + (name.find("k_proj") == std::string_view::npos ? 0 : turn);
      for (std::int32_t i = 0; i < cols; ++i) order[static_cast<std::size_t>(i)] = (i * 3 + shift) % cols;
      reorder_columns(order, source);
    };
    const Computed actual = compute(ordered, {});
    EXPECT_LT(largest_difference(actual.keys, expected.keys), 1e-5F) << turn;
    EXPECT_LT(largest_difference(actual.hidden, expected.hidden), 1e-5F) << turn;
  }
}

TEST(Decoder, RefusesAnOrderOfPackedColumnsThatItCannotUndo) {
  for (const char* packed : {"model.embed_tokens.weight", "model.layers.0.self_attn.k_proj.weight"}) {
    FakeCheckpoint checkpoint = llama_with_biases(CheckpointKind::kFolder);
    checkpoint.alter = [packed](std::string_view name, ops::WeightSource& source) {
      if (name != packed) return;
      source.packed = std::make_shared<const ops::PackedImage>();
      source.input_order.resize(static_cast<std::size_t>(source.cols));
      std::iota(source.input_order.rbegin(), source.input_order.rend(), 0);
    };
    const auto backend = ops::make_reference_backend();
    const Status status = Decoder::load(checkpoint, *read_decoder_spec(checkpoint), *backend, {}).status();
    EXPECT_EQ(status.code(), StatusCode::kCorrupt) << status.message();
    EXPECT_NE(status.message().find(packed), std::string::npos) << status.message();
  }
}

TEST(Decoder, ProgressEndsAtOne) {
  for (const FakeCheckpoint& checkpoint : {llama_with_biases(CheckpointKind::kFolder), internlm2_with_biases()}) {
    double last = 0.0;
    compute(checkpoint, {.progress = [&last](double share) {
              EXPECT_GT(share, last);
              last = share;
            }});
    EXPECT_DOUBLE_EQ(last, 1.0);
  }
}

TEST(Decoder, DynamicNtkTakesItsBaseFromTheSession) {
  FakeCheckpoint scaled = llama_with_biases(CheckpointKind::kFolder);
  scaled.config_value["rope_scaling"] = {{"rope_type", "dynamic"}, {"factor", 2.0}};
  FakeCheckpoint raised = llama_with_biases(CheckpointKind::kFolder);
  raised.config_value["rope_theta"] = 10000.0 * std::pow(2.0 * 4 - 1, 16.0 / 14.0);  // 256 of 64 positions
  const FakeCheckpoint plain = llama_with_biases(CheckpointKind::kFolder);
  const Computed expected = compute(raised, {});
  EXPECT_LT(largest_difference(compute(scaled, {.session_len = 256}).keys, expected.keys), 1e-5F);
  EXPECT_EQ(compute(scaled, {.session_len = 64}).keys, compute(plain, {}).keys);
  EXPECT_GT(largest_difference(compute(plain, {}).keys, expected.keys), 1e-2F);
}

}  // namespace
}  // namespace lanner::model
