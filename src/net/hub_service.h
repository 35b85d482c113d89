#pragma once
// What a hub can be asked: which files a repository has, and where to fetch one.
//
// There are two, the Hugging Face hub (and whatever speaks its language, by HF_ENDPOINT) and ModelScope. Answers are
// bounded and checked here; file names and checksums in a Repository are safe to use.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lanner/status.h"
#include "net/environment.h"
#include "net/http_client.h"
#include "net/model_id.h"
#include "net/repository_files.h"
#include "net/retries.h"

namespace lanner::net {

struct Repository {
  std::string commit;  // 40 digits; for ModelScope, which does not tell it, the revision
  std::vector<RepositoryFile> files;
};

class HubService {
 public:
  virtual ~HubService() = default;
  /// kNotFound for a model, a revision or files that are not there; kUnsupported where access is missing; both messages
  /// say what to do.
  virtual Result<Repository> list(const ModelId& id, const std::string& revision) = 0;
  virtual std::string file_url(const ModelId& id, const std::string& commit, const std::string& path) const = 0;
  virtual std::string authorization() const = 0;
  virtual std::string_view default_revision() const = 0;
  /// What an answer that is neither 2xx nor passing means.
  virtual Status explain(const HttpHead& head, const ModelId& id, const std::string& revision) const = 0;
};

std::unique_ptr<HubService> make_hugging_face(HttpClient& client, const Environment& environment, RetryPolicy policy);
std::unique_ptr<HubService> make_modelscope(HttpClient& client, const Environment& environment, RetryPolicy policy);

}  // namespace lanner::net
