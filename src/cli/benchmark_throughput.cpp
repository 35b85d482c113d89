// lanner benchmark throughput: a list of requests, all at once.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "cli/arguments.h"
#include "cli/benchmark_subject.h"
#include "cli/output.h"
#include "cli/progress_bar.h"
#include "eval/throughput_benchmark.h"

namespace lanner::cli {
namespace {

struct ThroughputFlags {
  BenchmarkFlags flags;
  std::string requests;
  int num_requests = 0;  // 0: all of the file
  int max_batch_size = 256;
  int repetitions = 1;
  std::uint64_t seed = 0;
};

/// Room for the longest request, and every prompt computed from its start.
EngineOptions for_throughput(EngineOptions options, const ThroughputFlags& flags,
                             const std::vector<eval::RequestLengths>& requests) {
  std::int32_t longest = 0;
  for (const eval::RequestLengths& one : requests) longest = std::max(longest, one.prompt_tokens + one.output_tokens);
  if (options.session_len == 0) options.session_len = longest;
  options.max_batch_size = flags.max_batch_size;
  options.enable_prefix_caching = false;
  return options;
}

std::string table(const eval::Throughput& figures, const BenchmarkSubject& subject) {
  const auto milliseconds = [](const char* name, const eval::Percentiles& p) {
    return fmt::format("{:<18}{:>10.1f} / {:.1f} / {:.1f} ms\n", name, 1e3 * p.p50, 1e3 * p.p90, 1e3 * p.p99);
  };
  return fmt::format(
             "{} on {}\n{} requests, {} prompt tokens, {} new ones, in {:.2f} s\n\n"
             "{:<18}{:>10.2f}\n{:<18}{:>10.1f}\n{:<18}{:>10.1f}\n",
             subject.name, subject.opened.device, figures.requests, figures.prompt_tokens, figures.output_tokens,
             figures.seconds, "requests/s", figures.requests_per_s(), "new tok/s", figures.output_tokens_per_s(),
             "all tok/s", figures.total_tokens_per_s()) +
         milliseconds("TTFT p50/p90/p99", figures.ttft_s) + milliseconds("TPOT p50/p90/p99", figures.tpot_s);
}

nlohmann::ordered_json figures_json(const eval::Throughput& figures, const ThroughputFlags& flags) {
  const auto percentiles = [](const eval::Percentiles& p) {
    return nlohmann::ordered_json{{"p50", p.p50}, {"p90", p.p90}, {"p99", p.p99}};
  };
  return {{"seed", flags.seed},
          {"repetitions", flags.repetitions},
          {"requests", figures.requests},
          {"prompt_tokens", figures.prompt_tokens},
          {"output_tokens", figures.output_tokens},
          {"seconds", figures.seconds},
          {"requests_per_s", figures.requests_per_s()},
          {"output_tokens_per_s", figures.output_tokens_per_s()},
          {"total_tokens_per_s", figures.total_tokens_per_s()},
          {"ttft_s", percentiles(figures.ttft_s)},
          {"tpot_s", percentiles(figures.tpot_s)}};
}

Status run_throughput(const ThroughputFlags& flags) {
  LANNER_ASSIGN_OR_RETURN(const PipelineOptions pipeline_flags, pipeline_options(flags.flags.engine));
  eval::ThroughputOptions options{.seed = flags.seed, .repetitions = flags.repetitions};
  LANNER_ASSIGN_OR_RETURN(options.requests, eval::read_request_lengths(flags.requests));
  if (flags.num_requests > 0 && static_cast<std::size_t>(flags.num_requests) < options.requests.size()) {
    options.requests.resize(static_cast<std::size_t>(flags.num_requests));
  }
  const EngineOptions engine_options = for_throughput(pipeline_flags.engine, flags, options.requests);
  LANNER_ASSIGN_OR_RETURN(const BenchmarkSubject subject, open_subject(flags.flags, engine_options));
  ProgressBar bar("measuring");
  options.progress = [&bar](std::int64_t done, std::int64_t total) { bar.set(done, total); };
  auto figures = eval::measure_throughput(subject.engine(), options);
  bar.clear();
  LANNER_RETURN_IF_ERROR(figures.status());
  Status shown = write_stdout(table(*figures, subject));
  if (!flags.flags.json.empty()) {
    nlohmann::ordered_json report = eval::report_head("throughput", subject.report_subject(), engine_options);
    report.update(figures_json(*figures, flags));
    LANNER_RETURN_IF_ERROR(eval::write_report(report, flags.flags.json));
  }
  return shown;
}

}  // namespace

void add_benchmark_throughput(CLI::App& group, Run& run) {
  auto flags = std::make_shared<ThroughputFlags>();
  CLI::App* verb = group.add_subcommand("throughput", "A list of requests, all at once");
  verb->add_option("--requests", flags->requests, "A JSON list of [prompt tokens, new tokens], one a request")
      ->type_name("FILE")
      ->required();
  limit(verb->add_option("--num-requests", flags->num_requests, "Only the first so many")->default_str("all"), 0,
        1000000);
  limit(verb->add_option("--concurrency", flags->max_batch_size, "Requests that run at once"), 1, kMostSequences);
  limit(verb->add_option("--repetitions", flags->repetitions, "How often the list is run; the last run is shown"), 1,
        1000);
  verb->add_option("--seed", flags->seed, "Of the random prompts");
  add_benchmark_flags(*verb, flags->flags);
  verb->callback([&run, flags] { run = [flags] { return exit_code(run_throughput(*flags)); }; });
}

}  // namespace lanner::cli
