#pragma once
// The architectures that can be read: one file beside this one and one line here for each.

#include <array>
#include <string_view>

#include "lanner/status.h"
#include "model/checkpoint.h"
#include "model/decoder_spec.h"
#include "model/json_reader.h"

namespace lanner::model::arch {

/// Fills a spec in from the configuration. read_decoder_spec() checks the result against limits and tensors; this
/// only has to check what it computes with, and to refuse features of the family that are not implemented.
using ReadSpec = Result<DecoderSpec> (*)(const Checkpoint& checkpoint, const JsonFields& config);

Result<DecoderSpec> read_baichuan(const Checkpoint& checkpoint, const JsonFields& config);
Result<DecoderSpec> read_chatglm(const Checkpoint& checkpoint, const JsonFields& config);
Result<DecoderSpec> read_falcon(const Checkpoint& checkpoint, const JsonFields& config);
Result<DecoderSpec> read_gemma(const Checkpoint& checkpoint, const JsonFields& config);
Result<DecoderSpec> read_gemma2(const Checkpoint& checkpoint, const JsonFields& config);
Result<DecoderSpec> read_gemma3(const Checkpoint& checkpoint, const JsonFields& config);
Result<DecoderSpec> read_glm(const Checkpoint& checkpoint, const JsonFields& config);
Result<DecoderSpec> read_glm4(const Checkpoint& checkpoint, const JsonFields& config);
Result<DecoderSpec> read_internlm(const Checkpoint& checkpoint, const JsonFields& config);
Result<DecoderSpec> read_internlm2(const Checkpoint& checkpoint, const JsonFields& config);
Result<DecoderSpec> read_internlm3(const Checkpoint& checkpoint, const JsonFields& config);
Result<DecoderSpec> read_llama(const Checkpoint& checkpoint, const JsonFields& config);
Result<DecoderSpec> read_minicpm(const Checkpoint& checkpoint, const JsonFields& config);
Result<DecoderSpec> read_mistral(const Checkpoint& checkpoint, const JsonFields& config);
Result<DecoderSpec> read_phi3(const Checkpoint& checkpoint, const JsonFields& config);
Result<DecoderSpec> read_qwen(const Checkpoint& checkpoint, const JsonFields& config);
Result<DecoderSpec> read_qwen2(const Checkpoint& checkpoint, const JsonFields& config);
Result<DecoderSpec> read_qwen3(const Checkpoint& checkpoint, const JsonFields& config);

struct Architecture {
  std::string_view name;        // as in config.json's architectures
  std::string_view model_type;  // for a config.json without architectures
  ReadSpec read;
  std::string_view gguf;     // general.architecture of its GGUF files; empty: none that are read
  std::string_view checked;  // what its logits were compared with; docs/models.md has the rest
};

// What `checked` says. Models of Transformers are compared with it, the others with tests/model/remote_models.py, which
// was written from the code that is published with their checkpoints.
inline constexpr std::string_view kRealModel = "the real SmolLM2-135M and tiny models against Transformers";
inline constexpr std::string_view kTransformers = "tiny models against Transformers";
inline constexpr std::string_view kPublishedCode = "tiny models against the published code's formulas";

inline constexpr std::array kArchitectures{
    Architecture{"LlamaForCausalLM", "llama", read_llama, "llama", kRealModel},
    Architecture{"MistralForCausalLM", "mistral", read_mistral, "llama", kTransformers},
    Architecture{"QWenLMHeadModel", "qwen", read_qwen, "qwen", kPublishedCode},
    Architecture{"Qwen2ForCausalLM", "qwen2", read_qwen2, "qwen2", kTransformers},
    Architecture{"Qwen3ForCausalLM", "qwen3", read_qwen3, "qwen3", kTransformers},
    Architecture{"InternLMForCausalLM", "internlm", read_internlm, "", kPublishedCode},
    Architecture{"InternLM2ForCausalLM", "internlm2", read_internlm2, "internlm2", kPublishedCode},
    Architecture{"InternLM3ForCausalLM", "internlm3", read_internlm3, "llama", kTransformers},
    Architecture{"BaichuanForCausalLM", "baichuan", read_baichuan, "baichuan", kPublishedCode},
    Architecture{"BaiChuanForCausalLM", "baichuan", read_baichuan, "baichuan", kPublishedCode},
    Architecture{"ChatGLMModel", "chatglm", read_chatglm, "chatglm", kPublishedCode},
    Architecture{"ChatGLMForConditionalGeneration", "chatglm", read_chatglm, "chatglm", kPublishedCode},
    Architecture{"GlmForCausalLM", "glm", read_glm, "chatglm", kTransformers},
    Architecture{"Glm4ForCausalLM", "glm4", read_glm4, "glm4", kTransformers},
    Architecture{"GemmaForCausalLM", "gemma", read_gemma, "gemma", kTransformers},
    Architecture{"Gemma2ForCausalLM", "gemma2", read_gemma2, "gemma2", kTransformers},
    Architecture{"Gemma3ForCausalLM", "gemma3_text", read_gemma3, "gemma3", kTransformers},
    Architecture{"Phi3ForCausalLM", "phi3", read_phi3, "phi3", kTransformers},
    Architecture{"FalconForCausalLM", "falcon", read_falcon, "falcon", kTransformers},
    Architecture{"MiniCPMForCausalLM", "minicpm", read_minicpm, "minicpm", kPublishedCode},
};

}  // namespace lanner::model::arch
