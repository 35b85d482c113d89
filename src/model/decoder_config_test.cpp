#include "model/decoder_config.h"

#include <gtest/gtest.h>

#include <cmath>

#include "model/fake_checkpoint.h"
#include "model/generation_config.h"

namespace lanner::model {
namespace {

/// A Llama of two layers with only the fields that have no default.
FakeCheckpoint small_llama() {
  FakeCheckpoint checkpoint;
  checkpoint.config_value = Json::parse(R"({"architectures": ["LlamaForCausalLM"], "vocab_size": 100,
      "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4})");
  checkpoint.has_every_tensor = true;
  return checkpoint;
}

Result<DecoderSpec> read_with(const char* patch) {
  FakeCheckpoint checkpoint = small_llama();
  checkpoint.config_value.merge_patch(Json::parse(patch));
  return read_decoder_spec(checkpoint);
}

Status status_with(const char* patch) { return read_with(patch).status(); }

TEST(DecoderConfig, DefaultsAreThoseOfTransformers) {
  const auto spec = read_with("{}");
  ASSERT_TRUE(spec.ok()) << spec.status().message();
  EXPECT_EQ(spec->architecture, "LlamaForCausalLM");
  EXPECT_EQ(spec->kv_heads, 4);
  EXPECT_EQ(spec->head_dim, 8);
  EXPECT_EQ(spec->norm_eps, 1e-6);
  EXPECT_EQ(spec->max_position, 2048);
  EXPECT_EQ(spec->ropes.front().theta, 10000.0);
  EXPECT_EQ(spec->ropes.front().kind, RopeKind::kDefault);
  EXPECT_EQ(spec->ropes.front().rotary_dim, 8);
  EXPECT_EQ(spec->activation, Activation::kSilu);
  EXPECT_EQ(spec->head, "lm_head.weight");
  EXPECT_EQ(spec->layers.size(), 2U);
  EXPECT_EQ(spec->layers[1].q.weight, "model.layers.1.self_attn.q_proj.weight");
  EXPECT_EQ(spec->layers[1].q.bias, "");
  EXPECT_EQ(spec->layers[1].q.row_order, RowOrder::kPlain);
  EXPECT_EQ(spec->layers[1].down.rows, 32);
  EXPECT_EQ(spec->layers[1].down.cols, 48);
}

TEST(DecoderConfig, ReadsBiasesHeadDimAndTies) {
  const auto spec = read_with(R"({"attention_bias": true, "mlp_bias": true, "head_dim": 16, "num_key_value_heads": 2,
                                  "tie_word_embeddings": true, "hidden_act": "gelu_pytorch_tanh"})");
  ASSERT_TRUE(spec.ok()) << spec.status().message();
  EXPECT_EQ(spec->layers[0].q.rows, 64);
  EXPECT_EQ(spec->layers[0].k.rows, 32);
  EXPECT_EQ(spec->layers[0].o.cols, 64);
  EXPECT_EQ(spec->layers[0].o.bias, "model.layers.0.self_attn.o_proj.bias");
  EXPECT_EQ(spec->layers[0].gate.bias, "model.layers.0.mlp.gate_proj.bias");
  EXPECT_EQ(spec->head, spec->embedding);
  EXPECT_EQ(spec->activation, Activation::kGeluTanh);
}

TEST(DecoderConfig, ReadsBothSpellingsOfRope) {
  const char* spellings[] = {
      R"({"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}, "torch_dtype": "bfloat16"})",
      R"({"rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}, "dtype": "bfloat16",
          "layer_types": ["full_attention", "full_attention"]})"};
  for (const char* spelling : spellings) {
    const auto spec = read_with(spelling);
    ASSERT_TRUE(spec.ok()) << spec.status().message();
    EXPECT_EQ(spec->ropes.front().theta, 500000.0);
    EXPECT_EQ(spec->ropes.front().kind, RopeKind::kLlama3);
    EXPECT_EQ(spec->ropes.front().factor, 8.0);
    EXPECT_EQ(spec->ropes.front().high_freq_factor, 4.0);
    EXPECT_EQ(spec->ropes.front().original_max_position, 8192);
  }
}

TEST(DecoderConfig, ReadsRopeKinds) {
  EXPECT_EQ(read_with(R"({"rope_scaling": {"type": "linear", "factor": 2}})")->ropes.front().kind, RopeKind::kLinear);
  EXPECT_EQ(read_with(R"({"rope_scaling": {"type": "dynamic", "factor": 2}})")->ropes.front().kind,
            RopeKind::kDynamicNtk);
  EXPECT_EQ(read_with(R"({"rope_parameters": {"rope_type": "default"}})")->ropes.front().kind, RopeKind::kDefault);
  EXPECT_EQ(read_with(R"({"partial_rotary_factor": 0.5})")->ropes.front().rotary_dim, 4);
  const auto yarn = read_with(R"({"rope_scaling": {"rope_type": "yarn", "factor": 4, "mscale": 1.0,
                                  "mscale_all_dim": 0.5, "original_max_position_embeddings": 512}})");
  ASSERT_TRUE(yarn.ok()) << yarn.status().message();
  EXPECT_EQ(yarn->ropes.front().original_max_position, 512);
  EXPECT_DOUBLE_EQ(yarn->ropes.front().attention_factor, (0.1 * std::log(4.0) + 1) / (0.05 * std::log(4.0) + 1));
}

TEST(DecoderConfig, ReadsLongRopeByAnyOfItsNames) {
  for (const char* type : {"longrope", "su", "yarn"}) {
    const std::string patch = std::string(R"({"max_position_embeddings": 2048, "original_max_position_embeddings": 512,
        "rope_scaling": {"short_factor": [1, 1, 1, 1.5], "long_factor": [1, 2, 3, 4], "type": ")") +
                              type + "\"}}";
    const auto spec = read_with(patch.c_str());
    ASSERT_TRUE(spec.ok()) << spec.status().message();
    const RopeSpec& rope = spec->ropes.front();
    EXPECT_EQ(rope.kind, RopeKind::kLongRope) << type;
    EXPECT_EQ(rope.factor, 4.0);
    EXPECT_EQ(rope.original_max_position, 512);
    EXPECT_EQ(rope.short_factors, (std::vector<double>{1, 1, 1, 1.5}));
    EXPECT_EQ(rope.long_factors, (std::vector<double>{1, 2, 3, 4}));
  }
}

TEST(DecoderConfig, RefusesRope) {
  for (const char* patch :
       {R"({"rope_theta": 0})", R"({"rope_theta": -1})", R"({"rope_theta": 1e300})", R"({"rope_theta": "x"})",
        R"({"rope_scaling": "linear"})", R"({"rope_scaling": {"type": "linear"}})",
        R"({"rope_scaling": {"type": "linear", "factor": 0}})", R"({"rope_scaling": {"type": 1}})",
        R"({"rope_scaling": {"type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}})",
        R"({"rope_scaling": {"type": "llama3", "factor": 8}})", R"({"partial_rotary_factor": 0.2})",
        R"({"rope_theta": 1, "rope_scaling": {"type": "yarn", "factor": 4}})", R"({"partial_rotary_factor": 2})"}) {
    EXPECT_EQ(status_with(patch).code(), StatusCode::kCorrupt) << patch;
  }
  for (const char* patch :
       {R"({"rope_scaling": {"type": "longrope", "factor": 8}})",
        R"({"rope_scaling": {"type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [1, 1, 1]}})",
        R"({"rope_scaling": {"type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [1, 1, 1, 0]}})",
        R"({"rope_scaling": {"type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [1, 1, 1, "1"]}})",
        R"({"max_position_embeddings": 1,
            "rope_scaling": {"type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [1, 1, 1, 1]}})"}) {
    EXPECT_EQ(status_with(patch).code(), StatusCode::kCorrupt) << patch;
  }
  EXPECT_EQ(status_with(R"({"rope_scaling": {"type": "other", "factor": 8}})").code(), StatusCode::kUnsupported);
}

TEST(DecoderConfig, EveryNumberHasARange) {
  for (const char* field : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                            "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"}) {
    for (const char* value : {"0", "-1", "1.5", "\"8\"", "9223372036854775807", "18446744073709551615", "true", "[]"}) {
      const std::string patch = std::string("{\"") + field + "\": " + value + "}";
      const Status status = status_with(patch.c_str());
      EXPECT_EQ(status.code(), StatusCode::kCorrupt) << patch;
      EXPECT_EQ(status.message().find(std::string("fake/config.json: ") + field), 0U) << status.message();
    }
  }
  EXPECT_EQ(status_with(R"({"rms_norm_eps": 0})").code(), StatusCode::kCorrupt);
  EXPECT_EQ(status_with(R"({"rms_norm_eps": -1e-5})").code(), StatusCode::kCorrupt);
  EXPECT_EQ(status_with(R"({"num_key_value_heads": 3})").code(), StatusCode::kCorrupt);
  EXPECT_EQ(status_with(R"({"hidden_size": 33})").code(), StatusCode::kCorrupt);
  EXPECT_EQ(status_with(R"({"head_dim": 7})").code(), StatusCode::kCorrupt);
  EXPECT_EQ(status_with(R"({"num_hidden_layers": 1025})").code(), StatusCode::kCorrupt);
  EXPECT_TRUE(status_with(R"({"num_hidden_layers": 1024})").ok());
}

TEST(DecoderConfig, RequiredFieldsAreNamed) {
  for (const char* field :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"}) {
    const std::string patch = std::string("{\"") + field + "\": null}";
    EXPECT_EQ(status_with(patch.c_str()).message(), std::string("fake/config.json: ") + field + ": is missing");
  }
}

TEST(DecoderConfig, RefusesFeaturesByName) {
  const std::pair<const char*, const char*> cases[] = {
      {"hidden_act", R"({"hidden_act": "relu"})"},
      {"layer_types", R"({"layer_types": ["full_attention", "sliding_attention"]})"},
      {"sliding_window", R"({"sliding_window": 4096})"},
      {"num_local_experts", R"({"num_local_experts": 8})"},
      {"architectures", R"({"architectures": ["OtherForCausalLM"]})"}};
  for (const auto& [field, patch] : cases) {
    const Status status = status_with(patch);
    EXPECT_EQ(status.code(), StatusCode::kUnsupported) << patch;
    EXPECT_NE(status.message().find(field), std::string::npos) << status.message();
  }
  EXPECT_TRUE(status_with(R"({"sliding_window": null})").ok());
  EXPECT_EQ(status_with(R"({"layer_types": ["full_attention"]})").code(), StatusCode::kCorrupt);
}

TEST(DecoderConfig, FindsTheArchitecture) {
  EXPECT_EQ(status_with(R"({"architectures": ["OtherForCausalLM"]})").message(),
            "fake/config.json: architectures: 'OtherForCausalLM' is not known; `lanner list` says which are");
  EXPECT_TRUE(status_with(R"({"architectures": null, "model_type": "llama"})").ok());
  EXPECT_EQ(status_with(R"({"architectures": null, "model_type": "other"})").code(), StatusCode::kUnsupported);
  EXPECT_EQ(status_with(R"({"architectures": null})").code(), StatusCode::kCorrupt);
  EXPECT_EQ(status_with(R"({"architectures": []})").code(), StatusCode::kCorrupt);
  EXPECT_EQ(status_with(R"({"architectures": "LlamaForCausalLM"})").code(), StatusCode::kCorrupt);
}

/// Every tensor of small_llama() with its shape.
FakeCheckpoint small_llama_with_shapes() {
  FakeCheckpoint checkpoint = small_llama();
  checkpoint.has_every_tensor = false;
  auto& shapes = checkpoint.shapes;
  shapes["model.embed_tokens.weight"] = shapes["lm_head.weight"] = {100, 32};
  shapes["model.norm.weight"] = {32};
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    for (const char* norm : {"input_layernorm.weight", "post_attention_layernorm.weight"}) shapes[layer + norm] = {32};
    for (const char* name : {"q", "k", "v", "o"}) {
      shapes[layer + "self_attn." + name + "_proj.weight"] = {32, 32};
    }
    shapes[layer + "mlp.gate_proj.weight"] = shapes[layer + "mlp.up_proj.weight"] = {48, 32};
    shapes[layer + "mlp.down_proj.weight"] = {32, 48};
  }
  return checkpoint;
}

TEST(DecoderConfig, EveryTensorMustBeThereWithItsShape) {
  const FakeCheckpoint complete = small_llama_with_shapes();
  ASSERT_TRUE(read_decoder_spec(complete).ok()) << read_decoder_spec(complete).status().message();
  ASSERT_EQ(complete.shapes.size(), 21U);
  for (const auto& [name, shape] : complete.shapes) {
    FakeCheckpoint broken = small_llama_with_shapes();
    broken.shapes.erase(name);
    Status status = read_decoder_spec(broken).status();
    EXPECT_EQ(status.code(), StatusCode::kNotFound) << name;
    EXPECT_NE(status.message().find(name), std::string::npos);
    broken.shapes[name] = {shape[0] + 1, 32};
    status = read_decoder_spec(broken).status();
    EXPECT_EQ(status.code(), StatusCode::kCorrupt) << name;
    EXPECT_NE(status.message().find(name), std::string::npos);
  }
  FakeCheckpoint biased = small_llama_with_shapes();
  biased.config_value["attention_bias"] = true;
  EXPECT_NE(read_decoder_spec(biased).status().message().find("q_proj.bias"), std::string::npos);
}

/// What llama.cpp's converter writes for Llama 3.1 and 3.2: head_dim 128 or 64, theta 5e5.
std::vector<float> llama3_divisors(std::int64_t rotary_dim, double factor) {
  std::vector<float> divisors;
  for (std::int64_t i = 0; i < rotary_dim; i += 2) {
    const double frequency = 1.0 / std::pow(500000.0, static_cast<double>(i) / static_cast<double>(rotary_dim));
    const double wavelength = 2 * M_PI / frequency;
    double divisor = 1.0;
    if (wavelength > 8192.0) {
      divisor = factor;
    } else if (wavelength >= 8192.0 / 4) {
      const double smooth = (8192.0 / wavelength - 1) / (4 - 1);
      divisor = 1 / ((1 - smooth) / factor + smooth);
    }
    divisors.push_back(static_cast<float>(divisor));
  }
  return divisors;
}

TEST(DecoderConfig, DerivesLlama3ScalingFromAGguf) {
  for (const double factor : {8.0, 32.0}) {
    FakeCheckpoint checkpoint = small_llama();
    checkpoint.kind_value = CheckpointKind::kGguf;
    checkpoint.config_value["head_dim"] = 64;
    checkpoint.config_value["rope_theta"] = 500000.0;
    checkpoint.shapes["rope_freqs.weight"] = {32};
    checkpoint.values["rope_freqs.weight"] = llama3_divisors(64, factor);
    const auto spec = read_decoder_spec(checkpoint);
    ASSERT_TRUE(spec.ok()) << spec.status().message();
    EXPECT_EQ(spec->ropes.front().kind, RopeKind::kLlama3);
    EXPECT_EQ(spec->ropes.front().factor, factor);
    EXPECT_EQ(spec->ropes.front().original_max_position, 8192);
    checkpoint.values["rope_freqs.weight"][20] *= 1.01F;
    EXPECT_EQ(read_decoder_spec(checkpoint).status().code(), StatusCode::kUnsupported);
  }
}

TEST(DecoderConfig, GgufTakesBiasesAndRowOrderFromItsTensors) {
  FakeCheckpoint checkpoint = small_llama();
  checkpoint.kind_value = CheckpointKind::kGguf;
  checkpoint.config_value["num_key_value_heads"] = 2;
  checkpoint.shapes["blk.1.attn_q.bias"] = {32};
  const auto spec = read_decoder_spec(checkpoint);
  ASSERT_TRUE(spec.ok()) << spec.status().message();
  EXPECT_EQ(spec->layers[0].q.bias, "");
  EXPECT_EQ(spec->layers[1].q.bias, "blk.1.attn_q.bias");
  EXPECT_EQ(spec->layers[0].q.row_order, RowOrder::kPairwiseRope);
  EXPECT_EQ(spec->layers[0].q.heads, 4);
  EXPECT_EQ(spec->layers[0].k.heads, 2);
  EXPECT_EQ(spec->layers[0].o.row_order, RowOrder::kPlain);
  checkpoint.config_value["partial_rotary_factor"] = 0.5;
  EXPECT_EQ(read_decoder_spec(checkpoint).status().code(), StatusCode::kUnsupported);
}

TEST(GenerationConfig, ReadsDefaults) {
  FakeCheckpoint checkpoint = small_llama();
  checkpoint.generation_value = Json::parse(R"({"eos_token_id": [3, 5, 3], "temperature": 0.6, "top_p": 0.9,
      "top_k": 50, "do_sample": true, "repetition_penalty": 1.1, "min_p": null})");
  const auto defaults = read_generation_defaults(checkpoint);
  ASSERT_TRUE(defaults.ok()) << defaults.status().message();
  EXPECT_EQ(defaults->eos_ids, (std::vector<std::int32_t>{3, 5}));
  EXPECT_EQ(defaults->temperature, 0.6);
  EXPECT_EQ(defaults->top_p, 0.9);
  EXPECT_EQ(defaults->top_k, 50);
  EXPECT_EQ(defaults->do_sample, true);
  EXPECT_EQ(defaults->repetition_penalty, 1.1);
  EXPECT_FALSE(defaults->min_p.has_value());
}

TEST(GenerationConfig, FallsBackToConfigJson) {
  FakeCheckpoint checkpoint = small_llama();
  EXPECT_TRUE(read_generation_defaults(checkpoint)->eos_ids.empty());
  checkpoint.config_value["eos_token_id"] = 7;
  EXPECT_EQ(read_generation_defaults(checkpoint)->eos_ids, std::vector<std::int32_t>{7});
  checkpoint.generation_value["eos_token_id"] = 8;
  EXPECT_EQ(read_generation_defaults(checkpoint)->eos_ids, std::vector<std::int32_t>{8});
}

TEST(GenerationConfig, RefusesValues) {
  for (const char* text :
       {R"({"eos_token_id": -1})", R"({"eos_token_id": 4294967296})", R"({"eos_token_id": [1, "2"]})",
        R"({"eos_token_id": {}})", R"({"temperature": -1})", R"({"top_p": 1.5})", R"({"top_k": -1})",
        R"({"top_k": 1.5})", R"({"do_sample": 1})", R"({"repetition_penalty": 0})"}) {
    FakeCheckpoint checkpoint = small_llama();
    checkpoint.generation_value = Json::parse(text);
    const Status status = read_generation_defaults(checkpoint).status();
    EXPECT_EQ(status.code(), StatusCode::kCorrupt) << text;
    EXPECT_EQ(status.message().find("fake/generation_config.json: "), 0U) << status.message();
  }
}

}  // namespace
}  // namespace lanner::model
