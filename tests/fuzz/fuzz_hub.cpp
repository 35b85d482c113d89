// Any answer of a hub: refused in one line, or a list whose names stay inside their folder, whose sizes add up and
// whose checksums are safe as names of files. And any text as an address, a redirect, a model's name, a header.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "net/digest.h"
#include "net/environment.h"
#include "net/http_client.h"
#include "net/hub_service.h"
#include "net/model_id.h"
#include "net/repository_files.h"
#include "net/url.h"

using namespace lanner;
using namespace lanner::net;

namespace {

constexpr std::string_view kRevision = R"({"sha": "0123456789012345678901234567890123456789"})";

/// Answers the question for the commit well, and every other one with the input.
class FakeClient final : public HttpClient {
 public:
  explicit FakeClient(std::string_view body) : body_(body) {}

  Result<HttpHead> exchange(const HttpRequest& request, BodySink& sink) override {
    HttpHead head{.status = 200, .headers = {}, .url = request.url};
    LANNER_RETURN_IF_ERROR(sink.begin(head));
    const bool is_revision = request.url.find("/revision/") != std::string::npos;
    LANNER_RETURN_IF_ERROR(sink.write(is_revision ? kRevision : body_));
    return head;
  }

 private:
  std::string_view body_;
};

void require(bool promise) {
  if (!promise) std::abort();
}

void check_list(HubService& hub, const ModelId& id) {
  const Result<Repository> repository = hub.list(id, "main");
  if (!repository.ok()) {
    require(repository.status().message().find('\n') == std::string::npos);
    return;
  }
  std::int64_t total = 0;
  for (const RepositoryFile& file : repository->files) {
    require(!file.path.empty() && file.path.front() != '/' && file.path.find('\0') == std::string::npos);
    require(("/" + file.path + "/").find("/../") == std::string::npos);
    require((file.checksum.empty() || is_digest_name(file.checksum)) && file.size >= 0 &&
            !__builtin_add_overflow(total, file.size, &total));
  }
  const Result<FileChoice> choice = choose_files(repository->files, id);
  if (choice.ok()) require(!choice->files.empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  FakeClient client(text);
  Environment environment;
  environment.endpoint = "https://hub.example";
  check_list(*make_hugging_face(client, environment, {}), {"org", "name", ""});
  check_list(*make_modelscope(client, environment, {}), {"org", "name", "Q4"});
  if (const auto names = shard_names(text, "index"); names.ok()) {
    for (const std::string& name : *names) require(name.find('/') == std::string::npos && name != "..");
  }
  const Url base{.https = true, .host = "hub.example", .port = 443, .target = "/a/b?c"};
  if (const Result<Url> url = resolve_reference(base, text); url.ok()) {
    require(url->target.starts_with('/') && url->port != 0 && !url->host.empty());
    require(url->text().find_first_of(" \r\n") == std::string::npos);
    const Result<Url> again = parse_url(url->text());
    require(again.ok() && again->text() == url->text());
  }
  if (const auto id = parse_model_id(text)) require(id->repository().find("..") == std::string::npos);
  (void)proxy_for(base, {.http = "", .https = std::string(text), .exceptions = std::string(text)}).ok();
  (void)retry_after(text, {}).has_value();
  return 0;
}
