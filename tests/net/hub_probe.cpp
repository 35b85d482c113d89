// The door of src/net for tests/net, without a model behind it. Not installed.
//
//   hub_probe find MODEL [REVISION [FOLDER]]   prints the path; notes and the last progress go to stderr
//   hub_probe get URL [TOKEN]                  prints the status, each header and, after an empty line, the body
//   hub_probe twice URL                        get, again, over one client
//   hub_probe post URL BODY
//
// SIGINT sets the flag for cancelling. A failure prints "error CODE: MESSAGE" on stderr and exits with 1.

#include <fmt/format.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include "net/environment.h"
#include "net/http_client.h"
#include "net/hub.h"

namespace lanner::net {
namespace {

constexpr std::int64_t kMaxBody = 16 << 20;

std::atomic<bool> cancelled = false;

int fail(const Status& status) {
  fmt::print(stderr, "error {}: {}\n", status_code_name(status.code()), status.message());
  return 1;
}

int find(const std::vector<std::string>& arguments) {
  const auto argument = [&](std::size_t i) { return i < arguments.size() ? arguments[i] : std::string(); };
  DownloadProgress last;
  const Result<std::string> path =
      find_model({.model = argument(1),
                  .revision = argument(2),
                  .download_dir = argument(3),
                  .progress = [&](const DownloadProgress& progress) { last = progress; },
                  .note = [](std::string_view text) { fmt::print(stderr, "note: {}\n", text); },
                  .cancelled = &cancelled});
  fmt::print(stderr, "progress {} {} {} {:.3f}\n", last.done_bytes, last.total_bytes, last.start_bytes, last.share());
  if (!path.ok()) return fail(path.status());
  fmt::print("{}\n", *path);
  return 0;
}

int exchange(HttpClient& client, HttpRequest request) {
  request.cancelled = &cancelled;
  const Result<HttpResponse> answer = fetch(client, request, kMaxBody);
  if (!answer.ok()) return fail(answer.status());
  fmt::print("{} {}\n", answer->head.status, answer->head.url);
  for (const auto& [name, value] : answer->head.headers) fmt::print("{}: {}\n", name, value);
  fmt::print("\n{}", answer->body);
  return 0;
}

int run(const std::vector<std::string>& arguments) {
  if (arguments.size() >= 2 && arguments[0] == "find") return find(arguments);
  if (arguments.size() < 2) return fail(invalid_argument("usage: hub_probe find|get|twice|post …"));
  const Result<Environment> environment = read_environment();
  if (!environment.ok()) return fail(environment.status());
  const auto client = make_http_client({.connect_timeout = environment->head_timeout,
                                        .head_timeout = environment->head_timeout,
                                        .idle_timeout = environment->idle_timeout,
                                        .proxies = environment->proxies});
  HttpRequest request{.url = arguments[1]};
  if (arguments[0] == "post") {
    request.method = "POST";
    request.body = arguments.at(2);
  } else if (arguments.size() > 2) {
    request.authorization = "Bearer " + arguments[2];
  }
  const int code = exchange(*client, request);
  return arguments[0] == "twice" && code == 0 ? exchange(*client, request) : code;
}

}  // namespace
}  // namespace lanner::net

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGINT, [](int /*signal*/) { lanner::net::cancelled = true; });
  try {
    return lanner::net::run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
