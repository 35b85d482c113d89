// ModelScope: GET /api/v1/models/ID/repo/files?Revision=…&Recursive=true lists the files with their SHA-256,
// GET /api/v1/models/ID/repo?Revision=…&FilePath=… sends one.

#include <fmt/format.h>

#include <utility>

#include "net/digest.h"
#include "net/hub_json.h"
#include "net/hub_service.h"

namespace lanner::net {
namespace {

constexpr auto kAnswerTimeout = std::chrono::seconds(60);

class ModelScope final : public HubService {
 public:
  ModelScope(HttpClient& client, const Environment& environment, RetryPolicy policy)
      : client_(client), endpoint_(environment.endpoint), token_(environment.token), policy_(std::move(policy)) {}

  std::string_view default_revision() const override { return "master"; }
  std::string authorization() const override { return token_.empty() ? "" : "Bearer " + token_; }

  std::string file_url(const ModelId& id, const std::string& commit, const std::string& path) const override {
    return fmt::format("{}/api/v1/models/{}/repo?Revision={}&FilePath={}", endpoint_, id.repository(),
                       percent_encode(commit), percent_encode(path));
  }

  Result<Repository> list(const ModelId& id, const std::string& revision) override {
    const HttpRequest request{.url = fmt::format("{}/api/v1/models/{}/repo/files?Revision={}&Recursive=true", endpoint_,
                                                 id.repository(), percent_encode(revision)),
                              .authorization = authorization(),
                              .total_timeout = kAnswerTimeout,
                              .cancelled = policy_.cancelled};
    LANNER_ASSIGN_OR_RETURN(const HttpResponse answer, fetch_patiently(client_, request, kMaxJsonBytes, policy_));
    if (answer.head.status != 200) return explain(answer.head, id, revision);
    LANNER_ASSIGN_OR_RETURN(const Json facts, parse_hub_json(answer.body, endpoint_));
    // Failures come with status 200 as well.
    const std::int64_t code = json_integer(facts, "Code").value_or(200);
    if (code != 200) {
      return not_found(
          fmt::format("{}: is no local path, and {} does not show such a model with revision '{}' (code {})",
                      id.repository(), endpoint_, revision, code));
    }
    const auto data = facts.is_object() ? facts.find("Data") : facts.end();
    if (!facts.is_object() || data == facts.end() || !data->is_object() || !data->contains("Files") ||
        !(*data)["Files"].is_array()) {
      return corrupt(fmt::format("{}: the list of files is no list", endpoint_));
    }
    Repository repository{.commit = revision, .files = {}};
    LANNER_RETURN_IF_ERROR(add_files((*data)["Files"], repository.files));
    return repository;
  }

  Status explain(const HttpHead& head, const ModelId& id, const std::string& revision) const override {
    const std::string name = id.repository();
    if (head.status == 401 || head.status == 403) {
      return unsupported(fmt::format("{}: {} denies access; a token may help (MODELSCOPE_API_TOKEN)", name, endpoint_));
    }
    if (head.status == 404) {
      return not_found(
          fmt::format("{}: is no local path, and {} has no such model with revision '{}'", name, endpoint_, revision));
    }
    return io_error(fmt::format("{}: {} answers with status {}", name, endpoint_, head.status));
  }

 private:
  Status add_files(const Json& list, std::vector<RepositoryFile>& files) const {
    for (const Json& entry : list) {
      if (json_text(entry, "Type").value_or("blob") != "blob") continue;
      RepositoryFile file{.path = json_text(entry, "Path").value_or(""),
                          .size = json_integer(entry, "Size").value_or(-1),
                          .checksum = json_text(entry, "Sha256").value_or("")};
      // Not every file need have a checksum, but one without it is not fetched.
      const bool proper = file.checksum.empty() || (file.checksum.size() == 64 && is_digest_name(file.checksum));
      LANNER_RETURN_IF_ERROR(add_file(std::move(file), proper, endpoint_, files));
    }
    return {};
  }

  HttpClient& client_;
  const std::string endpoint_;
  const std::string token_;
  const RetryPolicy policy_;
};

}  // namespace

std::unique_ptr<HubService> make_modelscope(HttpClient& client, const Environment& environment, RetryPolicy policy) {
  return std::make_unique<ModelScope>(client, environment, std::move(policy));
}

}  // namespace lanner::net
