#include "net/hub.h"

#include <fmt/format.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "core/checked.h"
#include "core/mapped_file.h"
#include "lanner/version.h"
#include "net/digest.h"
#include "net/download_file.h"
#include "net/environment.h"
#include "net/file_lock.h"
#include "net/hub_cache.h"
#include "net/hub_service.h"

namespace lanner::net {
namespace {

namespace fs = std::filesystem;

std::string megabytes(std::int64_t bytes) {
  if (bytes >= 1'000'000'000) return fmt::format("{:.1f} GB", static_cast<double>(bytes) / 1e9);
  return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6);
}

/// The size of what has come of a file in earlier attempts.
std::int64_t partial_size(const FilePlace& place, std::int64_t limit) {
  std::error_code error;
  const auto size = static_cast<std::int64_t>(fs::file_size(place.incomplete, error));
  return error || size > limit ? 0 : size;
}

/// kResourceExhausted when the file system of `folder`, which need not exist yet, has less than `needed` bytes left.
Status check_space(fs::path folder, std::int64_t needed) {
  std::error_code error;
  while (!fs::exists(folder, error) && folder.has_relative_path()) folder = folder.parent_path();
  struct statvfs facts{};
  if (::statvfs(folder.empty() ? "." : folder.c_str(), &facts) != 0) return {};  // the first write will tell
  const std::int64_t available =
      checked_multiply(static_cast<std::int64_t>(facts.f_bavail), static_cast<std::int64_t>(facts.f_frsize))
          .value_or(INT64_MAX);
  if (needed <= available) return {};
  return resource_exhausted(
      fmt::format("{}: the download needs {}, and {} are free (--download-dir names another place)", folder.string(),
                  megabytes(needed), megabytes(available)));
}

RetryPolicy retry_policy(const Environment& environment, const ModelRequest& request) {
  return {.retries = environment.retries,
          .first_delay = environment.retry_delay,
          .cancelled = request.cancelled,
          .note = request.note};
}

/// What a download works with.
struct Parts {
  const ModelRequest& request;
  const Environment& environment;
  HttpClient& client;
  HubService& hub;
  HubCache& cache;
};

/// One download: from the hub's list to a whole model in the cache.
class ModelDownload {
 public:
  ModelDownload(const Parts& parts, ModelId id, std::string revision)
      : parts_(parts), id_(std::move(id)), revision_(std::move(revision)) {}

  Result<std::string> run() {
    LANNER_ASSIGN_OR_RETURN(repository_, parts_.hub.list(id_, revision_));
    LANNER_ASSIGN_OR_RETURN(FileChoice choice, choose_files(repository_.files, id_));
    if (!choice.index.empty()) {
      const RepositoryFile index = choice.files.back();
      LANNER_RETURN_IF_ERROR(fetch_all({index}, /*announce=*/false));
      LANNER_ASSIGN_OR_RETURN(const std::string text, read_file(path_of(index.path).string(), kMaxIndexBytes));
      LANNER_RETURN_IF_ERROR(add_shards(text, repository_.files, choice));
    }
    LANNER_RETURN_IF_ERROR(fetch_all(choice.files, /*announce=*/true));
    LANNER_RETURN_IF_ERROR(parts_.cache.finish(id_, revision_, repository_.commit));
    return (choice.gguf.empty() ? parts_.cache.folder(id_, repository_.commit) : path_of(choice.gguf)).string();
  }

 private:
  fs::path path_of(const std::string& file) const { return parts_.cache.folder(id_, repository_.commit) / file; }

  Status fetch_all(const std::vector<RepositoryFile>& files, bool announce) {
    std::vector<RepositoryFile> wanted;
    progress_ = {};
    for (const RepositoryFile& file : files) {
      if (!is_digest_name(file.checksum)) {
        return corrupt(fmt::format("{}: {}: has no checksum in the list of its hub", id_.repository(), file.path));
      }
      if (parts_.cache.has(id_, file)) {
        LANNER_RETURN_IF_ERROR(parts_.cache.publish(id_, repository_.commit, file));
        continue;
      }
      progress_.total_bytes += file.size;  // at most kMaxFiles times kMaxFileBytes, which is below 2^60
      progress_.start_bytes += partial_size(parts_.cache.place(id_, file), file.size);
      wanted.push_back(file);
    }
    if (wanted.empty()) return {};
    progress_.done_bytes = progress_.start_bytes;
    LANNER_RETURN_IF_ERROR(check_space(parts_.cache.root(), progress_.total_bytes - progress_.start_bytes));
    if (announce) {
      const std::string earlier =
          progress_.start_bytes > 0 ? fmt::format(", {} already here", megabytes(progress_.start_bytes)) : "";
      note(fmt::format("downloading {} from {} to {}: {} file{}, {}{}", id_.repository(), parts_.environment.endpoint,
                       parts_.cache.root().string(), wanted.size(), wanted.size() == 1 ? "" : "s",
                       megabytes(progress_.total_bytes), earlier));
    }
    for (const RepositoryFile& file : wanted) LANNER_RETURN_IF_ERROR(fetch_one(file, announce));
    return {};
  }

  Status fetch_one(const RepositoryFile& file, bool announce) {
    const FilePlace place = parts_.cache.place(id_, file);
    const auto waiting = [&] { note(fmt::format("waiting for another process that downloads {}", file.path)); };
    LANNER_ASSIGN_OR_RETURN(const FileLock lock, FileLock::take(place.lock, parts_.request.cancelled, waiting));
    if (parts_.cache.has(id_, file)) {  // another process was faster
      progress_.done_bytes += file.size - partial_size(place, file.size);
      return parts_.cache.publish(id_, repository_.commit, file);
    }
    FileDownload download;
    download.file = file;
    download.place = place;
    download.url = parts_.hub.file_url(id_, repository_.commit, file.path);
    download.authorization = parts_.hub.authorization();
    download.retries = retry_policy(parts_.environment, parts_.request);
    download.explain = [&](const HttpHead& head) { return parts_.hub.explain(head, id_, revision_); };
    download.on_bytes = [&](std::int64_t bytes) {
      progress_.done_bytes = std::max<std::int64_t>(0, progress_.done_bytes + bytes);
      if (announce && parts_.request.progress) parts_.request.progress(progress_);
    };
    LANNER_RETURN_IF_ERROR(download_file(parts_.client, download));
    return parts_.cache.publish(id_, repository_.commit, file);
  }

  void note(const std::string& text) const {
    if (parts_.request.note) parts_.request.note(text);
  }

  const Parts parts_;
  const ModelId id_;
  const std::string revision_;
  Repository repository_;
  DownloadProgress progress_;
};

std::unique_ptr<HubCache> open_cache(const Environment& environment, const ModelRequest& request) {
  const fs::path root = request.download_dir.empty() ? environment.cache : fs::path(request.download_dir);
  if (!environment.use_modelscope) return make_hugging_face_cache(root);
  return make_modelscope_cache(root, (request.download_dir.empty() ? root.parent_path() : root) / ".lock");
}

HttpClientOptions client_options(const Environment& environment) {
  return {.user_agent = fmt::format("lanner/{}", version()),
          .connect_timeout = environment.head_timeout,
          .head_timeout = environment.head_timeout,
          .idle_timeout = environment.idle_timeout,
          .proxies = environment.proxies};
}

Status not_here(const std::string& model) {
  return not_found(
      fmt::format("{}: is no local path, and no model of a hub (those are called ORGANIZATION/NAME)", model));
}

/// The message for a model that is not whole in the cache and may not be fetched.
Status offline(const std::string& model, const CachedModel& cached, const HubCache& cache) {
  const std::string what = cached.missing.empty() ? "is neither a local path nor in the cache"
                                                  : fmt::format("lacks {} in the cache", cached.missing);
  return not_found(fmt::format("{}: {} ({}), and HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE forbids a download", model,
                               what, cache.root().string()));
}

}  // namespace

double DownloadProgress::share() const {
  if (total_bytes <= start_bytes) return 1.0;
  const auto fetched = static_cast<double>(done_bytes - start_bytes);
  return std::clamp(fetched / static_cast<double>(total_bytes - start_bytes), 0.0, 1.0);
}

Result<std::string> find_model(const ModelRequest& request) {
  std::error_code error;
  if (fs::exists(request.model, error)) return request.model;
  const std::optional<ModelId> id = parse_model_id(request.model);
  if (!id) return not_here(request.model);
  LANNER_ASSIGN_OR_RETURN(const Environment environment, read_environment());
  const std::unique_ptr<HubCache> cache = open_cache(environment, request);
  if (cache->root().empty()) {
    return not_found(fmt::format("{}: is no local path, and neither HOME nor {} says where the cache is", request.model,
                                 environment.use_modelscope ? "MODELSCOPE_CACHE" : "HF_HOME"));
  }
  const auto client = make_http_client(client_options(environment));
  const RetryPolicy policy = retry_policy(environment, request);
  const auto hub = environment.use_modelscope ? make_modelscope(*client, environment, policy)
                                              : make_hugging_face(*client, environment, policy);
  const std::string revision = request.revision.empty() ? std::string(hub->default_revision()) : request.revision;
  if (!is_revision(revision))
    return invalid_argument(fmt::format("{}: the revision is no branch, tag or commit", request.model));
  const CachedModel cached = cache->find(*id, revision);
  if (!cached.path.empty()) return cached.path;
  if (environment.offline) return offline(request.model, cached, *cache);
  return ModelDownload({request, environment, *client, *hub, *cache}, *id, revision).run();
}

std::string model_name(const std::string& path) {
  if (std::string name = cached_model_name(path); !name.empty()) return name;
  fs::path trimmed = fs::path(path).lexically_normal();
  if (!trimmed.has_filename()) trimmed = trimmed.parent_path();
  return trimmed.filename().string();
}

}  // namespace lanner::net
