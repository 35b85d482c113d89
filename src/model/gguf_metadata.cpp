#include "model/gguf_metadata.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "model/decoder_spec.h"
#include "model/gguf_blocks.h"
#include "model/gguf_vocabulary.h"
#include "model/tensor_view.h"

namespace lanner::model {
namespace {

struct NamePair {
  std::string_view gguf;
  std::string_view hugging_face;
};

// general.architecture and the class of Hugging Face whose file under arch/ reads it. Others keep their GGUF name,
// which is then unknown.
constexpr std::array<NamePair, 14> kArchitectures{{{"llama", "LlamaForCausalLM"},
                                                   {"baichuan", "BaichuanForCausalLM"},
                                                   {"chatglm", "ChatGLMModel"},
                                                   {"falcon", "FalconForCausalLM"},
                                                   {"gemma", "GemmaForCausalLM"},
                                                   {"gemma2", "Gemma2ForCausalLM"},
                                                   {"gemma3", "Gemma3ForCausalLM"},
                                                   {"glm4", "Glm4ForCausalLM"},
                                                   {"internlm2", "InternLM2ForCausalLM"},
                                                   {"minicpm", "MiniCPMForCausalLM"},
                                                   {"phi3", "Phi3ForCausalLM"},
                                                   {"qwen", "QWenLMHeadModel"},
                                                   {"qwen2", "Qwen2ForCausalLM"},
                                                   {"qwen3", "Qwen3ForCausalLM"}}};

// Behind "<architecture>."
constexpr std::array<NamePair, 21> kKeys{{{"block_count", "num_hidden_layers"},
                                          {"embedding_length", "hidden_size"},
                                          {"feed_forward_length", "intermediate_size"},
                                          {"attention.head_count", "num_attention_heads"},
                                          {"attention.head_count_kv", "num_key_value_heads"},
                                          {"attention.key_length", "head_dim"},
                                          {"attention.value_length", "gguf_value_length"},
                                          {"attention.layer_norm_epsilon", "layer_norm_epsilon"},
                                          {"attention.layer_norm_rms_epsilon", "rms_norm_eps"},
                                          {"attention.sliding_window", "sliding_window"},
                                          {"attention.sliding_window_pattern", "sliding_window_pattern"},
                                          {"attn_logit_softcapping", "attn_logit_softcapping"},
                                          {"final_logit_softcapping", "final_logit_softcapping"},
                                          {"embedding_scale", "scale_emb"},
                                          {"residual_scale", "gguf_residual_scale"},
                                          {"logit_scale", "gguf_logit_scale"},
                                          {"context_length", "max_position_embeddings"},
                                          {"rope.freq_base", "rope_theta"},
                                          {"rope.freq_base_swa", "rope_local_base_freq"},
                                          {"expert_count", "num_local_experts"},
                                          {"expert_used_count", "num_experts_per_tok"}}};

// Behind "<architecture>.", in rope_scaling
constexpr std::array<NamePair, 5> kScalingKeys{
    {{"rope.scaling.factor", "factor"},
     {"rope.scaling.original_context_length", "original_max_position_embeddings"},
     {"rope.scaling.attn_factor", "gguf_attn_factor"},
     {"rope.scaling.yarn_beta_fast", "beta_fast"},
     {"rope.scaling.yarn_beta_slow", "beta_slow"}}};

// Behind "<architecture>.", read by functions of their own
constexpr std::array<NamePair, 3> kDerivedKeys{{{"rope.dimension_count", "partial_rotary_factor"},
                                                {"rope.dimension_sections", "mrope_section"},
                                                {"rope.scaling.type", "rope_type"}}};

// Tensors of LongRoPE, in rope_scaling
constexpr std::array<NamePair, 2> kLongRopeTensors{
    {{"rope_factors_short.weight", "short_factor"}, {"rope_factors_long.weight", "long_factor"}}};

constexpr std::array<NamePair, 4> kTokenKeys{{{"bos_token_id", "bos_token_id"},
                                              {"eos_token_id", "eos_token_id"},
                                              {"padding_token_id", "pad_token_id"},
                                              {"unknown_token_id", "unk_token_id"}}};

// Tokens that end a turn in the templates of today's families. A GGUF file names one or two ids; the rest of the
// list that generation_config.json would give is found by their text among its control tokens.
constexpr std::array<std::string_view, 5> kTurnEnds{"<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>",
                                                    "<end_of_turn>"};

const GgufValue* find(const Gguf& gguf, std::string_view key) {
  const auto found = gguf.metadata.find(key);
  return found == gguf.metadata.end() ? nullptr : &found->second;
}

/// A float32 that was a decimal such as 1e-5 once: six digits bring that decimal back.
double from_float32(double value) {
  const std::string digits = fmt::format("{:.6g}", value);
  double result = value;  // stays for inf and nan, which range checks refuse
  std::from_chars(digits.data(), digits.data() + digits.size(), result);
  return result;
}

Result<Json> scalar_json(const Gguf& gguf, std::string_view key, const GgufValue& value) {
  if (const auto* number = std::get_if<std::uint64_t>(&value.value)) return Json(*number);
  if (const auto* number = std::get_if<std::int64_t>(&value.value)) return Json(*number);
  if (const auto* truth = std::get_if<bool>(&value.value)) return Json(*truth);
  if (const auto* number = std::get_if<double>(&value.value)) {
    return Json(value.type == GgufType::kF32 ? from_float32(*number) : *number);
  }
  if (const auto* text = std::get_if<std::string_view>(&value.value)) return Json(std::string(*text));
  return unsupported(fmt::format("{}: {}: differs from layer to layer", gguf.path, printable(key)));
}

Status copy_scalar(const Gguf& gguf, const std::string& key, std::string_view name, Json& out) {
  const GgufValue* value = find(gguf, key);
  if (value == nullptr) return {};
  LANNER_ASSIGN_OR_RETURN(out[std::string(name)], scalar_json(gguf, key, *value));
  return {};
}

Result<std::string> read_architecture(const Gguf& gguf) {
  const auto* name = metadata_value<std::string_view>(gguf, "general.architecture");
  if (name == nullptr) return corrupt(fmt::format("{}: general.architecture: is missing", gguf.path));
  return std::string(*name);
}

/// Rows of the embedding: the ids that the model knows, at least as many as the vocabulary names.
Status add_vocab_size(const Gguf& gguf, Json& config) {
  const auto* tokens = metadata_value<GgufArray>(gguf, "tokenizer.ggml.tokens");
  const auto embedding = gguf.tensors.find("token_embd.weight");
  if (embedding != gguf.tensors.end()) {
    const std::int64_t rows = embedding->second.shape.front();
    if (tokens != nullptr && tokens->count > rows) {
      return corrupt(fmt::format("{}: token_embd.weight: has {} rows for {} tokens", gguf.path, rows, tokens->count));
    }
    config["vocab_size"] = rows;
  } else if (tokens != nullptr) {
    config["vocab_size"] = tokens->count;
  }
  return {};
}

/// <architecture>.rope.dimension_count as the share of a head that rotates.
Status add_rotary_share(const Gguf& gguf, const std::string& prefix, Json& config) {
  const GgufValue* value = find(gguf, prefix + "rope.dimension_count");
  if (value == nullptr) return {};
  const JsonFields fields = gguf_config_fields(config, gguf.path);
  LANNER_ASSIGN_OR_RETURN(const auto hidden, fields.integer("hidden_size", 1, kMaxHidden));
  LANNER_ASSIGN_OR_RETURN(const auto heads, fields.integer("num_attention_heads", 1, kMaxHeads));
  LANNER_ASSIGN_OR_RETURN(const auto head_dim,
                          fields.integer_or("head_dim", 1, kMaxHeadDim, std::max<std::int64_t>(1, hidden / heads)));
  const auto* rotary = std::get_if<std::uint64_t>(&value->value);
  if (rotary == nullptr || *rotary < 1 || *rotary > static_cast<std::uint64_t>(head_dim)) {
    return corrupt(fmt::format("{}: {}rope.dimension_count: is not in 1..{}", gguf.path, printable(prefix), head_dim));
  }
  if (*rotary != static_cast<std::uint64_t>(head_dim)) {
    config["partial_rotary_factor"] = static_cast<double>(*rotary) / static_cast<double>(head_dim);
  }
  return {};
}

/// LongRoPE: its lists are tensors, and llama.cpp's factor of the attention is the one of Transformers.
Status add_longrope(const Gguf& gguf, Json& scaling) {
  scaling["rope_type"] = "longrope";
  if (const auto found = scaling.find("gguf_attn_factor"); found != scaling.end()) {
    scaling["attention_factor"] = *found;
    scaling.erase("gguf_attn_factor");
  }
  for (const auto& [tensor_name, name] : kLongRopeTensors) {
    const auto found = gguf.tensors.find(tensor_name);
    if (found == gguf.tensors.end()) continue;
    const GgufTensor& tensor = found->second;
    const std::string where = fmt::format("{}: {}", gguf.path, tensor_name);
    LANNER_ASSIGN_OR_RETURN(const auto format, gguf_format(tensor.type, where));
    if (ops::is_quantized(format)) return unsupported(where + ": is not a dense tensor");
    if (tensor.shape.size() != 1 || tensor.shape.front() > kMaxHeadDim / 2) {
      return corrupt(where + ": is not a factor for each pair of a head");
    }
    LANNER_ASSIGN_OR_RETURN(const auto factors, widen(where, format, tensor.bytes.data(), tensor.shape.front()));
    scaling[std::string(name)] = factors;
  }
  return {};
}

Status add_rope_scaling(const Gguf& gguf, const std::string& prefix, Json& config) {
  const auto* kind = metadata_value<std::string_view>(gguf, prefix + "rope.scaling.type");
  // Phi-3's converter writes the lists and no type.
  const bool is_longrope = kind != nullptr ? *kind == "longrope" : gguf.tensors.contains(kLongRopeTensors.front().gguf);
  if (is_longrope || (kind != nullptr && *kind != "none")) {
    Json scaling = Json::object();
    scaling["rope_type"] = kind == nullptr ? "longrope" : std::string(*kind);
    for (const auto& [key, name] : kScalingKeys) {
      LANNER_RETURN_IF_ERROR(copy_scalar(gguf, prefix + std::string(key), name, scaling));
    }
    if (is_longrope) LANNER_RETURN_IF_ERROR(add_longrope(gguf, scaling));
    config["rope_scaling"] = std::move(scaling);
    return {};
  }
  // Files from before rope.scaling.type existed.
  const auto* factor = metadata_value<double>(gguf, prefix + "rope.scale_linear");
  if (kind == nullptr && factor != nullptr && *factor != 1.0) {
    config["rope_scaling"] = Json{{"rope_type", "linear"}, {"factor", from_float32(*factor)}};
  }
  return {};
}

}  // namespace

Result<Json> gguf_config(const Gguf& gguf) {
  LANNER_ASSIGN_OR_RETURN(const std::string name, read_architecture(gguf));
  if (const auto* parts = metadata_value<std::uint64_t>(gguf, "split.count"); parts != nullptr && *parts > 1) {
    return unsupported(fmt::format("{}: split.count: one of {} parts; merge them with gguf-split", gguf.path, *parts));
  }
  Json config = Json::object();
  const auto* known = std::ranges::find(kArchitectures, name, &NamePair::gguf);
  config["architectures"] = Json::array({known == kArchitectures.end() ? name : std::string(known->hugging_face)});
  config["model_type"] = name;
  const std::string prefix = name + ".";
  for (const auto& [key, hugging_face] : kKeys) {
    LANNER_RETURN_IF_ERROR(copy_scalar(gguf, prefix + std::string(key), hugging_face, config));
  }
  for (const auto& [key, hugging_face] : kTokenKeys) {
    if (const auto id = gguf_token_id(gguf, key)) config[std::string(hugging_face)] = *id;
  }
  config["tie_word_embeddings"] = !gguf.tensors.contains("output.weight");
  LANNER_RETURN_IF_ERROR(add_vocab_size(gguf, config));
  LANNER_RETURN_IF_ERROR(add_rotary_share(gguf, prefix, config));
  LANNER_RETURN_IF_ERROR(add_rope_scaling(gguf, prefix, config));
  if (find(gguf, prefix + "rope.dimension_sections") != nullptr) config["mrope_section"] = true;
  return config;
}

JsonFields gguf_config_fields(const Json& config, const std::string& path) {
  FieldNames names{{"architectures", "general.architecture"}, {"vocab_size", "token_embd.weight"}};
  const auto architecture = config.find("model_type");
  if (architecture != config.end() && architecture->is_string()) {
    const std::string prefix = printable(architecture->get<std::string>()) + ".";
    const auto add = [&](std::span<const NamePair> pairs) {
      for (const auto& [gguf, hugging_face] : pairs) names.emplace(hugging_face, prefix + std::string(gguf));
    };
    add(kKeys);
    add(kScalingKeys);
    add(kDerivedKeys);
    for (const auto& [tensor, hugging_face] : kLongRopeTensors) names.emplace(hugging_face, tensor);
  }
  return {config, path, std::move(names)};
}

Result<Json> gguf_generation_config(const Gguf& gguf) {
  std::vector<std::int32_t> ids;
  const auto add = [&ids](std::int32_t id) {
    if (std::ranges::find(ids, id) == ids.end()) ids.push_back(id);
  };
  for (const char* name : {"eos_token_id", "eot_token_id", "eom_token_id"}) {
    if (const auto id = gguf_token_id(gguf, name)) add(*id);
  }
  Result<std::vector<std::string_view>> tokens = gguf_tokens(gguf);
  if (!tokens.ok() && tokens.status().code() != StatusCode::kNotFound) return tokens.status();
  LANNER_ASSIGN_OR_RETURN(const auto types, gguf_token_types(gguf));
  if (tokens.ok()) {
    const std::size_t count = std::min(types.size(), tokens->size());
    for (std::size_t id = 0; id < count; ++id) {
      if (types[id] != static_cast<std::int32_t>(PieceType::kControl)) continue;
      if (std::ranges::find(kTurnEnds, (*tokens)[id]) != kTurnEnds.end()) add(static_cast<std::int32_t>(id));
    }
  }
  Json config = Json::object();
  if (!ids.empty()) config["eos_token_id"] = ids;
  return config;
}

SpecialTokens gguf_special_tokens(const Gguf& gguf) {
  SpecialTokens special;
  const Result<std::vector<std::string_view>> tokens = gguf_tokens(gguf);
  if (!tokens.ok()) return special;
  const auto text = [&](std::string_view name) {
    const auto id = gguf_token_id(gguf, name);
    if (!id || static_cast<std::size_t>(*id) >= tokens->size()) return std::string();
    return std::string((*tokens)[static_cast<std::size_t>(*id)]);
  };
  special.bos = text("bos_token_id");
  special.eos = text("eos_token_id");
  special.unk = text("unknown_token_id");
  special.pad = text("padding_token_id");
  return special;
}

std::optional<std::string> gguf_chat_template(const Gguf& gguf) {
  const auto* source = metadata_value<std::string_view>(gguf, "tokenizer.chat_template");
  if (source == nullptr || source->empty()) return std::nullopt;
  return std::string(*source);
}

}  // namespace lanner::model
