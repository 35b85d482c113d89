#include "cli/serve_flags.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <thread>
#include <utility>

#include "cli/arguments.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "net/url.h"

namespace lanner::cli {
namespace {

constexpr std::size_t kMaxKeys = 1'024;
constexpr std::size_t kLeastKeyBytes = 1;

void add_own_flags(CLI::App& verb, ServeFlags& flags) {
  std::vector<CLI::Option*> options;
  const auto add = [&](CLI::Option* option) {
    option->group("Server");
    return option;
  };
  add(verb.add_option("--server-name", flags.server_name, "Address to listen on; 0.0.0.0 is all of this machine's"));
  limit(add(verb.add_option("--server-port", flags.server_port, "Port; 0 takes any that is free")), 0, 65535);
  add(verb.add_option("--model-name", flags.model_name, "What clients call the model"))
      ->default_str("the last part of its path");
  add(verb.add_option("--api-keys", flags.api_keys, "Keys that open the server; see also LANNER_API_KEY"))
      ->default_str("none");
  add(verb.add_option("--api-key-file", flags.api_key_file, "A file of keys, one a line"))->default_str("none");
  add(verb.add_option("--allow-origins", flags.allow_origins, "Web sites whose pages may call; * is all"))
      ->default_str("none");
  add(verb.add_option("--allow-methods", flags.allow_methods, "And with which methods"));
  add(verb.add_option("--allow-headers", flags.allow_headers, "And headers"));
  add(verb.add_flag("--allow-credentials", flags.allow_credentials, "And cookies"));
  add(verb.add_flag("--ssl", flags.ssl, "TLS, with the files of SSL_CERTFILE and SSL_KEYFILE"));
  add(verb.add_option("--ssl-certfile", flags.ssl_certificate, "The certificate instead (PEM)"))->default_str("none");
  add(verb.add_option("--ssl-keyfile", flags.ssl_key, "Its key (PEM)"))->default_str("none");
  limit(add(verb.add_option("--max-concurrent-requests", flags.max_concurrent_requests,
                            "Answers that are made at once; others wait")),
        0, 1 << 20)
      ->default_str("--max-batch-size");
  limit(add(verb.add_option("--max-queue", flags.max_queue, "Answers that may wait; one more is refused with 429")), 0,
        1 << 20)
      ->default_str("4 times as many as run");
  add(verb.add_option("--drain-timeout", flags.drain_timeout_s,
                      "Seconds that answers under way have once the server is told to end"));
  add(verb.add_flag("--access-log", flags.access_log, "A line of JSON for each request on stderr"));
  add_choice(verb, "--log-level", flags.log_level,
             {"CRITICAL", "ERROR", "WARNING", "WARN", "INFO", "DEBUG", "FATAL", "NOTSET"},
             "INFO and DEBUG turn --access-log on")
      ->group("Server");
  add(verb.add_option("--tool-call-parser", flags.tool_call_parser,
                      "How the model writes calls of tools: " + server::tool_syntax_names()))
      ->default_str("none: requests with tools are refused");
  add(verb.add_option("--reasoning-parser", flags.reasoning_parser,
                      "Tells thoughts (<think>) apart from answers: " + server::reasoning_parser_names()))
      ->default_str("none: they are part of the answer");
  add(verb.add_flag("--disable-fastapi-docs", flags.disable_docs, "Neither / nor /openapi.json"));
  add(verb.add_flag("--disable-metrics", flags.disable_metrics, "No /metrics"));
  add(verb.add_option("--metrics-prefix", flags.metrics_prefix, "In front of the names in /metrics"));
  add(verb.add_option("--proxy-url", flags.proxy_url, "A proxy (lanner serve proxy) to register at"))
      ->default_str("none");
  add(verb.add_flag("--allow-terminate-by-client", flags.allow_terminate, "GET /terminate, with a key"));
  add(verb.add_flag("--enable-abort-handling", flags.allow_abort, "POST /abort_request, with a key"));
  add(verb.add_flag("--enable-sleep", flags.allow_sleep, "POST /sleep and /wakeup, with a key"));
}

void add_compatible_flags(CLI::App& verb, ServeFlags& flags) {
  std::vector<CLI::Option*> options;
  const auto add = [&](CLI::Option* option) { options.push_back(option); };
  add(verb.add_option("--cache-block-seq-len", flags.cache_block_seq_len, "Tokens of a cache block: always 64"));
  add(verb.add_option("--generation-config", flags.generation_config, "Only auto: the model's own"));
  add(verb.add_flag("--enable-metrics", flags.enable_metrics, "The default already"));
  add(verb.add_option("--max-log-len", flags.max_log_len, "Without effect: prompts are never logged"));
  add(verb.add_option("--num-tokens-per-iter", flags.num_tokens_per_iter,
                      "Without effect: see --max-prefill-token-num"));
  add(verb.add_option("--max-prefill-iters", flags.max_prefill_iters, "Without effect: see --max-prefill-token-num"));
  add(verb.add_option("--allowed-media-domains", flags.allowed_media_domains, "Without effect until images come"));
  add(verb.add_option("--vision-max-batch-size", flags.vision_max_batch_size, "Without effect until images come"));
  add(add_choice(verb, "--logprobs-mode", flags.logprobs_mode, {"raw_logprobs", "raw_logits"},
                 "Only raw_logprobs: of the model, before any filter"));
  add(verb.add_option("--dp", flags.dp, "Only 1"));
  add(verb.add_option("--ep", flags.ep, "Only 1"));
  add(verb.add_option("--nnodes", flags.nnodes, "Only 1"));
  add(verb.add_option("--node-rank", flags.node_rank, "Only 0"));
  add(verb.add_option("--dist-init-addr", flags.dist_init_addr, "Without effect on one machine"));
  add(verb.add_option("--qos-config-path", flags.qos_config_path, "Ignored, with a warning"));
  for (CLI::Option* option : options) option->group(kCompatibleGroup);
}

void add_later_flags(CLI::App& verb, ServeFlags& flags) {
  constexpr const char* kLaterGroup = "Not available yet in this version";
  verb.add_option("--hf-overrides", flags.hf_overrides, "Changes to config.json")->group(kLaterGroup);
}

Status check_available(const ServeFlags& flags) {
  if (!flags.hf_overrides.empty()) return not_yet("--hf-overrides");
  if (flags.generation_config != "auto") return not_yet("--generation-config " + flags.generation_config);
  if (flags.logprobs_mode == "raw_logits") return not_yet("--logprobs-mode raw_logits");
  if (flags.cache_block_seq_len != 64)
    return not_yet(fmt::format("--cache-block-seq-len {}", flags.cache_block_seq_len));
  if (flags.dp != 1) return not_yet(fmt::format("--dp {}", flags.dp));
  if (flags.ep != 1) return not_yet(fmt::format("--ep {}", flags.ep));
  if (flags.nnodes != 1) return not_yet(fmt::format("--nnodes {}", flags.nnodes));
  if (flags.node_rank != 0) return not_yet(fmt::format("--node-rank {}", flags.node_rank));
  if (flags.drain_timeout_s < 0 || flags.drain_timeout_s > 86'400) {
    return invalid_argument("--drain-timeout must be 0 to 86400 seconds");
  }
  const bool named = !flags.metrics_prefix.empty() && std::ranges::all_of(flags.metrics_prefix, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  });
  if (!named) return invalid_argument("--metrics-prefix has letters and underscores alone");
  return {};
}

/// A flag that takes a list also takes a MODEL that stands right behind it, and then the default one would be served.
Status check_model_was_meant(const ServeFlags& flags) {
  if (!flags.engine.model.empty()) return {};
  const std::array<std::pair<const char*, const std::vector<std::string>*>, 4> lists{{
      {"--api-keys", &flags.api_keys},
      {"--allow-origins", &flags.allow_origins},
      {"--allow-methods", &flags.allow_methods},
      {"--allow-headers", &flags.allow_headers},
  }};
  for (const auto& [name, list] : lists) {
    std::error_code ignored;
    if (list->empty() || !std::filesystem::exists(list->back(), ignored)) continue;
    return invalid_argument(
        fmt::format("{} takes all words behind it, and so '{}', too: put MODEL in front", name, list->back()));
  }
  return {};
}

/// How the model's text is read.
Status set_parsers(const ServeFlags& flags, server::ServiceOptions& options) {
  if (!flags.tool_call_parser.empty()) {
    options.tools = server::find_tool_syntax(flags.tool_call_parser);
    if (options.tools == nullptr) {
      return invalid_argument(
          fmt::format("--tool-call-parser {}: there are {}", flags.tool_call_parser, server::tool_syntax_names()));
    }
  }
  options.thoughts = !flags.reasoning_parser.empty();
  if (options.thoughts && !server::is_reasoning_parser(flags.reasoning_parser)) {
    return invalid_argument(
        fmt::format("--reasoning-parser {}: there are {}", flags.reasoning_parser, server::reasoning_parser_names()));
  }
  return {};
}

void tell_about_ignored(const ServeFlags& flags) {
  const std::array<std::pair<const char*, bool>, 5> ignored{{
      {"--max-log-len: prompts are never logged, the flag changes nothing", flags.max_log_len != 0},
      {"--num-tokens-per-iter changes nothing: prompts share each step with answers (--max-prefill-token-num)",
       flags.num_tokens_per_iter != 0},
      {"--max-prefill-iters changes nothing: prompts share each step with answers (--max-prefill-token-num)",
       flags.max_prefill_iters != 1},
      {"--allowed-media-domains changes nothing until images come", !flags.allowed_media_domains.empty()},
      {"--qos-config-path belongs to an older server and is ignored", !flags.qos_config_path.empty()},
  }};
  for (const auto& [text, given] : ignored) {
    if (given) note(text);
  }
}

Status add_key(std::vector<std::string>& keys, std::string key, const std::string& where) {
  const bool printable = std::ranges::all_of(key, [](char c) { return c > ' ' && c < 127; });
  if (key.size() < kLeastKeyBytes || !printable) {
    return invalid_argument(where + ": a key has only visible ASCII characters and no blank");
  }
  if (keys.size() >= kMaxKeys) return invalid_argument(fmt::format("{}: more than {} keys", where, kMaxKeys));
  keys.push_back(std::move(key));
  return {};
}

}  // namespace

Result<std::vector<std::string>> read_keys(const ServeFlags& flags) {
  std::vector<std::string> keys;
  for (const std::string& key : flags.api_keys) LANNER_RETURN_IF_ERROR(add_key(keys, key, "--api-keys"));
  if (const char* key = std::getenv("LANNER_API_KEY"); key != nullptr && *key != '\0') {
    LANNER_RETURN_IF_ERROR(add_key(keys, key, "LANNER_API_KEY"));
  }
  if (flags.api_key_file.empty()) return keys;
  std::ifstream file(flags.api_key_file);
  if (!file) return not_found(fmt::format("{}: cannot be read (--api-key-file)", flags.api_key_file));
  for (std::string line; std::getline(file, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty()) LANNER_RETURN_IF_ERROR(add_key(keys, line, flags.api_key_file));
  }
  if (keys.empty()) return invalid_argument(fmt::format("{}: holds no key", flags.api_key_file));
  return keys;
}

void add_serve_flags(CLI::App& verb, ServeFlags& flags) {
  add_own_flags(verb, flags);
  add_engine_flags(verb, flags.engine);
  add_request_flags(verb, flags.engine);
  add_compatible_flags(verb, flags);
  add_later_flags(verb, flags);
}

EngineFlags engine_flags(const ServeFlags& flags) {
  EngineFlags engine = flags.engine;
  if (flags.max_concurrent_requests > 0) {
    const int most = std::min(flags.max_concurrent_requests, kMostSequences);
    engine.max_batch_size = std::min(engine.max_batch_size.value_or(most), most);
  }
  return engine;
}

std::int64_t most_answers(const ServeFlags& flags, std::int64_t sequences) {
  return sequences + (flags.max_queue >= 0 ? flags.max_queue : 4 * sequences);
}

Result<server::ServiceOptions> service_options(const ServeFlags& flags) {
  LANNER_RETURN_IF_ERROR(check_available(flags));
  LANNER_RETURN_IF_ERROR(check_model_was_meant(flags));
  server::ServiceOptions options;
  options.model_name = flags.model_name;
  LANNER_ASSIGN_OR_RETURN(options.api_keys, read_keys(flags));
  options.allow_origins = flags.allow_origins;
  options.allow_methods = flags.allow_methods;
  options.allow_headers = flags.allow_headers;
  options.allow_credentials = flags.allow_credentials;
  const bool local = net::is_loopback(flags.server_name);
  options.check_host = local && options.api_keys.empty();
  options.docs = !flags.disable_docs;
  options.metrics = !flags.disable_metrics;
  options.metrics_prefix = flags.metrics_prefix;
  LANNER_RETURN_IF_ERROR(set_parsers(flags, options));
  options.allow_terminate = flags.allow_terminate;
  options.allow_abort = flags.allow_abort;
  options.allow_sleep = flags.allow_sleep;
  if ((flags.allow_terminate || flags.allow_abort || flags.allow_sleep) && options.api_keys.empty()) {
    return invalid_argument(
        "--allow-terminate-by-client, --enable-abort-handling and --enable-sleep need an API key (--api-keys)");
  }
  if (!local && options.api_keys.empty()) {
    warn(fmt::format("{} is open to others and asks for no key: anybody who reaches it can use it (--api-keys)",
                     flags.server_name));
  }
  tell_about_ignored(flags);
  return options;
}

void allow_many_files() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
}

std::function<void(const std::string&)> access_log(bool wanted, const std::string& log_level) {
  if (!wanted && log_level != "INFO" && log_level != "DEBUG") return {};
  return [](const std::string& line) { write_stderr(printable(line) + "\n"); };
}

void inform(const std::string& line) { write_stderr(fmt::format("INFO:     {}\n", printable(line))); }

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000));
}

const char* scheme_of(const server::HttpServerOptions& options) {
  return options.certificate_file.empty() ? "http" : "https";
}

void announce(const server::HttpServerOptions& options, std::uint16_t port) {
  const bool six = options.host.find(':') != std::string::npos;
  const std::string url =
      fmt::format("{}://{}{}{}:{}", scheme_of(options), six ? "[" : "", options.host, six ? "]" : "", port);
  write_stderr(
      fmt::format("HINT:    Please open {} in a browser for detailed api usage!!!\n"
                  "INFO:     Started server process [{}]\n"
                  "INFO:     Application startup complete.\n"
                  "INFO:     Lanner running on {} (Press CTRL+C to quit)\n",
                  url, ::getpid(), url));
}

Result<server::HttpServerOptions> http_options(const ServeFlags& flags) {
  server::HttpServerOptions options;
  options.host = flags.server_name;
  options.port = static_cast<std::uint16_t>(flags.server_port);
  options.workers = std::clamp(static_cast<int>(std::thread::hardware_concurrency()) / 4, 2, 8);
  const bool wanted = flags.ssl || !flags.ssl_certificate.empty() || !flags.ssl_key.empty();
  if (!wanted) return options;
  const auto file_of = [](const std::string& flag, const char* variable) {
    const char* value = std::getenv(variable);
    return flag.empty() && value != nullptr ? std::string(value) : flag;
  };
  options.certificate_file = file_of(flags.ssl_certificate, "SSL_CERTFILE");
  options.key_file = file_of(flags.ssl_key, "SSL_KEYFILE");
  if (options.certificate_file.empty() || options.key_file.empty()) {
    return invalid_argument(
        "--ssl needs a certificate and its key: SSL_CERTFILE and SSL_KEYFILE, or --ssl-certfile "
        "and --ssl-keyfile");
  }
  return options;
}

}  // namespace lanner::cli
