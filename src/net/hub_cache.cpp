#include "net/hub_cache.h"

#include <fmt/format.h>
#include <unistd.h>

#include <fstream>
#include <optional>
#include <utility>
#include <vector>

#include "core/mapped_file.h"
#include "net/digest.h"

namespace lanner::net {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMaxRefBytes = 256;
constexpr int kMaxEntries = 100'000;
constexpr int kMaxFolderDepth = 3;

bool is_file(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

bool is_file_of_size(const fs::path& path, std::int64_t size) {
  std::error_code error;
  return fs::is_regular_file(path, error) && static_cast<std::int64_t>(fs::file_size(path, error)) == size && !error;
}

Status make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  return error ? io_error(fmt::format("{}: {}", folder.string(), error.message())) : Status();
}

/// The GGUF files below the folder, as paths relative to it.
std::vector<std::string> gguf_files(const fs::path& folder) {
  std::vector<std::string> paths;
  std::error_code error;
  fs::recursive_directory_iterator entry(folder, error);
  for (int seen = 0; !error && entry != fs::recursive_directory_iterator() && seen < kMaxEntries; ++seen) {
    if (entry.depth() >= kMaxFolderDepth) entry.disable_recursion_pending();
    const fs::path& path = entry->path();
    if (path.extension() == ".gguf" && is_file(path)) paths.push_back(path.lexically_relative(folder).generic_string());
    entry.increment(error);
  }
  return paths;
}

/// The first weight file that is missing; "" when all are there, "weights" when there is no sign of any.
std::string missing_weights(const fs::path& folder) {
  for (const std::string_view name : kWeightFiles) {
    if (!is_file(folder / name)) continue;
    if (!name.ends_with(".index.json")) return {};
    const Result<std::string> text = read_file((folder / name).string(), kMaxIndexBytes);
    if (!text.ok()) return std::string(name);
    const Result<std::vector<std::string>> shards = shard_names(*text, name);
    if (!shards.ok()) return std::string(name);
    for (const std::string& shard : *shards) {
      if (!is_file(folder / shard)) return shard;
    }
    return {};
  }
  return "weights";
}

bool has_vocabulary(const fs::path& folder) {
  std::error_code error;
  for (fs::directory_iterator entry(folder, error); !error && entry != fs::directory_iterator();
       entry.increment(error)) {
    if (is_vocabulary(entry->path().filename().string()) && is_file(entry->path())) return true;
  }
  return false;
}

class HuggingFaceCache final : public HubCache {
 public:
  explicit HuggingFaceCache(fs::path root) : root_(std::move(root)) {}

  const fs::path& root() const override { return root_; }

  CachedModel find(const ModelId& id, const std::string& revision) const override {
    std::string commit = revision;
    if (!is_commit(commit)) {
      const Result<std::string> ref = read_file((store(id) / "refs" / revision).string(), kMaxRefBytes);
      if (!ref.ok()) return {};
      commit = ref->substr(0, ref->find_first_of(" \r\n"));
      if (!is_commit(commit)) return {};
    }
    const fs::path snapshot = folder(id, commit);
    std::error_code error;
    return fs::is_directory(snapshot, error) ? find_in_folder(snapshot, id) : CachedModel{};
  }

  FilePlace place(const ModelId& id, const RepositoryFile& file) const override {
    const fs::path blob = store(id) / "blobs" / file.checksum;
    return {blob, blob.string() + ".incomplete", root_ / ".locks" / store(id).filename() / (file.checksum + ".lock")};
  }

  // A blob is named by its content and comes to its name whole; a size tells the rest.
  bool has(const ModelId& id, const RepositoryFile& file) const override {
    return is_file_of_size(place(id, file).final, file.size);
  }

  Status publish(const ModelId& id, const std::string& commit, const RepositoryFile& file) override {
    const fs::path link = folder(id, commit) / file.path;
    if (is_file_of_size(link, file.size)) return {};
    LANNER_RETURN_IF_ERROR(make_folder(link.parent_path()));
    const fs::path target = place(id, file).final.lexically_relative(link.parent_path());
    // Beside, then renamed: another process may be doing the same.
    const fs::path beside = link.parent_path() / fmt::format(".{}.{}.link", link.filename().string(), ::getpid());
    std::error_code error;
    fs::remove(beside, error);
    fs::create_symlink(target, beside, error);
    if (!error) fs::rename(beside, link, error);
    if (error) return io_error(fmt::format("{}: {}", link.string(), error.message()));
    return {};
  }

  Status finish(const ModelId& id, const std::string& revision, const std::string& commit) override {
    if (revision == commit) return {};
    const fs::path ref = store(id) / "refs" / revision;
    LANNER_RETURN_IF_ERROR(make_folder(ref.parent_path()));
    return write_file_atomically(ref.string(), commit);
  }

  fs::path folder(const ModelId& id, const std::string& commit) const override {
    return store(id) / "snapshots" / commit;
  }

 private:
  static bool is_commit(std::string_view text) { return text.size() == 40 && is_digest_name(text); }

  fs::path store(const ModelId& id) const { return root_ / fmt::format("models--{}--{}", id.organization, id.name); }

  const fs::path root_;
};

class ModelScopeCache final : public HubCache {
 public:
  ModelScopeCache(fs::path root, fs::path locks) : root_(std::move(root)), locks_(std::move(locks)) {}

  const fs::path& root() const override { return root_; }

  CachedModel find(const ModelId& id, const std::string& revision) const override {
    // The folder does not tell of which revision it is; only the default one can be taken to be in it.
    if (revision != "master") return {};
    std::error_code error;
    return fs::is_directory(folder(id, revision), error) ? find_in_folder(folder(id, revision), id) : CachedModel{};
  }

  FilePlace place(const ModelId& id, const RepositoryFile& file) const override {
    return {folder(id, "") / file.path,
            root_ / "._____temp" / id.organization / id.name / (file.checksum + ".incomplete"),
            locks_ / (id.organization + "___" + id.name)};
  }

  bool has(const ModelId& id, const RepositoryFile& file) const override {
    const fs::path path = place(id, file).final;
    if (!is_file_of_size(path, file.size)) return false;
    Result<Digest> digest = Digest::for_name(file.checksum, file.size);
    std::ifstream stream(path, std::ios::binary);
    std::vector<char> buffer(1 << 20);
    while (digest.ok() && stream.good()) {
      stream.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
      digest->add(std::string_view(buffer.data(), static_cast<std::size_t>(stream.gcount())));
    }
    return digest.ok() && stream.eof() && digest->finish() == file.checksum;
  }

  Status publish(const ModelId& /*id*/, const std::string& /*commit*/, const RepositoryFile& /*file*/) override {
    return {};
  }
  Status finish(const ModelId& /*id*/, const std::string& /*revision*/, const std::string& /*commit*/) override {
    return {};
  }

  fs::path folder(const ModelId& id, const std::string& /*commit*/) const override {
    std::string name;
    for (const char c : id.name) name += c == '.' ? "___" : std::string(1, c);
    return root_ / id.organization / name;
  }

 private:
  const fs::path root_;
  const fs::path locks_;
};

}  // namespace

CachedModel find_in_folder(const fs::path& folder, const ModelId& id) {
  const auto gguf = [&]() -> std::optional<CachedModel> {
    const Result<std::string> path = choose_gguf(gguf_files(folder), id);
    if (!path.ok()) return std::nullopt;
    return CachedModel{.path = (folder / *path).string(), .missing = {}};
  };
  if (!id.selector.empty()) return gguf().value_or(CachedModel{.path = {}, .missing = id.selector});
  std::string missing = missing_weights(folder);
  if (missing == "weights") {
    if (auto model = gguf()) return *model;
  }
  if (!is_file(folder / "config.json")) missing = "config.json";
  if (missing.empty() && !has_vocabulary(folder)) missing = "tokenizer.json";
  if (!missing.empty()) return {.path = {}, .missing = missing};
  return {.path = folder.string(), .missing = {}};
}

std::unique_ptr<HubCache> make_hugging_face_cache(fs::path root) {
  return std::make_unique<HuggingFaceCache>(std::move(root));
}

std::unique_ptr<HubCache> make_modelscope_cache(fs::path root, fs::path locks) {
  return std::make_unique<ModelScopeCache>(std::move(root), std::move(locks));
}

std::string cached_model_name(const fs::path& path) {
  fs::path folder = path.lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  constexpr std::string_view kPrefix = "models--";
  const std::string store = folder.parent_path().parent_path().filename().string();
  if (folder.parent_path().filename() == "snapshots" && store.starts_with(kPrefix)) {
    const std::size_t name = store.find("--", kPrefix.size());
    if (name != std::string::npos) return store.substr(name + 2);
    return store.substr(kPrefix.size());
  }
  return {};
}

}  // namespace lanner::net
