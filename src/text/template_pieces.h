#pragma once
// Chat templates made of fixed pieces around each message: the built-in ones, and those users write as JSON.
//
//   {begin} {system}{meta_instruction}{eosys} { {round}{user}Q{eoh} {assistant}A{eoa}{separator} }… {open_answer}
//
// A built-in template is one row of data in builtin_templates.cpp. Values and pure functions: no ownership or thread
// rules. ChatTemplate (chat_template.h) is what the rest of the program uses; docs/chat-templates.md is for users.

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lanner/status.h"

namespace lanner {

struct ChatTemplateInputs;

/// Deeper messages are refused: writing JSON is recursive, here and in the library of the templates.
inline constexpr int kMaxTemplateInputDepth = 64;
/// Whether lists and objects lie in each other more than `levels` deep.
bool deeper_than(const nlohmann::ordered_json& value, int levels);

/// How a family writes the list of tools and the model's calls.
enum class ToolForm {
  kNone,        // it has no form for them
  kPluginTurn,  // InternLM2: a system turn of the plugin holds the list; calls stand behind <|action_start|>
  kInSystem,    // Qwen: {tools}, a line a tool, {eotools} end the system text; calls stand in <tool_call>
};

struct TemplatePieces {
  std::vector<std::string> names{};  // the first one is shown in lists
  std::string begin{};               // in front of everything
  std::string system{};
  std::optional<std::string> meta_instruction{};  // system text when the messages bring none; unset: no system turn
  std::string eosys{};
  std::string user{};
  std::string eoh{};
  std::string assistant{};
  std::string eoa{};
  std::string separator{};            // between an answer and the next question
  std::optional<std::string> tool{};  // unset: the template has no form for results of tools
  std::string eotool{};
  ToolForm tool_form = ToolForm::kNone;
  std::string tools{};                       // kInSystem: in front of the list
  std::string eotools{};                     // behind it
  std::string round{};                       // in front of each question; {} becomes its number, from 1
  std::optional<std::string> open_answer{};  // opens the answer to be written; unset: as assistant
  std::string no_thinking{};                 // follows it where the variable enable_thinking is false
  bool system_inside_user = false;           // the system text stands at the beginning of the first user turn
  std::vector<std::string> stop_words{};
};

/// All built-in templates.
const std::vector<TemplatePieces>& builtin_templates();
/// kNotFound, with the nearest names, for an unknown name.
Result<TemplatePieces> find_builtin_template(std::string_view name);
/// LMDeploy's JSON form: "model_name" names the template to start from, the other keys replace its pieces.
Result<TemplatePieces> template_pieces_from_json(std::string_view json, std::string_view origin);
/// An assistant message at the end stays open, to be continued, when inputs.add_generation_prompt is set.
Result<std::string> render_pieces(const TemplatePieces& pieces, const ChatTemplateInputs& inputs);

}  // namespace lanner
