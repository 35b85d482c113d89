// lanner serve: the API server, and what talks to one.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <utility>

#include "cli/api_client.h"
#include "cli/arguments.h"
#include "cli/interrupts.h"
#include "cli/line_reader.h"
#include "cli/output.h"
#include "cli/serve_flags.h"
#include "cli/serve_proxy.h"
#include "cli/shutdown_signals.h"
#include "cli/verbs.h"
#include "net/environment.h"
#include "net/url.h"
#include "server/shut_down.h"

namespace lanner::cli {
namespace {

Status run_server(const ServeFlags& flags) {
  const EngineFlags engine = engine_flags(flags);
  LANNER_ASSIGN_OR_RETURN(PipelineOptions pipeline_flags, pipeline_options(engine));
  LANNER_ASSIGN_OR_RETURN(server::ServiceOptions options, service_options(flags));
  LANNER_ASSIGN_OR_RETURN(const server::HttpServerOptions http, http_options(flags));
  options.scheme = scheme_of(http);
  LANNER_ASSIGN_OR_RETURN(const std::string path, resolve_model(engine));
  options.log = access_log(flags.access_log, flags.log_level);
  options.on_terminate = [] { ShutdownSignals::raise(); };
  allow_many_files();
  if (options.allow_sleep) {
    options.reopen = [path, pipeline_flags] { return Pipeline::open(path, pipeline_flags); };
  }
  LANNER_ASSIGN_OR_RETURN(auto pipeline, open_with_progress(path, std::move(pipeline_flags), /*show=*/true));
  options.max_places = most_answers(flags, pipeline->engine().memory_plan().sequences);

  ShutdownSignals& signals = ShutdownSignals::install();
  server::Service service(std::move(pipeline), std::move(options));
  LANNER_ASSIGN_OR_RETURN(const auto server, server::HttpServer::start(http, service));
  announce(http, server->port());
  LANNER_ASSIGN_OR_RETURN(auto registration, register_at_proxy(flags, http, server->port(), service.options()));
  while (!signals.take()) signals.wait(std::chrono::hours(1));
  inform("Shutting down");
  registration.reset();  // so that nothing new is sent here
  server::shut_down(service, *server, milliseconds(flags.drain_timeout_s), [&] { return signals.take(); });
  inform("Finished server process");
  return {};
}

struct ClientFlags {
  std::string url;
  std::string api_key;
  std::int64_t session_id = 1;
};

Result<int> run_client(const ClientFlags& flags) {
  std::string url = flags.url;
  if (!url.starts_with("http://") && !url.starts_with("https://")) {
    warn(fmt::format("{} has no http:// in front: it is taken as http://{}", url, url));
    url.insert(0, "http://");
  }
  while (url.ends_with('/')) url.pop_back();
  if (url.ends_with("/v1")) url.erase(url.size() - 3);
  LANNER_ASSIGN_OR_RETURN(const net::Url parsed, net::parse_url(url));
  LANNER_ASSIGN_OR_RETURN(const net::Environment environment, net::read_environment());
  std::string key = flags.api_key;
  if (const char* variable = std::getenv("LANNER_API_KEY"); key.empty() && variable != nullptr) key = variable;
  Interrupts& interrupts = Interrupts::install();
  const std::unique_ptr<LineReader> lines = make_line_reader(interrupts);
  ApiClient client({.url = std::move(url),
                    .api_key = std::move(key),
                    .session_id = flags.session_id,
                    .proxies = net::is_loopback(parsed.host) ? net::ProxySettings() : environment.proxies},
                   *lines, interrupts);
  return client.run();
}

void add_api_client(CLI::App& group, Run& run) {
  const auto flags = std::make_shared<ClientFlags>();
  CLI::App* verb = group.add_subcommand("api_client", "Talk to a server in the terminal");
  verb->add_option("URL", flags->url, "The server's address, such as http://localhost:23333")->required();
  verb->add_option("--api-key", flags->api_key, "Its key")->default_str("LANNER_API_KEY");
  limit(verb->add_option("--session-id", flags->session_id, "Which conversation, where the server keeps them"), 0,
        std::int64_t{1} << 53);
  verb->callback([&run, flags] {
    run = [flags] {
      const Result<int> code = run_client(*flags);
      return code.ok() ? *code : report(code.status());
    };
  });
}

}  // namespace

void add_serve(CLI::App& program, Run& run) {
  CLI::App* group = program.add_subcommand("serve", "Serve a model over HTTP, or talk to a server");
  group->require_subcommand(0, 1);
  const auto flags = std::make_shared<ServeFlags>();
  CLI::App* verb = group->add_subcommand("api_server", "Serve a model to the clients of OpenAI and LMDeploy");
  verb->add_option("MODEL", flags->engine.model, std::string(kModelHelp) + "; without it the small default model");
  add_serve_flags(*verb, *flags);
  verb->callback([&run, flags] { run = [flags] { return exit_code(run_server(*flags)); }; });
  add_api_client(*group, run);
  add_serve_proxy(*group, run);
}

}  // namespace lanner::cli
