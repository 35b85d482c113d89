#pragma once
// A conversation in the terminal with a server elsewhere: `lanner serve api_client URL`.
//
// It speaks /v1/chat/interactive, where the server keeps the conversation, as LMDeploy's client does; with a server
// that has no such route it keeps the conversation itself and speaks /v1/chat/completions.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cli/block_reader.h"
#include "cli/interrupts.h"
#include "cli/line_reader.h"
#include "lanner/status.h"
#include "net/http_client.h"

namespace lanner::cli {

struct ApiClientOptions {
  std::string url;  // without a slash at its end
  std::string api_key;
  std::int64_t session_id = 1;
  net::ProxySettings proxies;
};

class ApiClient {
 public:
  ApiClient(ApiClientOptions options, LineReader& lines, Interrupts& interrupts);

  /// The exit code: as ChatLoop's.
  int run();

 private:
  enum class Turn { kGoOn, kStop };
  struct Said {
    std::string role;
    std::string text;
  };

  Turn handle(const Block& block);
  Turn answer(const std::string& text);
  /// A request whose answer is written to stdout as it comes. `reply` gets all of it.
  Status talk(const std::string& path, const std::string& body, std::string& reply);
  Status ask_session(const std::string& text, std::string& reply);
  Status ask_without_session(const std::string& text, std::string& reply);
  /// The name of the first model that the server has.
  Result<std::string> find_model();
  void end_conversation();
  net::HttpRequest request(const std::string& path, std::string body) const;

  const ApiClientOptions options_;
  LineReader& lines_;
  Interrupts& interrupts_;
  const bool interactive_;  // stdin is a terminal
  std::unique_ptr<net::HttpClient> client_;
  bool sessions_ = true;  // the server has them, as far as is known
  bool begun_ = false;    // there is a session to end
  bool interrupted_ = false;
  std::string model_;
  std::vector<Said> said_;  // where the server has no sessions
  int exit_code_ = 0;
};

}  // namespace lanner::cli
