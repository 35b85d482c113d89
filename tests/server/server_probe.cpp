// The server over an engine that follows a script, for the tests of tests/server and for measuring what the server
// itself costs:
//
//   server_probe [--port N] [--places N] [--session-len N] [--key KEY] [--answer TEXT] [--tokens N] [--delay-us N]
//                [--tools PARSER] [--thoughts 1] [--batch N] [--walk 1]
//
// Prints "port N" and serves until SIGTERM, as `lanner serve api_server` does. Tokens are bytes. The answer is --answer
// (--tokens: so many letters instead), unless the prompt has a word in brackets: [endless], [fail], [slow] (a token in
// 20 ms), or [say TEXT]. With --walk a request with a grammar gets one of the texts that it allows, drawn by its seed.

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "pipeline/pipeline_test_support.h"
#include "server/http_server.h"
#include "server/service.h"
#include "server/shut_down.h"

namespace {

using namespace lanner;

volatile std::sig_atomic_t stopping = 0;
void on_signal(int /*signal*/) { stopping = 1; }

/// The last there is.
std::string between(const std::string& text, const std::string& begin, const std::string& end) {
  const std::size_t from = text.rfind(begin);
  if (from == std::string::npos) return "";
  const std::size_t start = from + begin.size();
  return text.substr(start, text.find(end, start) - start);
}

Script script_for(const Request& request, const std::vector<std::int32_t>& answer, std::chrono::microseconds delay) {
  std::string prompt;
  for (const std::int32_t id : request.prompt) {
    if (id < 256) prompt += static_cast<char>(id);
  }
  Script script;
  script.delay = delay;
  script.tokens = {answer};
  const std::string say = between(prompt, "[say ", "]");
  if (!say.empty()) {
    script.tokens = {byte_tokens(say)};
    script.tokens.front().push_back(kTestEos);
  }
  script.endless = prompt.find("[endless]") != std::string::npos;
  if (script.endless) std::erase(script.tokens.front(), kTestEos);
  if (prompt.find("[fail]") != std::string::npos) script.fail_after = 2;
  if (prompt.find("[slow]") != std::string::npos) script.delay = std::chrono::milliseconds(20);
  return script;
}

}  // namespace

int main(int argc, char** argv) {
  std::map<std::string, std::string> flags{{"--port", "0"},
                                           {"--places", "0"},
                                           {"--session-len", "8192"},
                                           {"--key", ""},
                                           {"--answer", "Hello world"},
                                           {"--tokens", "0"},
                                           {"--delay-us", "0"},
                                           {"--tools", ""},
                                           {"--thoughts", "0"},
                                           {"--batch", "0"},
                                           {"--walk", "0"}};
  for (int i = 1; i + 1 < argc; i += 2) flags[argv[i]] = argv[i + 1];
  const auto number = [&](const char* name) { return std::stoi(flags[name]); };
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGTERM, on_signal);

  std::vector<std::int32_t> answer = byte_tokens(flags["--answer"]);
  if (number("--tokens") > 0) answer.assign(static_cast<std::size_t>(number("--tokens")), 'x');
  answer.push_back(kTestEos);
  const std::chrono::microseconds delay(number("--delay-us"));
  const bool tools = !flags["--tools"].empty();
  const std::string jinja =
      (tools ? std::string("{% if tools %}{{ tools | tojson }}{% endif %}") : "") + std::string(kTestTemplate);
  const bool walks = number("--walk") != 0;
  const auto author = [=](const Request& request) {
    Script script = script_for(request, answer, delay);
    if (walks) script.walk = WalkOptions{.vocab_size = kTestBos + 1, .closing = byte_tokens("\"]}")};
    return script;
  };
  TestPipeline test = make_test_pipeline(
      author, {.session_len = number("--session-len"), .max_batch = number("--batch"), .remembers = false}, jinja);
  server::ServiceOptions options{.max_places = number("--places"),
                                 .tools = server::find_tool_syntax(flags["--tools"]),
                                 .thoughts = number("--thoughts") != 0};
  if (!flags["--key"].empty()) options.api_keys = {flags["--key"]};
  server::Service service(std::move(test.pipeline), options);
  auto server = server::HttpServer::start({.port = static_cast<std::uint16_t>(number("--port"))}, service);
  if (!server.ok()) {
    std::fprintf(stderr, "%s\n", server.status().message().c_str());
    return 1;
  }
  std::printf("port %d\n", (*server)->port());
  std::fflush(stdout);
  while (stopping == 0) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  server::shut_down(service, **server, std::chrono::seconds(5), [] { return false; });
  return 0;
}
