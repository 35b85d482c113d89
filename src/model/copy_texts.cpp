#include "model/copy_texts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "model/model_folder.h"

namespace lanner::model {
namespace {

namespace fs = std::filesystem;

constexpr std::uintmax_t kMaxCopiedBytes = 256 << 20;
constexpr std::array<std::string_view, 7> kKinds{".json", ".jinja", ".txt", ".model", ".md", ".tiktoken", ".py"};

bool is_text(const fs::path& path) {
  const std::string name = path.filename().string();
  if (name.starts_with('.') || name.find(".index.json") != std::string::npos) return false;
  return std::ranges::find(kKinds, path.extension().string()) != kKinds.end();
}

}  // namespace

Status copy_texts(const std::string& folder, const std::string& target) {
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    if (!entry->is_regular_file(error) || !is_text(entry->path())) continue;  // follows links
    const std::string name = entry->path().filename().string();
    LANNER_ASSIGN_OR_RETURN(const std::string path, model_file(folder, name));
    if (fs::file_size(path, error) > kMaxCopiedBytes) continue;
    const fs::path copy = fs::path(target) / name;
    fs::remove(copy, error);  // rather than overwritten: copies of files that may not be written may not be either
    if (!error) fs::copy_file(path, copy, error);
    if (error) break;
  }
  return error ? io_error(fmt::format("{}: its files cannot be copied: {}", folder, error.message())) : Status();
}

}  // namespace lanner::model
