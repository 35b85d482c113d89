// What the files of the architectures share. Whole models are compared in tests/model/test_tiny_models.py; here is what
// they refuse.

#include "model/arch/family.h"

#include <gtest/gtest.h>

#include <string>

#include "model/fake_checkpoint.h"

namespace lanner::model::arch {
namespace {

// The numbers of the paper, section 3, for 8 heads; for 6 the rule of its code: the 4 of 4 heads, then every other
// of 8.
TEST(Family, AlibiSlopes) {
  const std::vector<double> eight{1.0 / 2, 1.0 / 4, 1.0 / 8, 1.0 / 16, 1.0 / 32, 1.0 / 64, 1.0 / 128, 1.0 / 256};
  EXPECT_EQ(alibi_slopes(8), eight);
  const std::vector<double> six{1.0 / 4, 1.0 / 16, 1.0 / 64, 1.0 / 256, 1.0 / 2, 1.0 / 8};
  EXPECT_EQ(alibi_slopes(6), six);
  EXPECT_EQ(alibi_slopes(1), std::vector<double>{1.0 / 256});
}

/// A configuration of this class with the usual numbers, and these fields besides.
Result<DecoderSpec> read_class(const std::string& architecture, const char* patch,
                               CheckpointKind kind = CheckpointKind::kFolder) {
  FakeCheckpoint checkpoint;
  checkpoint.kind_value = kind;
  checkpoint.has_every_tensor = true;
  checkpoint.config_value = Json::parse(R"({"vocab_size": 100, "hidden_size": 64, "intermediate_size": 96,
      "num_hidden_layers": 2, "num_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
      "max_position_embeddings": 128})");
  checkpoint.config_value["architectures"] = Json::array({architecture});
  checkpoint.config_value.merge_patch(Json::parse(patch));
  return read_decoder_spec(checkpoint);
}

TEST(Family, FeaturesThatAreNotImplementedAreRefusedByName) {
  struct Case {
    const char* architecture;
    const char* field;
    const char* patch;
  };
  const Case cases[] = {
      {"MistralForCausalLM", "num_local_experts", R"({"num_local_experts": 8})"},
      {"Qwen2ForCausalLM", "layer_types", R"({"layer_types": ["full_attention", "linear_attention"]})"},
      {"QWenLMHeadModel", "no_bias", R"({"no_bias": false})"},
      {"QWenLMHeadModel", "rotary_pct", R"({"rotary_pct": 0.5})"},
      {"QWenLMHeadModel", "kv_channels", R"({"kv_channels": 32})"},
      {"InternLMForCausalLM", "type", R"({"rotary": {"type": "other"}})"},
      {"BaichuanForCausalLM", "num_key_value_heads", R"({"num_key_value_heads": 2})"},
      {"ChatGLMModel", "rmsnorm", R"({"rmsnorm": false})"},
      {"ChatGLMModel", "add_bias_linear", R"({"add_bias_linear": true})"},
      {"ChatGLMModel", "pre_seq_len", R"({"pre_seq_len": 128})"},
      {"GemmaForCausalLM", "use_bidirectional_attention", R"({"head_dim": 16, "use_bidirectional_attention": true})"},
      {"Phi3ForCausalLM", "attention_bias", R"({"attention_bias": true})"},
      {"FalconForCausalLM", "parallel_attn", R"({"new_decoder_architecture": true, "parallel_attn": false})"},
      {"FalconForCausalLM", "num_ln_in_parallel_attn", R"({"num_ln_in_parallel_attn": 2})"},
      {"MiniCPMForCausalLM", "sparse_config", R"({"sparse_config": {"topk": 64}})"},
      {"MiniCPMForCausalLM", "num_experts", R"({"num_experts": 8})"},
      {"Glm4ForCausalLM", "mrope_section", R"({"mrope_section": true})"}};
  for (const Case& one : cases) {
    const Status status = read_class(one.architecture, one.patch).status();
    EXPECT_EQ(status.code(), StatusCode::kUnsupported) << one.architecture << " " << status.message();
    EXPECT_NE(status.message().find(std::string(": ") + one.field + ": "), std::string::npos) << status.message();
  }
}

TEST(Family, WrongValuesAreRefusedByName) {
  struct Case {
    const char* architecture;
    const char* field;
    const char* patch;
  };
  const Case cases[] = {
      {"Qwen2ForCausalLM", "sliding_window", R"({"layer_types": ["full_attention", "sliding_attention"]})"},
      {"Gemma2ForCausalLM", "head_dim", "{}"},
      {"Gemma2ForCausalLM", "layer_types", R"({"head_dim": 16, "layer_types": ["full_attention"]})"},
      {"Gemma2ForCausalLM", "attn_logit_softcapping", R"({"head_dim": 16, "attn_logit_softcapping": -1})"},
      {"Gemma3ForCausalLM", "sliding_window_pattern", R"({"head_dim": 16, "sliding_window_pattern": 0})"},
      {"ChatGLMModel", "multi_query_group_num", R"({"multi_query_attention": true, "multi_query_group_num": 3})"},
      {"QWenLMHeadModel", "intermediate_size", R"({"intermediate_size": 97})"},
      {"FalconForCausalLM", "num_kv_heads", R"({"new_decoder_architecture": true, "num_kv_heads": 3})"},
      {"MiniCPMForCausalLM", "scale_emb", R"({"scale_emb": 0})"},
      {"InternLM2ForCausalLM", "num_key_value_heads", R"({"num_key_value_heads": 3})"},
      {"MistralForCausalLM", "sliding_window", R"({"sliding_window": -1})"}};
  for (const Case& one : cases) {
    const Status status = read_class(one.architecture, one.patch).status();
    EXPECT_EQ(status.code(), StatusCode::kCorrupt) << one.architecture << " " << status.message();
    EXPECT_NE(status.message().find(std::string(": ") + one.field + ": "), std::string::npos) << status.message();
  }
}

TEST(Family, AbsentAndNullWindowsDiffer) {
  EXPECT_EQ(read_class("MistralForCausalLM", "{}")->layers[1].window, 4096);
  EXPECT_EQ(read_class("MistralForCausalLM", R"({"sliding_window": 7})")->layers[0].window, 7);
  FakeCheckpoint checkpoint;
  checkpoint.has_every_tensor = true;
  checkpoint.config_value =
      Json::parse(R"({"architectures": ["MistralForCausalLM"], "vocab_size": 100, "hidden_size": 64,
      "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4, "sliding_window": null})");
  EXPECT_EQ(read_decoder_spec(checkpoint)->layers[0].window, 0);
}

TEST(Family, LayersSlideAsTheirFamiliesDo) {
  const auto gemma2 = read_class("Gemma2ForCausalLM", R"({"head_dim": 16, "sliding_window": 9})");
  EXPECT_EQ(gemma2->layers[0].window, 9);
  EXPECT_EQ(gemma2->layers[1].window, 0);
  const auto gemma3 =
      read_class("Gemma3ForCausalLM", R"({"head_dim": 16, "sliding_window": 9, "num_hidden_layers": 7})");
  EXPECT_EQ(gemma3->layers[4].window, 9);
  EXPECT_EQ(gemma3->layers[5].window, 0);
  EXPECT_EQ(gemma3->layers[4].rope, 1);
  EXPECT_EQ(gemma3->layers[5].rope, 0);
  const auto qwen =
      read_class("Qwen2ForCausalLM", R"({"use_sliding_window": true, "sliding_window": 9, "max_window_layers": 1})");
  EXPECT_EQ(qwen->layers[0].window, 0);
  EXPECT_EQ(qwen->layers[1].window, 9);
}

// Transformers 5 writes an object for each kind of layer; before, the fields stood beside each other.
TEST(Family, Gemma3ReadsBothSpellingsOfItsRopes) {
  for (const char* patch : {R"({"head_dim": 16, "rope_theta": 5e5, "rope_local_base_freq": 7e3,
            "rope_scaling": {"rope_type": "linear", "factor": 8}})",
                            R"({"head_dim": 16, "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8, "rope_theta": 5e5},
            "sliding_attention": {"rope_type": "default", "rope_theta": 7e3}}})"}) {
    const auto spec = read_class("Gemma3ForCausalLM", patch);
    ASSERT_TRUE(spec.ok()) << spec.status().message();
    EXPECT_EQ(spec->ropes[0].kind, RopeKind::kLinear);
    EXPECT_EQ(spec->ropes[0].theta, 5e5);
    EXPECT_EQ(spec->ropes[1].kind, RopeKind::kDefault);
    EXPECT_EQ(spec->ropes[1].theta, 7e3);
  }
}

TEST(Family, BaichuanTellsItsSizesApart) {
  const auto alibi = read_class("BaichuanForCausalLM", R"({"max_position_embeddings": null, "model_max_length": 77})");
  ASSERT_TRUE(alibi.ok()) << alibi.status().message();
  EXPECT_EQ(alibi->alibi_slopes.size(), 4U);
  EXPECT_EQ(alibi->layers[0].rope, -1);
  EXPECT_EQ(alibi->max_position, 77);
  EXPECT_FALSE(alibi->normalize_head);
  const char* big =
      R"({"hidden_size": 5120, "num_attention_heads": 40, "num_key_value_heads": 40, "vocab_size": 125696})";
  for (const CheckpointKind kind : {CheckpointKind::kFolder, CheckpointKind::kGguf}) {
    const auto spec = read_class("BaichuanForCausalLM", big, kind);
    EXPECT_EQ(spec->alibi_slopes.size(), 40U);
    EXPECT_TRUE(spec->normalize_head);
  }
  EXPECT_TRUE(read_class("BaichuanForCausalLM", R"({"hidden_size": 4096})")->alibi_slopes.empty());
}

TEST(Family, FusedRowsLieInTheirTensor) {
  const auto spec = read_class("InternLM2ForCausalLM", R"({"num_key_value_heads": 2})");
  ASSERT_TRUE(spec.ok()) << spec.status().message();
  const LayerSpec& layer = spec->layers[1];
  EXPECT_EQ(layer.q.weight, "model.layers.1.attention.wqkv.weight");
  EXPECT_EQ(layer.q.slice->tensor_rows, 128);
  EXPECT_EQ(layer.k.slice->first, 32);
  EXPECT_EQ(layer.v.slice->first, 48);
  EXPECT_EQ(layer.v.slice->stride, 64);
}

}  // namespace
}  // namespace lanner::model::arch
