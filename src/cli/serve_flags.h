#pragma once
// The flags of `lanner serve api_server`, with the names and meanings of LMDeploy's.

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cli/engine_flags.h"
#include "lanner/status.h"
#include "server/http_server.h"
#include "server/service.h"

namespace lanner::cli {

struct ServeFlags {
  EngineFlags engine;
  std::string server_name = "127.0.0.1";
  int server_port = 23333;
  std::string model_name;
  std::vector<std::string> api_keys;
  std::string api_key_file;
  std::vector<std::string> allow_origins;
  std::vector<std::string> allow_methods{"*"};
  std::vector<std::string> allow_headers{"*"};
  bool allow_credentials = false;
  bool ssl = false;
  std::string ssl_certificate;
  std::string ssl_key;
  int max_concurrent_requests = 0;
  int max_queue = -1;
  double drain_timeout_s = 30;
  bool access_log = false;
  std::string log_level = "WARNING";
  bool disable_docs = false;
  bool disable_metrics = false;
  std::string metrics_prefix = "lanner";
  std::string tool_call_parser;
  std::string reasoning_parser;
  bool allow_terminate = false;
  bool allow_abort = false;
  bool allow_sleep = false;
  // Accepted in some values so far.
  int cache_block_seq_len = 64;
  std::string generation_config = "auto";
  std::string hf_overrides;
  std::string proxy_url;
  std::string logprobs_mode;
  int dp = 1;
  int ep = 1;
  int nnodes = 1;
  int node_rank = 0;
  std::string dist_init_addr;
  // Without effect.
  bool enable_metrics = false;
  int max_log_len = 0;
  int num_tokens_per_iter = 0;
  int max_prefill_iters = 1;
  std::vector<std::string> allowed_media_domains;
  int vision_max_batch_size = 1;
  std::string qos_config_path;
};

void add_serve_flags(CLI::App& verb, ServeFlags& flags);

/// What is served and to whom; keys come from the flag, the file, and LANNER_API_KEY. kUnsupported for what is not
/// available yet. max_places is left to most_answers().
Result<server::ServiceOptions> service_options(const ServeFlags& flags);
/// The keys of --api-keys, LANNER_API_KEY and --api-key-file; one that is no key is an error.
Result<std::vector<std::string>> read_keys(const ServeFlags& flags);
/// Those that are made at once, `sequences`, and those that wait.
std::int64_t most_answers(const ServeFlags& flags, std::int64_t sequences);
/// Where it listens; files of TLS come from the flags, else from SSL_CERTFILE and SSL_KEYFILE.
Result<server::HttpServerOptions> http_options(const ServeFlags& flags);
/// The flags of the engine, with those of the server that bear on it.
EngineFlags engine_flags(const ServeFlags& flags);
/// Lets this process have as many files, which connections are, as the system allows.
void allow_many_files();
/// Where the lines of the access log go: to stderr, where --access-log or --log-level asks for them; else empty.
std::function<void(const std::string&)> access_log(bool wanted, const std::string& log_level);
/// A line about what goes on, on stderr.
void inform(const std::string& line);
/// A flag's seconds.
std::chrono::milliseconds milliseconds(double seconds);
/// "http" or "https".
const char* scheme_of(const server::HttpServerOptions& options);
/// Says where it listens, in the lines that scripts written for LMDeploy wait for.
void announce(const server::HttpServerOptions& options, std::uint16_t port);

}  // namespace lanner::cli
