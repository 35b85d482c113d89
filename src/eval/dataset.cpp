#include "eval/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string_view>
#include <utility>

#include "core/mapped_file.h"
#include "core/user_folders.h"

namespace lanner::eval {
namespace {

namespace fs = std::filesystem;

// Only wikitext2 ships with the program.
constexpr std::array<std::string_view, 4> kNamedSets{"wikitext2", "ptb", "c4", "pileval"};
constexpr std::int64_t kMaxBytes = std::int64_t{1} << 30;

bool is_within(const fs::path& path, const fs::path& folder) {
  const auto [end, unused] = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
  return end == folder.end();
}

Result<std::string> join_json_lines(const std::string& lines, const std::string& path) {
  std::istringstream input(lines);
  std::string joined;
  std::string line;
  bool first = true;
  for (std::int64_t number = 1; std::getline(input, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const auto object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    const auto text = object.is_object() ? object.find("text") : object.end();
    if (!object.is_object() || text == object.end() || !text->is_string()) {
      return corrupt(fmt::format("{}:{}: not a JSON object with a string \"text\"", path, number));
    }
    if (!first) joined += "\n\n";
    joined += text->get_ref<const std::string&>();
    first = false;
  }
  return joined;
}

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

Result<Dataset> read_text_file(const std::string& path) {
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) {
    return not_found(fmt::format("{}: neither a file nor a data set by name ({})", path, fmt::join(kNamedSets, ", ")));
  }
  LANNER_ASSIGN_OR_RETURN(std::string text, read_file(path, kMaxBytes));
  if (fs::path(path).extension() == ".jsonl") {
    LANNER_ASSIGN_OR_RETURN(text, join_json_lines(text, path));
  }
  return Dataset{.path = path, .text = std::move(text)};
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
  return read_text_file(name_or_file);
}

Result<Dataset> read_calibration_set(const std::string& name_or_file, const std::vector<fs::path>& folders) {
  if (!is_named_set(name_or_file)) return read_text_file(name_or_file);
  const std::vector<std::string> files{"train.txt", name_or_file + ".train.txt", "valid.txt",
                                       name_or_file + ".valid.txt"};
  LANNER_ASSIGN_OR_RETURN(Dataset dataset, read_named_set(name_or_file, files, folders));
  if (name_or_file == "ptb") dataset.text = sentences(dataset.text);
  return dataset;
}

}  // namespace lanner::eval
