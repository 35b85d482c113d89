// lanner benchmark serving: a server under load, over HTTP.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/arguments.h"
#include "cli/benchmark_subject.h"
#include "cli/interrupts.h"
#include "cli/output.h"
#include "cli/progress_bar.h"
#include "cli/verbs.h"
#include "eval/line_chart.h"
#include "eval/prompt_file.h"
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
  std::string dataset;
  int num_requests = 100;
  int prompt_tokens = 128;
  int output_tokens = 64;
  std::vector<double> request_rates;  // empty: as fast as it goes
  int concurrency = 32;
  std::vector<std::string> goodput;
  std::uint64_t seed = 0;
  std::string json;
  std::vector<std::string> plots;
};

/// What was measured at one rate; 0: as fast as it goes.
struct Load {
  double rate = 0;
  eval::Serving figures;
};

std::string row(const char* name, const eval::Distribution& d) {
  return fmt::format("{:<28}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.1f}\n", name, 1e3 * d.mean, 1e3 * d.p50,
                     1e3 * d.p75, 1e3 * d.p95, 1e3 * d.p99);
}

std::string heading(const ServingFlags& flags, const std::string& pace) {
  return fmt::format("{} at {}, {}, at most {} at once\n\n", flags.model, flags.url, pace, flags.concurrency);
}

std::string table(const Load& load, const ServingFlags& flags) {
  const eval::Serving& figures = load.figures;
  std::string text = heading(flags, load.rate > 0 ? fmt::format("{} requests/s", load.rate) : "as fast as it goes");
  text += fmt::format(
      "{:<34}{:>10.2f}\n{:<34}{:>10}\n{:<34}{:>10}\n{:<34}{:>10}\n{:<34}{:>10}\n"
      "{:<34}{:>10.1f}\n{:<34}{:>10.1f}\n{:<34}{:>10.2f}\n",
      "Benchmark duration (s)", figures.seconds, "Total requests", figures.requests, "Successful requests",
      figures.successful, "Total input tokens", figures.prompt_tokens, "Total generated tokens", figures.output_tokens,
      "Input throughput (tok/s)", figures.prompt_tokens_per_s(), "Output throughput (tok/s)",
      figures.output_tokens_per_s(), "Request throughput (req/s)", figures.requests_per_s());
  if (!flags.goodput.empty()) text += fmt::format("{:<34}{:>10.2f}\n", "Request goodput (req/s)", figures.goodput());
  for (const auto& [what, count] : figures.failures) {
    text += fmt::format("{:<34}{:>10}\n", "Failed: " + printable(what), count);
  }
  text += fmt::format("\n{:<28}{:>10}{:>10}{:>10}{:>10}{:>10}\n", "milliseconds", "mean", "P50", "P75", "P95", "P99");
  return text + row("End-to-end latency", figures.latency_s) + row("Time to first token (TTFT)", figures.ttft_s) +
         row("Time per output token (TPOT)", figures.tpot_s) + row("Inter-token latency (ITL)", figures.inter_piece_s);
}

/// A line for each rate.
std::string table(const std::vector<Load>& loads, const ServingFlags& flags) {
  std::string text = heading(flags, fmt::format("{} requests at each rate", loads.front().figures.requests));
  constexpr const char* kHeads = "{:>9}{:>9}{:>9}{:>8}{:>11}{:>11}{:>11}{:>11}{:>11}\n";
  text += fmt::format(kHeads, "offered", "served", "good", "", "output", "TTFT", "TTFT", "TPOT", "TPOT");
  text +=
      fmt::format(kHeads, "req/s", "req/s", "req/s", "failed", "tok/s", "P50 (ms)", "P99 (ms)", "P50 (ms)", "P99 (ms)");
  for (const Load& load : loads) {
    const eval::Serving& f = load.figures;
    text += fmt::format("{:>9.4g}{:>9.2f}{:>9.2f}{:>8}{:>11.1f}{:>11.1f}{:>11.1f}{:>11.1f}{:>11.1f}\n", load.rate,
                        f.requests_per_s(), f.goodput(), f.requests - f.successful, f.output_tokens_per_s(),
                        1e3 * f.ttft_s.p50, 1e3 * f.ttft_s.p99, 1e3 * f.tpot_s.p50, 1e3 * f.tpot_s.p99);
  }
  return text;
}

/// Goodput and latencies over the offered load.
std::vector<eval::LineChart> charts(const std::vector<Load>& loads, const ServingFlags& flags) {
  const auto series = [&](const std::string& name, std::size_t color, bool dashed, const auto& value) {
    eval::ChartSeries line{.name = name, .dashed = dashed, .color = color, .points = {}};
    for (const Load& load : loads) line.points.push_back({.x = load.rate, .y = value(load)});
    return line;
  };
  const auto chart = [](std::string title, std::string y_label, std::vector<eval::ChartSeries> lines) {
    return eval::LineChart{.title = std::move(title),
                           .x_label = "offered requests/s",
                           .y_label = std::move(y_label),
                           .series = std::move(lines)};
  };
  const auto of = [&](const std::string& what) { return fmt::format("{}: {}", flags.model, what); };
  return {chart(of("requests served"), "requests/s",
                {series("offered", 5, true, [](const Load& load) { return load.rate; }),
                 series("served", 0, false, [](const Load& load) { return load.figures.requests_per_s(); }),
                 series("good", 2, false, [](const Load& load) { return load.figures.goodput(); })}),
          chart(of("time to first token"), "ms",
                {series("P50", 0, false, [](const Load& load) { return 1e3 * load.figures.ttft_s.p50; }),
                 series("P99", 1, false, [](const Load& load) { return 1e3 * load.figures.ttft_s.p99; })}),
          chart(of("time per output token"), "ms",
                {series("P50", 0, false, [](const Load& load) { return 1e3 * load.figures.tpot_s.p50; }),
                 series("P99", 1, false, [](const Load& load) { return 1e3 * load.figures.tpot_s.p99; })})};
}

nlohmann::ordered_json figures_json(const Load& load) {
  const eval::Serving& figures = load.figures;
  const auto distribution = [](const eval::Distribution& d) {
    return nlohmann::ordered_json{{"mean", d.mean}, {"p50", d.p50}, {"p75", d.p75}, {"p95", d.p95}, {"p99", d.p99}};
  };
  return {{"request_rate", load.rate},
          {"seconds", figures.seconds},
          {"requests", figures.requests},
          {"successful", figures.successful},
          {"failures", figures.failures},
          {"prompt_tokens", figures.prompt_tokens},
          {"output_tokens", figures.output_tokens},
          {"requests_per_s", figures.requests_per_s()},
          {"goodput", figures.goodput()},
          {"output_tokens_per_s", figures.output_tokens_per_s()},
          {"latency_s", distribution(figures.latency_s)},
          {"ttft_s", distribution(figures.ttft_s)},
          {"tpot_s", distribution(figures.tpot_s)},
          {"inter_token_s", distribution(figures.inter_piece_s)}};
}

/// "ttft:500" and the like, in milliseconds, by vLLM's names.
Result<eval::LatencyBounds> latency_bounds(const std::vector<std::string>& words) {
  eval::LatencyBounds bounds;
  for (const std::string& word : words) {
    const std::size_t colon = word.find(':');
    const std::string name = word.substr(0, colon);
    std::optional<double>* bound = name == "ttft"   ? &bounds.ttft_s
                                   : name == "tpot" ? &bounds.tpot_s
                                   : name == "e2el" ? &bounds.latency_s
                                                    : nullptr;
    double ms = 0;
    const char* end = word.data() + word.size();
    if (bound == nullptr || colon == std::string::npos ||
        std::from_chars(word.data() + colon + 1, end, ms).ptr != end || !(ms > 0)) {
      return invalid_argument(fmt::format("--goodput {}: must be ttft:MS, tpot:MS or e2el:MS", word));
    }
    *bound = ms / 1e3;
  }
  return bounds;
}

Status check_rates(const ServingFlags& flags) {
  for (const double rate : flags.request_rates) {
    if (!(rate >= 0 && rate <= 1e6)) return invalid_argument("--request-rate must be between 0 and 1000000");
    if (rate == 0 && (flags.request_rates.size() > 1 || !flags.plots.empty())) {
      return invalid_argument("--request-rate 0 has no place beside other rates, nor in a plot");
    }
  }
  if (!flags.plots.empty() && flags.request_rates.empty()) return invalid_argument("--plot needs --request-rate");
  for (const std::string& path : flags.plots) LANNER_RETURN_IF_ERROR(eval::check_chart_path(path));
  return {};
}

Result<eval::ServingOptions> serving_options(ServingFlags& flags) {
  while (flags.url.ends_with('/')) flags.url.pop_back();
  if (flags.url.ends_with("/v1")) flags.url.erase(flags.url.size() - 3);
  LANNER_ASSIGN_OR_RETURN(const net::Url url, net::parse_url(flags.url));
  LANNER_ASSIGN_OR_RETURN(const net::Environment environment, net::read_environment());
  LANNER_RETURN_IF_ERROR(check_rates(flags));
  eval::ServingOptions options{.url = flags.url,
                               .api_key = flags.api_key,
                               .concurrency = flags.concurrency,
                               .proxies = net::is_loopback(url.host) ? net::ProxySettings() : environment.proxies};
  if (const char* key = std::getenv("LANNER_API_KEY"); options.api_key.empty() && key != nullptr) options.api_key = key;
  LANNER_ASSIGN_OR_RETURN(options.bounds, latency_bounds(flags.goodput));
  auto count = static_cast<std::size_t>(flags.num_requests);
  if (!flags.dataset.empty()) {
    LANNER_ASSIGN_OR_RETURN(options.prompts, eval::read_prompts(flags.dataset, count));
    count = options.prompts.size();
  }
  if (flags.requests.empty()) {
    options.requests.assign(count, {.prompt_tokens = flags.prompt_tokens, .output_tokens = flags.output_tokens});
  } else {
    LANNER_ASSIGN_OR_RETURN(options.requests, eval::read_request_lengths(flags.requests));
    if (options.requests.size() > count) options.requests.resize(count);
  }
  return options;
}

/// A run for each rate, each with random prompts of its own.
Result<std::vector<Load>> measure(eval::ServingOptions& options, const ServingFlags& flags) {
  const std::vector<double> rates = flags.request_rates.empty() ? std::vector<double>{0} : flags.request_rates;
  ProgressBar bar("measuring");
  std::int64_t before = 0;
  options.progress = [&](std::int64_t done, std::int64_t total) {
    bar.set(before + done, total * static_cast<std::int64_t>(rates.size()));
  };
  std::vector<Load> loads;
  for (const double rate : rates) {
    options.request_rate = rate;
    options.seed = flags.seed + loads.size();
    auto figures = eval::measure_serving(options);
    if (!figures.ok()) {
      bar.clear();
      return figures.status();
    }
    before += figures->requests;
    loads.push_back({.rate = rate, .figures = *std::move(figures)});
  }
  bar.clear();
  return loads;
}

Status write_json(const std::vector<Load>& loads, const ServingFlags& flags) {
  nlohmann::ordered_json report = eval::report_head("serving", {.model = flags.model}, {});
  report.erase("settings");  // the server's are not known
  report.update(
      {{"url", flags.url}, {"seed", flags.seed}, {"concurrency", flags.concurrency}, {"bounds_ms", flags.goodput}});
  if (loads.size() == 1) {
    report.update(figures_json(loads.front()));
  } else {
    for (const Load& load : loads) report["loads"].push_back(figures_json(load));
  }
  return eval::write_report(report, flags.json);
}

Status run_serving(ServingFlags flags) {
  LANNER_ASSIGN_OR_RETURN(eval::ServingOptions options, serving_options(flags));
  InterruptFlag interrupt;
  options.cancelled = &interrupt.flag();
  if (flags.model.empty()) {
    LANNER_ASSIGN_OR_RETURN(flags.model, eval::first_model(options));
  }
  options.model = flags.model;
  auto measured = measure(options, flags);
  if (measured.status().code() == StatusCode::kCancelled) interrupt.end_program();
  LANNER_RETURN_IF_ERROR(measured.status());
  const std::vector<Load>& loads = *measured;
  Status shown = write_stdout(loads.size() == 1 ? table(loads.front(), flags) : table(loads, flags));
  if (!flags.json.empty()) LANNER_RETURN_IF_ERROR(write_json(loads, flags));
  for (const std::string& path : flags.plots) {
    LANNER_RETURN_IF_ERROR(eval::write_charts(charts(loads, flags), path));
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
  CLI::Option* requests =
      verb->add_option("--requests", flags->requests, "A JSON list of [prompt tokens, new tokens], one a request")
          ->type_name("FILE");
  verb->add_option(
          "--dataset", flags->dataset,
          "Prompts: conversations in ShareGPT's form, of which the first message is asked, or a .jsonl file of "
          "{\"prompt\": …}")
      ->type_name("FILE")
      ->excludes(requests);
  limit(verb->add_option("--num-requests", flags->num_requests, "How many; of a file the first so many"), 1, 1000000);
  limit(verb->add_option("--prompt-tokens", flags->prompt_tokens, "Of each request, without a file"), 1, 1 << 20);
  limit(verb->add_option("--output-tokens", flags->output_tokens, "And new ones"), 1, 1 << 20);
  verb->add_option("--request-rate", flags->request_rates,
                   "Requests a second, at random times: a run for each of several; 0: as fast as it goes")
      ->default_str("0");
  limit(verb->add_option("--concurrency", flags->concurrency, "Requests under way at once, at most"), 1, 1024);
  verb->add_option("--goodput", flags->goodput,
                   "Which requests count as served well: ttft:MS, tpot:MS, e2el:MS, one or more of them");
  verb->add_option("--seed", flags->seed, "Of the random prompts and times");
  verb->add_option("--json", flags->json, "Write the figures into this file")->type_name("FILE");
  verb->add_option("--plot", flags->plots,
                   "Draw goodput and latency over the offered load into these files, .svg or .png")
      ->type_name("FILE");
  verb->callback([&run, flags] { run = [flags] { return exit_code(run_serving(*flags)); }; });
}

}  // namespace lanner::cli
