// The Hugging Face hub: GET /api/models/ID/revision/REVISION tells the commit, GET /api/models/ID/tree/COMMIT its files
// in pages that a Link header joins, GET /ID/resolve/COMMIT/FILE sends a file or redirects to where it lies.

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "net/digest.h"
#include "net/hub_json.h"
#include "net/hub_service.h"

namespace lanner::net {
namespace {

constexpr auto kAnswerTimeout = std::chrono::seconds(60);  // of a listing, from request to its last byte
constexpr int kMaxPages = 200;

/// The address in `Link: <https://…>; rel="next"`; empty when there is none.
std::string_view next_page(std::string_view link) {
  while (!link.empty()) {
    const std::size_t begin = link.find('<');
    const std::size_t end = link.find('>', begin);
    if (begin == std::string_view::npos || end == std::string_view::npos) return {};
    const std::size_t comma = std::min(link.find(',', end), link.size());
    const std::string_view parameters = link.substr(end, comma - end);
    if (parameters.find("rel=\"next\"") != std::string_view::npos || parameters.ends_with("rel=next")) {
      return link.substr(begin + 1, end - begin - 1);
    }
    link.remove_prefix(comma);
  }
  return {};
}

class HuggingFace final : public HubService {
 public:
  HuggingFace(HttpClient& client, const Environment& environment, RetryPolicy policy)
      : client_(client), endpoint_(environment.endpoint), token_(environment.token), policy_(std::move(policy)) {}

  std::string_view default_revision() const override { return "main"; }
  std::string authorization() const override { return token_.empty() ? "" : "Bearer " + token_; }

  std::string file_url(const ModelId& id, const std::string& commit, const std::string& path) const override {
    return fmt::format("{}/{}/resolve/{}/{}", endpoint_, id.repository(), percent_encode(commit),
                       percent_encode(path, "/"));
  }

  Result<Repository> list(const ModelId& id, const std::string& revision) override {
    Repository repository;
    const std::string models = fmt::format("{}/api/models/{}", endpoint_, id.repository());
    LANNER_ASSIGN_OR_RETURN(const HttpResponse answer,
                            ask(fmt::format("{}/revision/{}", models, percent_encode(revision)), id, revision));
    LANNER_ASSIGN_OR_RETURN(const Json facts, parse_hub_json(answer.body, endpoint_));
    const std::optional<std::string> commit = json_text(facts, "sha");
    if (!commit || commit->size() != 40 || !is_digest_name(*commit)) {
      return corrupt(fmt::format("{}: tells no commit of {}", endpoint_, id.repository()));
    }
    repository.commit = *commit;
    std::string page = fmt::format("{}/tree/{}?recursive=true", models, *commit);
    for (int pages = 0; pages < kMaxPages; ++pages) {
      LANNER_ASSIGN_OR_RETURN(const HttpResponse listing, ask(page, id, revision));
      LANNER_RETURN_IF_ERROR(add_page(listing.body, repository.files));
      const std::string_view next = next_page(listing.head.header("link"));
      if (next.empty()) return repository;
      LANNER_ASSIGN_OR_RETURN(page, same_origin_page(page, next));
    }
    return corrupt(fmt::format("{}: the list of files has more than {} pages", endpoint_, kMaxPages));
  }

  Status explain(const HttpHead& head, const ModelId& id, const std::string& revision) const override {
    const std::string_view code = head.header("x-error-code");
    const std::string name = id.repository();
    if (code == "GatedRepo") {
      return unsupported(fmt::format(
          "{}: is gated: accept its terms at {}/{} and give a token of that account (HF_TOKEN, or `hf auth login`)",
          name, endpoint_, name));
    }
    if (code == "RevisionNotFound") return not_found(fmt::format("{}: has no revision '{}'", name, revision));
    if (code == "EntryNotFound")
      return not_found(fmt::format("{}: a file of revision '{}' is not there", name, revision));
    if (head.status == 401 && !token_.empty()) {
      return unsupported(
          fmt::format("{}: {} does not accept the token (HF_TOKEN, or the token file), or there is no such model", name,
                      endpoint_));
    }
    if (head.status == 401) {
      return not_found(
          fmt::format("{}: is no local path, and {} has no such public model; a private one needs a token (HF_TOKEN)",
                      name, endpoint_));
    }
    if (head.status == 403) {
      return unsupported(
          fmt::format("{}: {} denies access{}", name, endpoint_,
                      token_.empty() ? "; a token may help (HF_TOKEN)" : " to the account of the token"));
    }
    if (head.status == 404) {
      return not_found(fmt::format("{}: is no local path, and {} has no such model", name, endpoint_));
    }
    if (head.status == 429)
      return io_error(fmt::format("{}: {} gets too many requests; try again later", name, endpoint_));
    return io_error(fmt::format("{}: {} answers with status {}", name, endpoint_, head.status));
  }

 private:
  Result<HttpResponse> ask(const std::string& url, const ModelId& id, const std::string& revision) {
    const HttpRequest request{
        .url = url, .authorization = authorization(), .total_timeout = kAnswerTimeout, .cancelled = policy_.cancelled};
    LANNER_ASSIGN_OR_RETURN(HttpResponse answer, fetch_patiently(client_, request, kMaxJsonBytes, policy_));
    if (answer.head.status != 200) return explain(answer.head, id, revision);
    return answer;
  }

  /// A page elsewhere would be asked with the token of this hub.
  Result<std::string> same_origin_page(const std::string& page, std::string_view next) const {
    LANNER_ASSIGN_OR_RETURN(const Url from, parse_url(page));
    const Result<Url> url = resolve_reference(from, next);
    if (!url.ok()) {
      return corrupt(fmt::format("{}: the list of files goes on nowhere: {}", endpoint_, url.status().message()));
    }
    if (!url->same_origin(from))
      return corrupt(fmt::format("{}: the list of files goes on at {}", endpoint_, url->origin()));
    return url->text();
  }

  Status add_page(std::string_view text, std::vector<RepositoryFile>& files) const {
    LANNER_ASSIGN_OR_RETURN(const Json page, parse_hub_json(text, endpoint_));
    if (!page.is_array()) return corrupt(fmt::format("{}: the list of files is no list", endpoint_));
    for (const Json& entry : page) {
      if (json_text(entry, "type").value_or("file") != "file") continue;
      // A large file is a pointer in Git; what counts is what it points to.
      const auto large = entry.find("lfs");
      const Json& facts = large != entry.end() && large->is_object() ? *large : entry;
      RepositoryFile file{.path = json_text(entry, "path").value_or(""),
                          .size = json_integer(facts, "size").value_or(-1),
                          .checksum = json_text(facts, "oid").value_or("")};
      const bool proper = is_digest_name(file.checksum);
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

std::unique_ptr<HubService> make_hugging_face(HttpClient& client, const Environment& environment, RetryPolicy policy) {
  return std::make_unique<HuggingFace>(client, environment, std::move(policy));
}

}  // namespace lanner::net
