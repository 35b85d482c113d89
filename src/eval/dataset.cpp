#include "eval/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <optional>
#include <sstream>
#include <string_view>
#include <utility>

#include "core/mapped_file.h"
#include "core/user_folders.h"
#include "eval/json_lines.h"

namespace lanner::eval {
namespace {

namespace fs = std::filesystem;
using model::Json;

// Only wikitext2 ships with the program.
constexpr std::array<std::string_view, 4> kNamedSets{"wikitext2", "ptb", "c4", "pileval"};
constexpr std::int64_t kMaxBytes = std::int64_t{1} << 30;

bool is_within(const fs::path& path, const fs::path& folder) {
  const auto [end, unused] = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
  return end == folder.end();
}

Result<std::string> join_json_lines(const std::string& text, const std::string& path) {
  JsonLines lines(text, path);
  std::string joined;
  bool first = true;
  while (true) {
    LANNER_ASSIGN_OR_RETURN(const std::optional<Json> line, lines.next());
    if (!line) return joined;
    const std::string* part = string_member(*line, "text");
    if (part == nullptr) return corrupt(fmt::format("{}: not a JSON object with a string \"text\"", lines.where()));
    if (!first) joined += "\n\n";
    joined += *part;
    first = false;
  }
}

/// Whether templates can be given it: an object with a role and something that is said, or called.
Status check_message(const Json& message, const std::string& where) {
  const auto has = [&](const char* key, auto is) { return message.contains(key) && is(message[key]); };
  if (!message.is_object()) return corrupt(where + " is not an object");
  if (!has("role", [](const Json& role) { return role.is_string(); }))
    return corrupt(where + " has no string \"role\"");
  const bool says = has("content", [](const Json& content) { return content.is_string() || content.is_array(); });
  const bool calls = has("tool_calls", [](const Json& list) { return list.is_array(); });
  return says || calls ? Status() : corrupt(where + " has no string \"content\"");
}

Result<ChatTemplateInputs> conversation_of(const Json& line, const std::string& where) {
  if (!line.is_object() || !line.contains("messages")) {
    return corrupt(fmt::format("{}: not a JSON object with a string \"text\" or a list \"messages\"", where));
  }
  const Json& messages = line["messages"];
  if (!messages.is_array() || messages.empty()) {
    return corrupt(fmt::format("{}: \"messages\" is not a list of messages", where));
  }
  for (std::size_t i = 0; i < messages.size(); ++i) {
    LANNER_RETURN_IF_ERROR(check_message(messages[i], fmt::format("{}: messages[{}]", where, i)));
  }
  ChatTemplateInputs inputs;
  inputs.messages = messages;
  inputs.add_generation_prompt = false;
  if (!line.contains("tools")) return inputs;
  inputs.tools = line["tools"];
  if (inputs.tools.is_array() || inputs.tools.is_null()) return inputs;
  return corrupt(fmt::format("{}: \"tools\" is not a list", where));
}

/// The pieces of a .jsonl file.
class PieceReader {
 public:
  PieceReader(std::string path, const RenderConversation& render) : path_(std::move(path)), render_(render) {}

  Result<CalibrationSet> read(std::string_view text) {
    JsonLines lines(text, path_);
    while (true) {
      LANNER_ASSIGN_OR_RETURN(const std::optional<Json> line, lines.next());
      if (!line) return CalibrationSet{.path = path_, .pieces = std::move(pieces_)};
      LANNER_RETURN_IF_ERROR(add(*line, lines.where()));
    }
  }

 private:
  Status add(const Json& line, const std::string& where) {
    if (const std::string* text = string_member(line, "text")) {
      if (pieces_.empty() || pieces_.back().is_conversation) {
        pieces_.push_back({.text = *text});
      } else {
        pieces_.back().text += "\n\n" + *text;
      }
      return {};
    }
    LANNER_ASSIGN_OR_RETURN(const ChatTemplateInputs inputs, conversation_of(line, where));
    auto rendered = render_(inputs);
    if (!rendered.ok()) return with_context(rendered.status(), where);
    rendered_bytes_ += static_cast<std::int64_t>(rendered->size());
    if (rendered_bytes_ > kMaxBytes) {
      return resource_exhausted(fmt::format("{}: the conversations come to more than {} bytes", where, kMaxBytes));
    }
    pieces_.push_back({.text = std::move(*rendered), .is_conversation = true});
    return {};
  }

  const std::string path_;
  const RenderConversation& render_;
  std::vector<CalibrationPiece> pieces_;
  std::int64_t rendered_bytes_ = 0;
};

/// The first of these files of a named set, by the folders first.
Result<Dataset> read_named_set(const std::string& name, const std::vector<std::string>& files,
                               const std::vector<fs::path>& folders) {
  for (const fs::path& folder : folders) {
    for (const std::string& file : files) {
      const std::string path = (folder / name / file).string();
      std::error_code ignored;
      if (!fs::is_regular_file(path, ignored)) continue;
      LANNER_ASSIGN_OR_RETURN(std::string text, read_file(path, kMaxBytes));
      return Dataset{.path = path, .text = std::move(text)};
    }
  }
  const std::string place = folders.empty() ? "" : (folders.front() / name / files.front()).string();
  return not_found(fmt::format("the data set {} is not here: put its text into {}, or name a file", name, place));
}

bool is_named_set(const std::string& name) { return std::ranges::find(kNamedSets, name) != kNamedSets.end(); }

bool has_json_lines(const std::string& path) { return fs::path(path).extension() == ".jsonl"; }

Result<std::string> read_whole_file(const std::string& path) {
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) {
    return not_found(fmt::format("{}: neither a file nor a data set by name ({})", path, fmt::join(kNamedSets, ", ")));
  }
  return read_file(path, kMaxBytes);
}

/// Lines without the blanks around them, with an empty line between two.
std::string sentences(const std::string& lines) {
  constexpr const char* kBlanks = " \t\r";
  std::istringstream input(lines);
  std::string joined;
  for (std::string line; std::getline(input, line);) {
    const std::size_t begin = line.find_first_not_of(kBlanks);
    if (begin == std::string::npos) continue;
    if (!joined.empty()) joined += "\n\n";
    joined += line.substr(begin, line.find_last_not_of(kBlanks) + 1 - begin);
  }
  return joined;
}

}  // namespace

std::vector<fs::path> data_folders() {
  std::vector<fs::path> folders;
  const char* own = std::getenv("LANNER_DATA_DIR");
  if (own != nullptr && *own != '\0') folders.emplace_back(own);
  if (const fs::path user = user_data_folder(); !user.empty()) folders.push_back(user / "lanner" / "data");
  for (const fs::path& folder : shared_data_folders()) folders.push_back(folder / "lanner" / "data");
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (error) return folders;
  folders.push_back((program.parent_path().parent_path() / "share" / "lanner" / "data"));
  if (is_within(program, LANNER_BUILD_FOLDER)) folders.emplace_back(LANNER_SOURCE_DATA_FOLDER);
  return folders;
}

Result<Dataset> read_dataset(const std::string& name_or_file, const std::vector<fs::path>& folders) {
  if (is_named_set(name_or_file)) return read_named_set(name_or_file, {"test.txt"}, folders);
  LANNER_ASSIGN_OR_RETURN(std::string text, read_whole_file(name_or_file));
  if (has_json_lines(name_or_file)) {
    LANNER_ASSIGN_OR_RETURN(text, join_json_lines(text, name_or_file));
  }
  return Dataset{.path = name_or_file, .text = std::move(text)};
}

Result<CalibrationSet> read_calibration_set(const std::string& name_or_file, const std::vector<fs::path>& folders,
                                            const RenderConversation& render) {
  const auto one_piece = [](std::string path, std::string text) {
    CalibrationSet set{.path = std::move(path)};
    set.pieces.push_back({.text = std::move(text)});
    return set;
  };
  if (!is_named_set(name_or_file)) {
    LANNER_ASSIGN_OR_RETURN(std::string text, read_whole_file(name_or_file));
    if (has_json_lines(name_or_file)) return PieceReader(name_or_file, render).read(text);
    return one_piece(name_or_file, std::move(text));
  }
  const std::vector<std::string> files{"train.txt", name_or_file + ".train.txt", "valid.txt",
                                       name_or_file + ".valid.txt"};
  LANNER_ASSIGN_OR_RETURN(Dataset dataset, read_named_set(name_or_file, files, folders));
  if (name_or_file == "ptb") dataset.text = sentences(dataset.text);
  return one_piece(std::move(dataset.path), std::move(dataset.text));
}

}  // namespace lanner::eval
