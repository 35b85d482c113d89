// The built-in chat templates, as data. Facts from the models' own documentation and from LMDeploy 0.3 and 0.9.
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

constexpr const char* kXcomposerMeta =
    "You are an AI assistant whose name is InternLM-XComposer (浦语·灵笔).\n"
    "- InternLM-XComposer (浦语·灵笔) is a multi-modality conversational language model that is developed by Shanghai "
    "AI "
    "Laboratory (上海人工智能实验室). It is designed to be helpful, honest, and harmless.\n"
    "- InternLM-XComposer (浦语·灵笔) can understand and communicate fluently in the language chosen by the user such "
    "as "
    "English and 中文.\n"
    "- InternLM-XComposer (浦语·灵笔) is capable of comprehending and articulating responses effectively based on the "
    "provided image.";

constexpr const char* kInternvl2Meta =
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。";

constexpr const char* kInternvl25Meta =
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。";

constexpr const char* kLlama2Meta =
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe. "
    "Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. "
    "Please ensure that your responses are socially unbiased and positive in nature.\n\n"
    "If a question does not make any sense, or is not factually coherent, explain why instead of answering "
    "something not correct. If you don't know the answer to a question, please don't share false information.";

constexpr const char* kLlama31Meta =
    "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\nYou are a helpful assistant.";

constexpr const char* kVicunaMeta =
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions.";

constexpr const char* kLlavaMeta =
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the human's questions.";

constexpr const char* kUltraMeta =
    "A one-turn chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "very detailed, and polite answers to the user's questions.";

constexpr const char* kDeepseekVlMeta =
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language.";

constexpr const char* kDeepseekCoderMeta =
    "You are an AI programming assistant, utilizing the Deepseek Coder model, developed by Deepseek Company, and you "
    "only answer questions related to computer science. For politically sensitive questions, security and privacy "
    "issues, and other non-computer science questions, you will refuse to answer\n";

constexpr const char* kYiVlMeta =
    "This is a chat between an inquisitive human and an AI assistant. Assume the role of the AI assistant. Read all "
    "the images carefully, and respond to the human's questions with informative, helpful, detailed and polite "
    "answers. "
    "这是一个好奇的人类和一个人工智能助手之间的对话。假设你扮演这个AI助手的角色。仔细阅读所有的图像，并对人类的问题做出"
    "信息"
    "丰富、有帮助、详细的和礼貌的回答。\n\n";

constexpr const char* kCodegeexMeta =
    "你是一位智能编程助手，你叫CodeGeeX。你会为用户回答关于编程、代码、计算机方面的任何问题，并提供格式规范、可以执行、"
    "准"
    "确安全的代码，并在必要时提供详细的解释。";

constexpr const char* kQwenTools =
    "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with "
    "function "
    "signatures within <tools></tools> XML tags:\n<tools>";
constexpr const char* kQwenToolsEnd =
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n"
    "</tool_call>";

constexpr const char* kDeepseekEnd = "<｜end▁of▁sentence｜>";

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

TemplatePieces internlm2(std::vector<std::string> names, std::string meta) {
  TemplatePieces pieces = chatml(std::move(names), std::move(meta));
  pieces.tool = "<|im_start|>environment\n";
  pieces.tool_form = ToolForm::kPluginTurn;
  pieces.stop_words = {"<|im_end|>", "<|action_end|>"};
  return pieces;
}

TemplatePieces internvl2() {
  TemplatePieces pieces = internlm2({"internvl2-internlm2"}, kInternvl2Meta);
  pieces.eosys = pieces.eoh = "<|im_end|>";
  pieces.separator.clear();
  pieces.stop_words = {"<|im_start|>", "<|im_end|>"};
  return pieces;
}

TemplatePieces qwen(std::vector<std::string> names, std::optional<std::string> meta) {
  TemplatePieces pieces = chatml(std::move(names), std::move(meta));
  pieces.tool = "<|im_start|>user\n<tool_response>\n";
  pieces.eotool = "\n</tool_response><|im_end|>\n";
  pieces.tool_form = ToolForm::kInSystem;
  pieces.tools = kQwenTools;
  pieces.eotools = kQwenToolsEnd;
  return pieces;
}

TemplatePieces qwq() {
  TemplatePieces pieces = qwen({"qwq"}, std::nullopt);
  pieces.open_answer = pieces.assistant + "<think>\n";
  return pieces;
}

TemplatePieces qwen3() {
  TemplatePieces pieces = qwen({"qwen3"}, std::nullopt);
  pieces.no_thinking = "<think>\n\n</think>\n\n";
  return pieces;
}

TemplatePieces yi() {
  TemplatePieces pieces = chatml({"yi"}, std::nullopt);
  pieces.stop_words = {"<|im_end|>", "<|endoftext|>"};
  return pieces;
}

TemplatePieces llava_chatml() {
  TemplatePieces pieces = chatml({"llava-chatml", "internvl-zh-hermes2"}, "Answer the questions.");
  pieces.eosys = pieces.eoh = "<|im_end|>";
  pieces.separator.clear();
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

TemplatePieces xcomposer2() {
  return {.names = {"internlm-xcomposer2", "internlm-xcomposer2d5"},
          .system = "[UNUSED_TOKEN_146]system\n",
          .meta_instruction = kXcomposerMeta,
          .eosys = "[UNUSED_TOKEN_145]\n",
          .user = "[UNUSED_TOKEN_146]user\n",
          .eoh = "[UNUSED_TOKEN_145]\n",
          .assistant = "[UNUSED_TOKEN_146]assistant\n",
          .eoa = "[UNUSED_TOKEN_145]\n",
          .separator = "\n",
          .stop_words = {"[UNUSED_TOKEN_145]"}};
}

TemplatePieces llama2(std::vector<std::string> names, std::string meta) {
  return {.names = std::move(names),
          .system = "[INST] <<SYS>>\n",
          .meta_instruction = std::move(meta),
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

TemplatePieces llama3_1() {
  TemplatePieces pieces = llama3();
  pieces.names = {"llama3_1", "llama3_2", "llama3_3", "llama-3.1", "llama-3.2", "llama-3.3"};
  pieces.meta_instruction = kLlama31Meta;
  pieces.stop_words = {"<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"};
  return pieces;
}

TemplatePieces llama4() {
  return {.names = {"llama4"},
          .system = "<|header_start|>system<|header_end|>\n\n",
          .eosys = "<|eot|>",
          .user = "<|header_start|>user<|header_end|>\n\n",
          .eoh = "<|eot|>",
          .assistant = "<|header_start|>assistant<|header_end|>\n\n",
          .eoa = "<|eot|>",
          .stop_words = {"<|end_of_text|>", "<|eom|>", "<|eot|>"}};
}

TemplatePieces mistral() {
  return {.names = {"mistral", "mixtral"},
          .eosys = "\n\n",
          .user = "[INST] ",
          .eoh = " [/INST]",
          .eoa = "</s>",
          .system_inside_user = true};
}

// The answer that is to be written begins without the blank that stands in front of those before: its first token
// brings the blank along.
TemplatePieces vicuna(std::vector<std::string> names, std::string meta) {
  return {.names = std::move(names),
          .meta_instruction = std::move(meta),
          .eosys = " ",
          .user = "USER: ",
          .eoh = " ",
          .assistant = "ASSISTANT: ",
          .eoa = "</s>",
          .open_answer = "ASSISTANT:",
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

TemplatePieces phi3(std::vector<std::string> names, std::optional<std::string> meta) {
  return {.names = std::move(names),
          .system = "<|system|>\n",
          .meta_instruction = std::move(meta),
          .eosys = "<|end|>\n",
          .user = "<|user|>\n",
          .eoh = "<|end|>\n",
          .assistant = "<|assistant|>\n",
          .eoa = "<|end|>\n",
          .stop_words = {"<|end|>", "<|endoftext|>", "<|assistant|>"}};
}

TemplatePieces internvl_phi3() {
  TemplatePieces pieces = phi3({"internvl-phi3"}, "You are an AI assistant whose name is Phi-3.");
  pieces.eosys = pieces.eoh = pieces.eoa = "<|end|>";
  return pieces;
}

TemplatePieces baichuan2() { return {.names = {"baichuan2"}, .user = "<reserved_106>", .assistant = "<reserved_107>"}; }

TemplatePieces chatglm2() {
  return {.names = {"chatglm", "chatglm2"},
          .user = "问：",
          .eoh = "\n\n",
          .assistant = "答：",
          .eoa = "\n\n",
          .round = "[Round {}]\n\n"};
}

// ChatGLM3, GLM-4 and CodeGeeX4: nothing ends a turn but the next one's beginning.
TemplatePieces glm(std::vector<std::string> names, std::string begin, std::string_view after_role) {
  const auto turn = [&](std::string_view role) { return fmt::format("<|{}|>{}", role, after_role); };
  return {.names = std::move(names),
          .begin = std::move(begin),
          .system = turn("system"),
          .user = turn("user"),
          .assistant = turn("assistant"),
          .tool = turn("observation"),
          .stop_words = {"<|user|>", "<|endoftext|>", "<|observation|>"}};
}

TemplatePieces chatglm3() {
  TemplatePieces pieces = glm({"chatglm3"}, "[gMASK]sop", "\n ");
  pieces.stop_words = {"<eos>"};
  return pieces;
}

TemplatePieces codegeex4() {
  TemplatePieces pieces = glm({"codegeex4"}, "", "\n");
  pieces.meta_instruction = kCodegeexMeta;
  return pieces;
}

TemplatePieces deepseek(std::vector<std::string> names, std::optional<std::string> meta) {
  return {.names = std::move(names),
          .meta_instruction = std::move(meta),
          .eosys = "\n\n",
          .user = "User: ",
          .eoh = "\n\n",
          .assistant = "Assistant: ",
          .eoa = kDeepseekEnd,
          .open_answer = "Assistant:"};
}

TemplatePieces deepseek_vl2() {
  TemplatePieces pieces = deepseek({"deepseek-vl2"}, std::nullopt);
  pieces.eosys.clear();
  pieces.user = "<|User|>: ";
  pieces.assistant = "<|Assistant|>: ";
  pieces.open_answer = "<|Assistant|>:";
  return pieces;
}

TemplatePieces deepseek_v3(std::vector<std::string> names, std::string_view thinking) {
  const std::string assistant = "<｜Assistant｜>";
  return {.names = std::move(names),
          .begin = "<｜begin▁of▁sentence｜>",
          .user = "<｜User｜>",
          .assistant = assistant,
          .eoa = kDeepseekEnd,
          .open_answer = fmt::format("{}{}", assistant, thinking),
          .stop_words = {kDeepseekEnd}};
}

TemplatePieces deepseek_coder() {
  return {.names = {"deepseek-coder"},
          .meta_instruction = kDeepseekCoderMeta,
          .user = "### Instruction:\n",
          .eoh = "\n",
          .assistant = "### Response:\n",
          .eoa = "\n<|EOT|>",
          .separator = "\n",
          .stop_words = {"<|EOT|>"}};
}

TemplatePieces cohere() {
  return {.names = {"cohere", "command-r"},
          .begin = "<BOS_TOKEN>",
          .system = "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>",
          .eosys = "<|END_OF_TURN_TOKEN|>",
          .user = "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
          .eoh = "<|END_OF_TURN_TOKEN|>",
          .assistant = "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
          .eoa = "<|END_OF_TURN_TOKEN|>",
          .stop_words = {"<|END_OF_TURN_TOKEN|>"}};
}

TemplatePieces minicpm() { return {.names = {"minicpm"}, .user = "<用户>", .assistant = "<AI>"}; }

TemplatePieces cogvlm(std::string name, std::string end) {
  return {.names = {std::move(name)},
          .user = "Question: ",
          .eoh = " ",
          .assistant = "Answer:",
          .eoa = end,
          .separator = "\n",
          .stop_words = {end}};
}

TemplatePieces solar() {
  return {.names = {"solar"},
          .system = "### System:\n",
          .meta_instruction = "",
          .eosys = "\n\n",
          .user = "### User:\n",
          .eoh = "\n\n",
          .assistant = "### Assistant:\n"};
}

TemplatePieces ultra() {
  return {.names = {"ultracm", "ultralm"},
          .system = "User: ",
          .meta_instruction = kUltraMeta,
          .eosys = "</s>\n",
          .user = "User: ",
          .eoh = "</s>\n",
          .assistant = "Assistant: ",
          .eoa = "</s>",
          .separator = "\n",
          .stop_words = {"</s>"}};
}

TemplatePieces yi_vl() {
  return {.names = {"yi-vl"},
          .meta_instruction = kYiVlMeta,
          .user = "### Human: ",
          .eoh = "\n",
          .assistant = "### Assistant:",
          .eoa = "\n",
          .stop_words = {"###"}};
}

TemplatePieces internvl_zh() {
  return {.names = {"internvl-zh"},
          .user = "<human>: ",
          .eoh = " ",
          .assistant = "<bot>: ",
          .eoa = "</s>",
          .open_answer = "<bot>:"};
}

TemplatePieces molmo() {
  return {.names = {"molmo"},
          .user = " User: ",
          .assistant = " Assistant:",
          .separator = " ",
          .stop_words = {"<|endoftext|>"}};
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

std::vector<TemplatePieces> make_templates() {
  return {
      {.names = {"base", "llama", "puyu"}},
      chatml({"chatml"}, std::nullopt),
      internlm(),
      internlm2({"internlm2", "internlm2-chat", "internlm2_5", "internlm3"}, kInternlmMeta),
      internlm2({"internvl-internlm2"}, "You are an AI assistant whose name is InternLM (书生·浦语)."),
      internvl2(),
      internlm2({"internvl2_5", "internvl3"}, kInternvl25Meta),
      xcomposer2(),
      llama2({"llama2", "llama-2", "llama-2-chat"}, kLlama2Meta),
      llama2({"codellama"}, ""),
      llama3(),
      llama3_1(),
      llama4(),
      qwen({"qwen", "qwen2", "minicpm3", "minicpmv-2d6"}, "You are a helpful assistant."),
      qwen({"qwen2d5", "qwen2.5", "qwen2_5"}, "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
      qwen({"qwen2d5-vl"}, "You are a helpful assistant."),
      qwen({"qwq_preview"},
           "You are a helpful and harmless assistant. You are Qwen developed by Alibaba. You should think "
           "step-by-step."),
      qwq(),
      qwen3(),
      mistral(),
      vicuna({"vicuna", "wizardlm"}, kVicunaMeta),
      vicuna({"llava-v1"}, kLlavaMeta),
      llava_chatml(),
      gemma(),
      phi3({"phi-3", "phi3", "phi-4"}, std::nullopt),
      phi3({"internvl2-phi3"}, kInternvl2Meta),
      internvl_phi3(),
      baichuan2(),
      chatglm2(),
      chatglm3(),
      glm({"glm4", "glm-4"}, "[gMASK]<sop>", "\n"),
      codegeex4(),
      deepseek({"deepseek"}, std::nullopt),
      deepseek({"deepseek-vl"}, kDeepseekVlMeta),
      deepseek_vl2(),
      deepseek_v3({"deepseek-v3"}, ""),
      deepseek_v3({"deepseek-r1"}, "<think>\n"),
      deepseek_coder(),
      yi(),
      yi_vl(),
      minicpm(),
      cohere(),
      cogvlm("cogvlm", "</s>"),
      cogvlm("cogvlm2", "<|end_of_text|>"),
      internvl_zh(),
      solar(),
      ultra(),
      molmo(),
  };
}

}  // namespace

const std::vector<TemplatePieces>& builtin_templates() {
  static const std::vector<TemplatePieces> kTemplates = make_templates();
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
