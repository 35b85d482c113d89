#include "net/repository_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <utility>

#include "core/ascii.h"
#include "net/hub_json.h"

namespace lanner::net {
namespace {

constexpr std::size_t kMaxPathBytes = 1024;
constexpr std::size_t kMaxNameBytes = 255;
constexpr std::size_t kMaxListed = 24;

constexpr std::array<std::string_view, 15> kSmallFiles{"config.json",
                                                       "generation_config.json",
                                                       "special_tokens_map.json",
                                                       "added_tokens.json",
                                                       "vocab.json",
                                                       "vocab.txt",
                                                       "merges.txt",
                                                       "chat_template.json",
                                                       "quantize_config.json",
                                                       "quant_config.json",
                                                       "hf_quant_config.json",
                                                       "quantization_config.json",
                                                       "preprocessor_config.json",
                                                       "processor_config.json",
                                                       "video_preprocessor_config.json"};

std::string_view last_part(std::string_view path) { return path.substr(path.rfind('/') + 1); }

bool is_gguf(std::string_view path) { return lower_case(path).ends_with(".gguf"); }

bool is_small_file(std::string_view name) {
  if (name.find('/') != std::string_view::npos) return false;
  if (std::ranges::find(kSmallFiles, name) != kSmallFiles.end()) return true;
  if (name.starts_with("tokenizer") && name.ends_with(".json")) return true;
  return name.ends_with(".model") || name.ends_with(".tiktoken") || name.ends_with(".jinja");
}

const RepositoryFile* find_file(const std::vector<RepositoryFile>& listing, std::string_view path) {
  const auto found = std::ranges::find(listing, path, &RepositoryFile::path);
  return found == listing.end() ? nullptr : &*found;
}

std::string listed(const std::vector<std::string>& names) {
  const std::size_t shown = std::min(names.size(), kMaxListed);
  std::string text =
      fmt::format("{}", fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown), ", "));
  if (shown < names.size()) text += fmt::format(" and {} more", names.size() - shown);
  return text;
}

/// "Q4_K_M" for model-Q4_K_M.gguf, model.Q4_K_M.gguf and Q4_K_M/model.gguf, whatever the case.
bool matches_selector(std::string_view path, std::string_view selector) {
  if (path == selector || last_part(path) == selector) return true;
  const std::string wanted = lower_case(selector);
  const std::string name = lower_case(path);
  std::string_view stem = last_part(name);
  stem.remove_suffix(std::min<std::size_t>(5, stem.size()));
  if (stem == wanted) return true;
  if (stem.ends_with(wanted)) {
    const char before = stem[stem.size() - wanted.size() - 1];
    if (before == '-' || before == '.' || before == '_') return true;
  }
  const std::size_t slash = name.rfind('/');
  return slash != std::string::npos && last_part(std::string_view(name).substr(0, slash)) == wanted;
}

/// model-00001-of-00003.gguf
bool is_gguf_part(std::string_view path) {
  const std::string stem = lower_case(path).substr(0, path.size() - 5);
  const std::size_t of = stem.rfind("-of-");
  return of != std::string::npos && of > 0 && of + 4 < stem.size() &&
         std::ranges::all_of(stem.substr(of + 4), [](char c) { return c >= '0' && c <= '9'; });
}

Result<FileChoice> only_gguf(const std::vector<RepositoryFile>& listing, const ModelId& id) {
  std::vector<std::string> paths;
  for (const RepositoryFile& file : listing) {
    if (is_gguf(file.path)) paths.push_back(file.path);
  }
  LANNER_ASSIGN_OR_RETURN(std::string path, choose_gguf(std::move(paths), id));
  FileChoice choice;
  choice.files.push_back(*find_file(listing, path));
  choice.gguf = std::move(path);
  return choice;
}

}  // namespace

Status check_file_name(std::string_view name, std::string_view where) {
  const auto refuse = [&](std::string_view why) {
    std::string shown;
    for (const char c : name.substr(0, 80)) shown += c < ' ' || c > '~' ? '?' : c;
    return corrupt(fmt::format("{}: lists a file called '{}': {}", where, shown, why));
  };
  if (name.empty() || name.size() > kMaxPathBytes) return refuse("its length");
  if (std::ranges::any_of(name, [](char c) { return (c >= 0 && c < ' ') || c == 127 || c == '\\'; })) {
    return refuse("a control character or backslash");
  }
  std::size_t begin = 0;
  while (begin <= name.size()) {
    const std::size_t end = std::min(name.find('/', begin), name.size());
    const std::string_view part = name.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return refuse("it would leave the model's folder");
    if (part.size() > kMaxNameBytes) return refuse("its length");
    begin = end + 1;
  }
  return {};
}

Status add_file(RepositoryFile file, bool proper_checksum, std::string_view where, std::vector<RepositoryFile>& files) {
  LANNER_RETURN_IF_ERROR(check_file_name(file.path, where));
  if (file.size < 0 || file.size > kMaxFileBytes || !proper_checksum) {
    return corrupt(fmt::format("{}: {}: lists no proper size and checksum", where, file.path));
  }
  if (files.size() >= kMaxFiles) return corrupt(fmt::format("{}: lists more than {} files", where, kMaxFiles));
  files.push_back(std::move(file));
  return {};
}

bool is_vocabulary(std::string_view name) {
  return name == "tokenizer.json" || name == "vocab.json" || name == "vocab.txt" || name.ends_with(".model") ||
         name.ends_with(".tiktoken");
}

Result<std::string> choose_gguf(std::vector<std::string> paths, const ModelId& id) {
  std::ranges::sort(paths);
  if (paths.empty()) return not_found(fmt::format("{}: has no GGUF file", id.repository()));
  std::vector<std::string> matching;
  for (const std::string& path : paths) {
    // A projector is half a model: it is taken only by its name.
    const bool projector = lower_case(last_part(path)).starts_with("mmproj");
    const bool wanted = id.selector.empty() ? !projector : matches_selector(path, id.selector);
    if (wanted && (!projector || last_part(path) == last_part(id.selector))) matching.push_back(path);
  }
  // The exact name wins over names that end like it.
  const auto exact = std::ranges::find(matching, id.selector);
  if (exact != matching.end()) matching = {*exact};
  if (matching.size() == 1 && !is_gguf_part(matching.front())) return matching.front();
  if (!matching.empty() && std::ranges::all_of(matching, is_gguf_part) && !id.selector.empty()) {
    return unsupported(
        fmt::format("{}:{}: is split into parts, which this version does not join; choose another of: {}",
                    id.repository(), id.selector, listed(paths)));
  }
  if (id.selector.empty()) {
    return not_found(fmt::format("{}: has several GGUF files; say which, as in {}:Q4_K_M or {}:FILE, out of: {}",
                                 id.repository(), id.repository(), id.repository(), listed(paths)));
  }
  return not_found(fmt::format("{}: '{}' fits {} GGUF file; choose one of: {}", id.repository(), id.selector,
                               matching.empty() ? "no" : "more than one", listed(matching.empty() ? paths : matching)));
}

Result<FileChoice> choose_files(const std::vector<RepositoryFile>& listing, const ModelId& id) {
  if (!id.selector.empty()) return only_gguf(listing, id);
  const RepositoryFile* weights = nullptr;
  for (const std::string_view name : kWeightFiles) {
    weights = find_file(listing, name);
    if (weights != nullptr) break;
  }
  if (weights == nullptr) {
    if (std::ranges::any_of(listing, [](const RepositoryFile& file) { return is_gguf(file.path); })) {
      return only_gguf(listing, id);
    }
    std::vector<std::string> names;
    for (const RepositoryFile& file : listing) names.push_back(file.path);
    return not_found(fmt::format("{}: holds no weights that can be read (safetensors, .bin or GGUF); its files: {}",
                                 id.repository(), listed(names)));
  }
  if (find_file(listing, "config.json") == nullptr) {
    return not_found(fmt::format("{}: has weights but no config.json", id.repository()));
  }
  FileChoice choice;
  for (const RepositoryFile& file : listing) {
    if (is_small_file(file.path)) choice.files.push_back(file);
  }
  choice.files.push_back(*weights);
  if (weights->path.ends_with(".index.json")) choice.index = weights->path;
  return choice;
}

Result<std::vector<std::string>> shard_names(std::string_view index_text, std::string_view where) {
  LANNER_ASSIGN_OR_RETURN(const Json index, parse_hub_json(index_text, where));
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (!index.is_object() || map == index.end() || !map->is_object()) {
    return corrupt(fmt::format("{}: weight_map: is no object", where));
  }
  std::set<std::string> names;
  for (const auto& [tensor, shard] : map->items()) {
    if (!shard.is_string()) return corrupt(fmt::format("{}: weight_map: holds what is no file name", where));
    const std::string& name = shard.get_ref<const std::string&>();
    LANNER_RETURN_IF_ERROR(check_file_name(name, where));
    if (name.find('/') != std::string::npos) return corrupt(fmt::format("{}: weight_map: names a folder", where));
    names.insert(name);
  }
  return std::vector<std::string>(names.begin(), names.end());
}

Status add_shards(std::string_view index_text, const std::vector<RepositoryFile>& listing, FileChoice& choice) {
  LANNER_ASSIGN_OR_RETURN(const std::vector<std::string> names, shard_names(index_text, choice.index));
  for (const std::string& name : names) {
    const RepositoryFile* shard = find_file(listing, name);
    if (shard == nullptr) return corrupt(fmt::format("{}: names {}, which the repository lacks", choice.index, name));
    choice.files.push_back(*shard);
  }
  return {};
}

}  // namespace lanner::net
