// The built-in chat templates, as data. Facts from the models' own documentation and from LMDeploy 0.3.
#include <algorithm>
#include <string>

#include <fmt/format.h>

#include "text/template_pieces.h"

namespace lanner {
namespace {

constexpr const char* kInternlmMeta =
    "You are an AI assistant whose name is InternLM (书生·浦语).\n"
    "- InternLM (书生·浦语) is a conversational language model that is developed by Shanghai AI Laboratory "
    "(上海人工智能实验室). It is designed to be helpful, honest, and harmless.\n"
    "- InternLM (书生·浦语) can understand and communicate fluently in the language chosen by the user such as "
    "English and 中文.\n";

constexpr const char* kLlama2Meta =
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe. "
    "Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. "
    "Please ensure that your responses are socially unbiased and positive in nature.\n\n"
    "If a question does not make any sense, or is not factually coherent, explain why instead of answering "
    "something not correct. If you don't know the answer to a question, please don't share false information.";

constexpr const char* kVicunaMeta =
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions.";

// The turns that ChatML, Qwen and InternLM2 share.
TemplatePieces chatml(std::vector<std::string> names, std::optional<std::string> meta) {
  return {.names = std::move(names),
          .system = "<|im_start|>system\n",
          .meta_instruction = std::move(meta),
          .eosys = "<|im_end|>\n",
          .user = "<|im_start|>user\n",
          .eoh = "<|im_end|>\n",
          .assistant = "<|im_start|>assistant\n",
          .eoa = "<|im_end|>",
          .separator = "\n",
          .tool = "<|im_start|>tool\n",
          .eotool = "<|im_end|>\n",
          .stop_words = {"<|im_end|>"}};
}

TemplatePieces internlm2() {
  TemplatePieces pieces = chatml({"internlm2", "internlm2-chat", "internlm2_5", "internlm3"}, kInternlmMeta);
  pieces.tool = "<|im_start|>environment\n";
  pieces.tools = "<|im_start|>system name=<|plugin|>\n";
  pieces.eotools = "<|im_end|>\n";
  pieces.stop_words = {"<|im_end|>", "<|action_end|>"};
  return pieces;
}

TemplatePieces qwen() {
  TemplatePieces pieces = chatml({"qwen", "qwen2"}, "You are a helpful assistant.");
  pieces.tool = "<|im_start|>user\n<tool_response>\n";
  pieces.eotool = "\n</tool_response><|im_end|>\n";
  return pieces;
}

TemplatePieces internlm() {
  return {.names = {"internlm", "internlm-chat"},
          .system = "<|System|>:",
          .meta_instruction = kInternlmMeta,
          .eosys = "\n",
          .user = "<|User|>:",
          .eoh = "\n",
          .assistant = "<|Bot|>:",
          .eoa = "<eoa>",
          .separator = "\n",
          .stop_words = {"<eoa>"}};
}

TemplatePieces llama2() {
  return {.names = {"llama2", "llama-2", "llama-2-chat"},
          .system = "[INST] <<SYS>>\n",
          .meta_instruction = kLlama2Meta,
          .eosys = "\n<</SYS>>\n\n",
          .assistant = " [/INST] ",
          .eoa = "</s>",
          .separator = "<s>[INST] "};
}

TemplatePieces llama3() {
  return {.names = {"llama3", "llama-3", "llama-3-instruct"},
          .begin = "<|begin_of_text|>",
          .system = "<|start_header_id|>system<|end_header_id|>\n\n",
          .eosys = "<|eot_id|>",
          .user = "<|start_header_id|>user<|end_header_id|>\n\n",
          .eoh = "<|eot_id|>",
          .assistant = "<|start_header_id|>assistant<|end_header_id|>\n\n",
          .eoa = "<|eot_id|>",
          .tool = "<|start_header_id|>ipython<|end_header_id|>\n\n",
          .eotool = "<|eot_id|>",
          .stop_words = {"<|eot_id|>", "<|end_of_text|>"}};
}

TemplatePieces mistral() {
  return {.names = {"mistral", "mixtral"},
          .eosys = "\n\n",
          .user = "[INST] ",
          .eoh = " [/INST]",
          .eoa = "</s>",
          .system_inside_user = true};
}

TemplatePieces vicuna() {
  return {.names = {"vicuna"},
          .meta_instruction = kVicunaMeta,
          .eosys = " ",
          .user = "USER: ",
          .eoh = " ",
          .assistant = "ASSISTANT: ",
          .eoa = "</s>",
          .stop_words = {"</s>"}};
}

TemplatePieces gemma() {
  return {.names = {"gemma", "gemma2"},
          .eosys = "\n\n",
          .user = "<start_of_turn>user\n",
          .eoh = "<end_of_turn>\n",
          .assistant = "<start_of_turn>model\n",
          .eoa = "<end_of_turn>\n",
          .system_inside_user = true,
          .stop_words = {"<end_of_turn>"}};
}

TemplatePieces phi3() {
  return {.names = {"phi-3", "phi3"},
          .system = "<|system|>\n",
          .eosys = "<|end|>\n",
          .user = "<|user|>\n",
          .eoh = "<|end|>\n",
          .assistant = "<|assistant|>\n",
          .eoa = "<|end|>\n",
          .stop_words = {"<|end|>", "<|endoftext|>", "<|assistant|>"}};
}

// How many single-character changes turn one name into the other.
std::size_t edit_distance(std::string_view left, std::string_view right) {
  std::vector<std::size_t> row(right.size() + 1);
  for (std::size_t j = 0; j <= right.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= left.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= right.size(); ++j) {
      const std::size_t replaced = diagonal + (left[i - 1] == right[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

}  // namespace

const std::vector<TemplatePieces>& builtin_templates() {
  static const std::vector<TemplatePieces> kTemplates = {
      {.names = {"base"}},
      chatml({"chatml"}, std::nullopt),
      internlm(),
      internlm2(),
      llama2(),
      llama3(),
      qwen(),
      mistral(),
      vicuna(),
      gemma(),
      phi3(),
  };
  return kTemplates;
}

Result<TemplatePieces> find_builtin_template(std::string_view name) {
  const std::string_view shown = name.substr(0, 64);
  std::string nearest;
  std::string known;
  std::size_t best = shown.size() / 2 + 2;  // farther away is no help
  for (const TemplatePieces& pieces : builtin_templates()) {
    known += fmt::format("{}{}", known.empty() ? "" : ", ", pieces.names.front());
    for (const std::string& candidate : pieces.names) {
      if (candidate == name) return pieces;
      const std::size_t distance = edit_distance(shown, candidate);
      if (distance >= best) continue;
      best = distance;
      nearest = candidate;
    }
  }
  const std::string hint = nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest);
  return Status(StatusCode::kNotFound, fmt::format("no chat template '{}'{} (built in: {})", shown, hint, known));
}

}  // namespace lanner
