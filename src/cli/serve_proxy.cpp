#include "cli/serve_proxy.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "cli/arguments.h"
#include "cli/output.h"
#include "cli/shutdown_signals.h"
#include "net/environment.h"
#include "net/url.h"
#include "server/http_server.h"
#include "server/proxy_service.h"

namespace lanner::cli {
namespace {

constexpr std::chrono::milliseconds kPoll(20);
constexpr double kMostSeconds = 86'400;

struct ProxyFlags {
  std::string server_name = "127.0.0.1";
  int server_port = 8000;
  std::string routing = "min_expected_latency";
  std::vector<std::string> api_keys;
  bool disable_cache_status = false;
  bool ssl = false;
  double health_interval_s = 5;
  double drain_timeout_s = 30;
  bool access_log = false;
  std::string log_level = "WARNING";
  // Accepted in one value.
  std::string serving_strategy = "Hybrid";
  // Without effect.
  bool dummy_prefill = false;
  std::string migration_protocol;
  std::string link_type;
  bool disable_gdr = false;
};

void add_proxy_flags(CLI::App& verb, ProxyFlags& flags) {
  verb.add_option("--server-name", flags.server_name, "Address to listen on; 0.0.0.0 is all of this machine's");
  limit(verb.add_option("--server-port", flags.server_port, "Port; 0 takes any that is free"), 0, 65535);
  add_choice(verb, "--routing-strategy", flags.routing,
             {"random", "min_expected_latency", "min_observed_latency", "prefix_hash"},
             "Who gets a request; prefix_hash keeps requests that begin alike together");
  verb.add_option("--api-keys", flags.api_keys, "Keys that open the proxy; they are passed on to the servers")
      ->default_str("none");
  verb.add_flag("--disable-cache-status", flags.disable_cache_status, "Do not keep the nodes in proxy_config.json");
  verb.add_flag("--ssl", flags.ssl, "TLS, with the files of SSL_CERTFILE and SSL_KEYFILE");
  verb.add_option("--health-interval", flags.health_interval_s, "Seconds between two checks of the servers' health");
  verb.add_option("--drain-timeout", flags.drain_timeout_s,
                  "Seconds that answers under way have once the proxy is told to end");
  verb.add_flag("--access-log", flags.access_log, "A line of JSON for each request on stderr");
  add_choice(verb, "--log-level", flags.log_level,
             {"CRITICAL", "ERROR", "WARNING", "WARN", "INFO", "DEBUG", "FATAL", "NOTSET"},
             "INFO and DEBUG turn --access-log on");
  std::vector<CLI::Option*> options;
  options.push_back(
      add_choice(verb, "--serving-strategy", flags.serving_strategy, {"Hybrid", "DistServe"}, "Only Hybrid"));
  options.push_back(verb.add_flag("--dummy-prefill", flags.dummy_prefill, "Without effect"));
  options.push_back(verb.add_option("--migration-protocol", flags.migration_protocol, "Without effect"));
  options.push_back(verb.add_option("--link-type", flags.link_type, "Without effect"));
  options.push_back(verb.add_flag("--disable-gdr", flags.disable_gdr, "Without effect"));
  for (CLI::Option* option : options) option->group(kCompatibleGroup);
}

Result<server::ProxyOptions> proxy_options(const ProxyFlags& flags, const ServeFlags& listening) {
  if (flags.serving_strategy != "Hybrid") return not_yet("--serving-strategy " + flags.serving_strategy);
  if (flags.health_interval_s < 0.1 || flags.health_interval_s > kMostSeconds) {
    return invalid_argument("--health-interval must be 0.1 to 86400 seconds");
  }
  if (flags.drain_timeout_s < 0 || flags.drain_timeout_s > kMostSeconds) {
    return invalid_argument("--drain-timeout must be 0 to 86400 seconds");
  }
  server::ProxyOptions options;
  if (flags.routing == "random") options.routing = server::Routing::kRandom;
  if (flags.routing == "min_observed_latency") options.routing = server::Routing::kMinObservedLatency;
  if (flags.routing == "prefix_hash") options.routing = server::Routing::kPrefixHash;
  LANNER_ASSIGN_OR_RETURN(options.api_keys, read_keys(listening));
  const bool local = net::is_loopback(flags.server_name);
  options.check_host = local && options.api_keys.empty();
  if (!local && options.api_keys.empty()) {
    warn(
        fmt::format("{} is open to others and asks for no key: anybody who reaches it can use it and add servers "
                    "(--api-keys)",
                    flags.server_name));
  }
  if (!flags.disable_cache_status) options.state_file = "proxy_config.json";
  options.health_interval = milliseconds(flags.health_interval_s);
  // LMDeploy's variable for how long the proxy waits for a server, in seconds.
  LANNER_RETURN_IF_ERROR(net::read_seconds("AIOHTTP_TIMEOUT", options.upstream.answer_timeout));
  options.tell = inform;
  options.log = access_log(flags.access_log, flags.log_level);
  return options;
}

Status run_proxy(const ProxyFlags& flags) {
  ServeFlags listening;
  listening.api_keys = flags.api_keys;
  listening.server_name = flags.server_name;
  listening.server_port = flags.server_port;
  listening.ssl = flags.ssl;
  LANNER_ASSIGN_OR_RETURN(server::ProxyOptions options, proxy_options(flags, listening));
  LANNER_ASSIGN_OR_RETURN(const server::HttpServerOptions http, http_options(listening));
  allow_many_files();
  ShutdownSignals& signals = ShutdownSignals::install();
  server::ProxyService proxy(std::move(options));
  LANNER_ASSIGN_OR_RETURN(const auto server, server::HttpServer::start(http, proxy));
  announce(http, server->port());
  while (!signals.take()) signals.wait(std::chrono::hours(1));
  inform("Shutting down");
  server->drain();
  const auto until = std::chrono::steady_clock::now() + milliseconds(flags.drain_timeout_s);
  while (server->connections() > 0 && !signals.take() && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(kPoll);
  }
  server->stop();
  inform("Finished server process");
  return {};
}

/// "http://proxy:8000" of what a user writes.
Result<std::string> proxy_address(std::string url) {
  if (!url.starts_with("http://") && !url.starts_with("https://")) url.insert(0, "http://");
  while (url.ends_with('/')) url.pop_back();
  LANNER_ASSIGN_OR_RETURN(const net::Url parsed, net::parse_url(url));
  if (parsed.target != "/") return invalid_argument("--proxy-url: must be the proxy's address without a path");
  return parsed.origin();
}

}  // namespace

void add_serve_proxy(CLI::App& group, Run& run) {
  const auto flags = std::make_shared<ProxyFlags>();
  CLI::App* verb = group.add_subcommand("proxy", "Spread requests over several API servers");
  add_proxy_flags(*verb, *flags);
  verb->callback([&run, flags] { run = [flags] { return exit_code(run_proxy(*flags)); }; });
}

Result<std::unique_ptr<server::ProxyRegistration>> register_at_proxy(const ServeFlags& flags,
                                                                     const server::HttpServerOptions& http,
                                                                     std::uint16_t port,
                                                                     const server::ServiceOptions& service) {
  if (flags.proxy_url.empty()) return std::unique_ptr<server::ProxyRegistration>();
  if (!http.certificate_file.empty()) {
    return Status(StatusCode::kUnsupported, "--proxy-url: a proxy reaches servers by http:// alone, not with --ssl");
  }
  server::ProxyRegistrationOptions options;
  LANNER_ASSIGN_OR_RETURN(options.proxy, proxy_address(flags.proxy_url));
  std::string host = http.host;
  if (host == "0.0.0.0" || host == "::") {
    LANNER_ASSIGN_OR_RETURN(host, server::own_address_towards(options.proxy));
  } else if (host.find(':') != std::string::npos) {
    host = "[" + host + "]";
  }
  options.own_url = fmt::format("http://{}:{}", host, port);
  options.model_name = service.model_name;
  if (!service.api_keys.empty()) options.api_key = service.api_keys.front();
  options.tell = inform;
  return std::make_unique<server::ProxyRegistration>(std::move(options));
}

}  // namespace lanner::cli
