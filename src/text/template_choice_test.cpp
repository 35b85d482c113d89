#include "text/template_choice.h"

#include <gtest/gtest.h>

#include "text/template_pieces.h"

namespace lanner {
namespace {

struct Case {
  std::string_view path;
  std::string_view name;
};

TEST(TemplateChoice, GoesByWordsInThePath) {
  // The answers of LMDeploy 0.9.2 for these paths, but for the last three, which it does not know.
  const Case cases[] = {
      {"/root/internlm2-chat-1_8b", "internlm2"},
      {"InternLM/InternLM2_5-7B-Chat", "internlm2"},
      {"internlm/internlm3-8b-instruct", "internlm2"},
      {"internlm/internlm-chat-7b", "internlm"},
      {"internlm/internlm2-7b", ""},
      {"liuhaotian/llava-v1.6-vicuna-7b", "llava-v1"},
      {"liuhaotian/llava-v1.6-34b", "llava-chatml"},
      {"liuhaotian/llava-v1.6-mistral-7b", "mistral"},
      {"lmsys/vicuna-7b-v1.5", "vicuna"},
      {"meta-llama/Llama-2-7b-chat-hf", "llama2"},
      {"meta-llama/Meta-Llama-3-8B-Instruct", "llama3"},
      {"meta-llama/Llama-3.2-1B-Instruct", "llama3_1"},
      {"codellama/CodeLlama-7b-Instruct-hf", "codellama"},
      {"Qwen/Qwen-7B-Chat", "qwen"},
      {"Qwen/Qwen2.5-0.5B-Instruct", "qwen2d5"},
      {"Qwen/Qwen2.5-VL-3B-Instruct", "qwen2d5-vl"},
      {"Qwen/QwQ-32B", "qwq"},
      {"Qwen/QwQ-32B-Preview", "qwq_preview"},
      {"Qwen/Qwen3-0.6B", "qwen3"},
      {"mistralai/Mixtral-8x7B-Instruct-v0.1", "mistral"},  // the same template
      {"google/gemma-2-2b-it", "gemma"},
      {"microsoft/Phi-3-mini-4k-instruct", "phi-3"},
      {"THUDM/chatglm3-6b", "chatglm3"},
      {"baichuan-inc/Baichuan2-7B-Chat", "baichuan2"},
      {"01-ai/Yi-6B-Chat", "yi"},
      {"OpenGVLab/InternVL2-2B", "internvl2-internlm2"},
      {"OpenGVLab/InternVL2_5-2B", "internvl2_5"},
      {"/models/qwen/some-llama", "qwen"},  // a folder above counts
      {"/models/SmolLM2", ""},
      {"meta-llama/Llama-3.3-70B-Instruct", "llama3_1"},
      {"CohereForAI/c4ai-command-r-v01", "cohere"},
      {"openbmb/MiniCPM-2B-sft-bf16", "minicpm"},
  };
  for (const Case& one : cases) EXPECT_EQ(builtin_template_for(one.path, ""), one.name) << one.path;
}

TEST(TemplateChoice, GoesByTheArchitectureWhereThePathSaysNothing) {
  EXPECT_EQ(builtin_template_for("/m", "InternLM2ForCausalLM"), "internlm2");
  EXPECT_EQ(builtin_template_for("/m/vicuna", "InternLM2ForCausalLM"), "vicuna");
  EXPECT_EQ(builtin_template_for("/m", "LlamaForCausalLM"), "");
}

TEST(TemplateChoice, EveryBuiltInNameIsFoundByItself) {
  for (const TemplatePieces& pieces : builtin_templates()) {
    for (const std::string& name : pieces.names) {
      const Result<TemplatePieces> found = find_builtin_template(name);
      ASSERT_TRUE(found.ok()) << name;
      EXPECT_EQ(found->names, pieces.names) << name;
    }
  }
  for (const std::string_view path : {"internlm2-chat", "llava-v1", "phi-4-instruct", "ultralm", "minicpm3-4b"}) {
    EXPECT_TRUE(find_builtin_template(builtin_template_for(path, "")).ok()) << path;
  }
}

}  // namespace
}  // namespace lanner
