// lanner benchmark serving: a server under load, over HTTP.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "cli/arguments.h"
#include "cli/benchmark_subject.h"
#include "cli/interrupts.h"
#include "cli/output.h"
#include "cli/progress_bar.h"
#include "cli/verbs.h"
#include "eval/report.h"
#include "eval/serving_benchmark.h"
#include "net/environment.h"

namespace lanner::cli {
namespace {

struct ServingFlags {
  std::string url;
  std::string api_key;
  std::string model;
  std::string requests;
  int num_requests = 100;
  int prompt_tokens = 128;
  int output_tokens = 64;
  double request_rate = 0;
  int concurrency = 32;
  std::uint64_t seed = 0;
  std::string json;
};

std::string row(const char* name, const eval::Distribution& d) {
  return fmt::format("{:<28}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.1f}\n", name, 1e3 * d.mean, 1e3 * d.p50,
                     1e3 * d.p75, 1e3 * d.p95, 1e3 * d.p99);
}

std::string table(const eval::Serving& figures, const ServingFlags& flags) {
  const std::string rate =
      flags.request_rate > 0 ? fmt::format("{} requests/s", flags.request_rate) : "as fast as it goes";
  std::string text = fmt::format(
      "{} at {}, {}, at most {} at once\n\n"
      "{:<34}{:>10.2f}\n{:<34}{:>10}\n{:<34}{:>10}\n{:<34}{:>10}\n{:<34}{:>10}\n"
      "{:<34}{:>10.1f}\n{:<34}{:>10.1f}\n{:<34}{:>10.2f}\n",
      flags.model, flags.url, rate, flags.concurrency, "Benchmark duration (s)", figures.seconds, "Total requests",
      figures.requests, "Successful requests", figures.successful, "Total input tokens", figures.prompt_tokens,
      "Total generated tokens", figures.output_tokens, "Input throughput (tok/s)", figures.prompt_tokens_per_s(),
      "Output throughput (tok/s)", figures.output_tokens_per_s(), "Request throughput (req/s)",
      figures.requests_per_s());
  for (const auto& [what, count] : figures.failures) {
    text += fmt::format("{:<34}{:>10}\n", "Failed: " + printable(what), count);
  }
  text += fmt::format("\n{:<28}{:>10}{:>10}{:>10}{:>10}{:>10}\n", "milliseconds", "mean", "P50", "P75", "P95", "P99");
  return text + row("End-to-end latency", figures.latency_s) + row("Time to first token (TTFT)", figures.ttft_s) +
         row("Time per output token (TPOT)", figures.tpot_s) + row("Inter-token latency (ITL)", figures.inter_piece_s);
}

nlohmann::ordered_json figures_json(const eval::Serving& figures, const ServingFlags& flags) {
  const auto distribution = [](const eval::Distribution& d) {
    return nlohmann::ordered_json{{"mean", d.mean}, {"p50", d.p50}, {"p75", d.p75}, {"p95", d.p95}, {"p99", d.p99}};
  };
  return {{"url", flags.url},
          {"seed", flags.seed},
          {"request_rate", flags.request_rate},
          {"concurrency", flags.concurrency},
          {"seconds", figures.seconds},
          {"requests", figures.requests},
          {"successful", figures.successful},
          {"failures", figures.failures},
          {"prompt_tokens", figures.prompt_tokens},
          {"output_tokens", figures.output_tokens},
          {"requests_per_s", figures.requests_per_s()},
          {"output_tokens_per_s", figures.output_tokens_per_s()},
          {"latency_s", distribution(figures.latency_s)},
          {"ttft_s", distribution(figures.ttft_s)},
          {"tpot_s", distribution(figures.tpot_s)},
          {"inter_token_s", distribution(figures.inter_piece_s)}};
}

Result<eval::ServingOptions> serving_options(ServingFlags& flags) {
  while (flags.url.ends_with('/')) flags.url.pop_back();
  if (flags.url.ends_with("/v1")) flags.url.erase(flags.url.size() - 3);
  LANNER_ASSIGN_OR_RETURN(const net::Url url, net::parse_url(flags.url));
  LANNER_ASSIGN_OR_RETURN(const net::Environment environment, net::read_environment());
  if (flags.request_rate < 0) return invalid_argument("--request-rate must not be below 0");
  eval::ServingOptions options{.url = flags.url,
                               .api_key = flags.api_key,
                               .concurrency = flags.concurrency,
                               .request_rate = flags.request_rate,
                               .seed = flags.seed,
                               .proxies = net::is_loopback(url.host) ? net::ProxySettings() : environment.proxies};
  if (const char* key = std::getenv("LANNER_API_KEY"); options.api_key.empty() && key != nullptr) options.api_key = key;
  const auto count = static_cast<std::size_t>(flags.num_requests);
  if (flags.requests.empty()) {
    options.requests.assign(count, {.prompt_tokens = flags.prompt_tokens, .output_tokens = flags.output_tokens});
  } else {
    LANNER_ASSIGN_OR_RETURN(options.requests, eval::read_request_lengths(flags.requests));
    if (options.requests.size() > count) options.requests.resize(count);
  }
  return options;
}

Status run_serving(ServingFlags flags) {
  LANNER_ASSIGN_OR_RETURN(eval::ServingOptions options, serving_options(flags));
  InterruptFlag interrupt;
  options.cancelled = &interrupt.flag();
  if (flags.model.empty()) {
    LANNER_ASSIGN_OR_RETURN(flags.model, eval::first_model(options));
  }
  options.model = flags.model;
  ProgressBar bar("measuring");
  options.progress = [&bar](std::int64_t done, std::int64_t total) { bar.set(done, total); };
  const auto figures = eval::measure_serving(options);
  bar.clear();
  if (figures.status().code() == StatusCode::kCancelled) interrupt.end_program();
  LANNER_RETURN_IF_ERROR(figures.status());
  Status shown = write_stdout(table(*figures, flags));
  if (!flags.json.empty()) {
    nlohmann::ordered_json report = eval::report_head("serving", {.model = flags.model}, {});
    report.erase("settings");  // the server's are not known
    report.update(figures_json(*figures, flags));
    LANNER_RETURN_IF_ERROR(eval::write_report(report, flags.json));
  }
  return shown;
}

}  // namespace

void add_benchmark_serving(CLI::App& group, Run& run) {
  auto flags = std::make_shared<ServingFlags>();
  CLI::App* verb = group.add_subcommand("serving", "A server under load, over HTTP");
  verb->add_option("--url", flags->url, "The server's address, such as http://localhost:23333")->required();
  verb->add_option("--api-key", flags->api_key, "Its key")->default_str("LANNER_API_KEY");
  verb->add_option("--model", flags->model, "What it calls the model")->default_str("the first that it lists");
  verb->add_option("--requests", flags->requests, "A JSON list of [prompt tokens, new tokens], one a request")
      ->type_name("FILE");
  limit(verb->add_option("--num-requests", flags->num_requests, "How many; of a file the first so many"), 1, 1000000);
  limit(verb->add_option("--prompt-tokens", flags->prompt_tokens, "Of each request, without a file"), 1, 1 << 20);
  limit(verb->add_option("--output-tokens", flags->output_tokens, "And new ones"), 1, 1 << 20);
  verb->add_option("--request-rate", flags->request_rate, "Requests a second, at random times; 0: as fast as it goes");
  limit(verb->add_option("--concurrency", flags->concurrency, "Requests under way at once, at most"), 1, 1024);
  verb->add_option("--seed", flags->seed, "Of the random prompts and times");
  verb->add_option("--json", flags->json, "Write the figures into this file")->type_name("FILE");
  verb->callback([&run, flags] { run = [flags] { return exit_code(run_serving(*flags)); }; });
}

}  // namespace lanner::cli
