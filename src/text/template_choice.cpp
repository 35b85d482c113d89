#include "text/template_choice.h"

#include "core/ascii.h"

#include <algorithm>
#include <string>

namespace lanner {
namespace {

/// All words of `all`, one of `any` (when there are any) and none of `none` stand in the path. Words are parted by '|'.
struct PathRule {
  std::string_view name;
  std::string_view all;
  std::string_view any{};
  std::string_view none{};
};

// LMDeploy 0.9's rules in its order: the first that matches is taken.
constexpr PathRule kPathRules[] = {
    {"deepseek-v3", "deepseek-v3"},
    {"deepseek-r1", "deepseek-r1", {}, "distill"},
    {"cogvlm", "cogvlm", {}, "cogvlm2"},
    {"cogvlm2", "cogvlm2"},
    {"vicuna", "vicuna", {}, "llava"},
    {"vicuna", "wizardlm"},
    {"llava-v1", "llava|v1", {}, "v1.6-34b|mistral"},
    {"llava-v1", "llava-1.5"},
    {"internlm", "internlm|chat", {}, "internlm3|internlm2|8k"},
    {"internlm2", "internlm2", "chat|math"},
    {"internlm2", "internlm3|instruct"},
    {"internvl-internlm2", "internvl|v1-5", {}, "4b"},
    {"internvl-internlm2", "chemvlm"},
    {"internvl2-internlm2", {}, "internvl2|mono-internvl", "internvl2-4b|internvl2.5|internvl2_5"},
    {"internvl2_5", {}, "internvl2.5|internvl2_5|internvl3"},
    {"internlm-xcomposer2", "internlm|xcomposer2"},
    {"baichuan2", "baichuan2|chat"},
    {"puyu", "puyu"},
    {"llama2", {}, "llama-2|llama2"},
    {"llama3", {}, "llama-3-|llama3-", "internvl2"},
    {"llama3_1", {}, "llama-3.1-|llama3.1-|llama-3.2-|llama3.2-|llama-3.3-"},
    {"qwen", "qwen", {}, "qwen2.5|qwen2_5|qwq|qwen3"},
    {"minicpm3", {}, "minicpm-v-2_6|minicpm3-"},
    {"qwen2d5", {}, "qwen2.5|qwen2_5", "vl"},
    {"qwen2d5-vl", "vl", "qwen2.5|qwen2_5"},
    {"qwq_preview", "qwq|preview"},
    {"qwq", "qwq"},
    {"qwen3", "qwen3"},
    {"codellama", "codellama"},
    {"chatglm", "chatglm2"},
    {"solar", "solar"},
    {"ultracm", {}, "ultracm|ultralm"},
    {"yi", "yi", {}, "vl"},
    {"mistral", "mistral", "instruct|llava"},
    {"mixtral", "mixtral", "instruct|llava"},
    {"gemma", "gemma"},
    {"deepseek", "deepseek|chat", {}, "vl"},
    {"internvl-zh", "internvl-chat|v1-1"},
    {"deepseek-vl2", "deepseek-vl2"},
    {"deepseek-vl", "deepseek-vl|chat"},
    {"deepseek-coder", "deepseek-coder"},
    {"yi-vl", "yi-vl"},
    {"llava-chatml", "llava|v1.6-34b"},
    {"llava-chatml", "internvl-chat|v1-2"},
    {"phi-3", "instruct", "phi-3|phi-4"},
    {"internvl2-phi3", "internvl2-4b"},
    {"chatglm3", "chatglm3"},
    {"glm4", "glm-4"},
    {"codegeex4", "codegeex4"},
    {"internvl-phi3", "mini-internvl-chat|4b|v1-5"},
    {"molmo", "molmo"},
    {"llama4", "llama-4"},
    // Beyond LMDeploy.
    {"cohere", {}, "command-r|c4ai-command|aya-23"},
    {"minicpm", "minicpm", {}, "vl|-v-"},
};

struct ArchitectureRule {
  std::string_view architecture;
  std::string_view name;
};

// Only where a family has one form of chat; a Llama may be anything.
constexpr ArchitectureRule kArchitectureRules[] = {
    {"InternLMForCausalLM", "internlm"},
    {"InternLM2ForCausalLM", "internlm2"},
    {"InternLM3ForCausalLM", "internlm2"},
    {"BaichuanForCausalLM", "baichuan2"},
    {"QWenLMHeadModel", "qwen"},
    {"Qwen2ForCausalLM", "qwen"},
    {"Qwen2MoeForCausalLM", "qwen"},
    {"Qwen2VLForConditionalGeneration", "qwen"},
    {"Qwen3ForCausalLM", "qwen3"},
    {"Qwen3MoeForCausalLM", "qwen3"},
    {"GemmaForCausalLM", "gemma"},
    {"Gemma2ForCausalLM", "gemma"},
    {"Phi3ForCausalLM", "phi-3"},
    {"CohereForCausalLM", "cohere"},
    {"DeepseekV3ForCausalLM", "deepseek-v3"},
    {"LlavaLlamaForCausalLM", "llava-v1"},
};

// Calls `each` with the words of a list until it answers true; says whether one did.
template <typename Each>
bool any_word(std::string_view words, Each each) {
  while (!words.empty()) {
    const std::size_t end = std::min(words.find('|'), words.size());
    if (each(words.substr(0, end))) return true;
    words.remove_prefix(std::min(end + 1, words.size()));
  }
  return false;
}

bool matches(const PathRule& rule, std::string_view path) {
  const auto stands = [&](std::string_view word) { return path.find(word) != std::string_view::npos; };
  const bool misses_one = any_word(rule.all, [&](std::string_view word) { return !stands(word); });
  return !misses_one && (rule.any.empty() || any_word(rule.any, stands)) && !any_word(rule.none, stands);
}

}  // namespace

std::string_view builtin_template_for(std::string_view model_path, std::string_view architecture) {
  const std::string path = lower_case(model_path);
  for (const PathRule& rule : kPathRules) {
    if (matches(rule, path)) return rule.name;
  }
  for (const ArchitectureRule& rule : kArchitectureRules) {
    if (rule.architecture == architecture) return rule.name;
  }
  return {};
}

}  // namespace lanner
