#include "eval/serving_benchmark.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <thread>
#include <utility>

#include "core/check.h"
#include "eval/token_scores.h"
#include "lanner/version.h"
#include "net/http_client.h"
#include "net/line_sink.h"

namespace lanner::eval {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

constexpr std::int64_t kMaxModelsBytes = 1 << 20;
// Ids that every vocabulary has and that are special in none of those in use.
constexpr std::int32_t kLowestToken = 300;
constexpr std::int32_t kHighestToken = 500;

double seconds_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

std::unique_ptr<net::HttpClient> make_client(const ServingOptions& options) {
  return net::make_http_client({.user_agent = fmt::format("lanner/{}", version()),
                                .head_timeout = std::chrono::minutes(30),  // a request may wait for many others
                                .idle_timeout = std::chrono::minutes(30),
                                .minimum_bytes_per_second = 0,
                                .proxies = options.proxies});
}

net::HttpRequest make_request(const ServingOptions& options, const std::string& path) {
  net::HttpRequest request;
  request.url = options.url + path;
  if (!options.api_key.empty()) request.authorization = "Bearer " + options.api_key;
  request.cancelled = options.cancelled;
  return request;
}

/// When the pieces of one answer came.
class PieceSink final : public net::LineSink {
 public:
  Status write(std::string_view bytes) override {
    now_ = Clock::now();
    return LineSink::write(bytes);
  }

  /// What went wrong; empty for a whole answer.
  std::string failure() const {
    if (status() != 200) return std::to_string(status());
    if (!failure_.empty()) return failure_;
    if (!done_) return "the stream has no end";
    return tokens_ < 0 ? "the server does not say how many tokens it made" : "";
  }
  const std::vector<Clock::time_point>& pieces() const { return pieces_; }
  std::int64_t tokens() const { return tokens_; }
  std::int64_t prompt_tokens() const { return prompt_tokens_; }

 private:
  Status take_line(std::string_view line) override {
    constexpr std::string_view kData = "data: ";
    if (!line.starts_with(kData)) return {};
    line.remove_prefix(kData.size());
    done_ = line == "[DONE]";
    if (done_) return {};
    const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || json.contains("error")) {
      failure_ = "an error within the stream";
      return {};
    }
    const auto choices = json.find("choices");
    const bool has_text = choices != json.end() && choices->is_array() && !choices->empty() &&
                          choices->front().is_object() && choices->front().contains("text") &&
                          choices->front()["text"].is_string() && choices->front()["text"] != "";
    if (has_text) pieces_.push_back(now_);
    const auto usage = json.find("usage");
    if (usage == json.end() || !usage->is_object()) return {};
    const auto read = [&](const char* name, std::int64_t& count) {
      const auto found = usage->find(name);
      if (found != usage->end() && found->is_number_integer()) count = found->get<std::int64_t>();
    };
    read("completion_tokens", tokens_);
    read("prompt_tokens", prompt_tokens_);
    return {};
  }

  Clock::time_point now_;  // of the bytes that are read
  std::string failure_;
  std::vector<Clock::time_point> pieces_;
  std::int64_t tokens_ = -1;
  std::int64_t prompt_tokens_ = 0;
  bool done_ = false;
};

/// The run: requests are handed out in order, each when it is due, to as many threads as may be under way at once.
class Run {
 public:
  explicit Run(const ServingOptions& options)
      : options_(options), bodies_(options.requests.size()), due_s_(bodies_.size()) {
    std::mt19937_64 random(options.seed);
    std::uniform_int_distribution<std::int32_t> token(kLowestToken, kHighestToken);
    std::exponential_distribution<double> pause(options.request_rate > 0 ? options.request_rate : 1.0);
    double due = 0;
    for (std::size_t i = 0; i < bodies_.size(); ++i) {
      const RequestLengths& lengths = options.requests[i];
      Json prompt;
      if (options.prompts.empty()) {
        std::vector<std::int32_t> ids(static_cast<std::size_t>(lengths.prompt_tokens));
        std::ranges::generate(ids, [&] { return token(random); });
        prompt = std::move(ids);
      } else {
        prompt = options.prompts[i];
      }
      const Json body{{"model", options.model},
                      {"prompt", std::move(prompt)},
                      {"max_tokens", lengths.output_tokens},
                      {"temperature", 0},
                      {"ignore_eos", true},
                      {"stream", true},
                      {"stream_options", {{"include_usage", true}}}};
      bodies_[i] = body.dump();
      due_s_[i] = due;
      if (options.request_rate > 0) due += pause(random);
    }
  }

  Result<Serving> go() {
    start_ = Clock::now();
    const auto count = std::min<std::size_t>(static_cast<std::size_t>(options_.concurrency), bodies_.size());
    std::vector<std::thread> threads;
    threads.reserve(count);
    for (std::size_t i = 0; i < count; ++i) threads.emplace_back([this] { work(); });
    for (std::thread& thread : threads) thread.join();
    if (is_cancelled()) return Status(StatusCode::kCancelled, "stopped on request");
    result_.seconds = seconds_between(start_, Clock::now());
    result_.requests = static_cast<std::int64_t>(bodies_.size());
    if (result_.successful == 0) return first_failure_;
    result_.latency_s = distribution_of(latencies_);
    result_.ttft_s = distribution_of(ttfts_);
    result_.tpot_s = distribution_of(tpots_);
    result_.inter_piece_s = distribution_of(gaps_);
    return std::move(result_);
  }

 private:
  bool is_cancelled() const { return options_.cancelled != nullptr && options_.cancelled->load(); }

  void work() {
    const auto client = make_client(options_);
    while (!is_cancelled()) {
      const std::size_t at = next_.fetch_add(1);
      if (at >= bodies_.size()) return;
      const auto wait = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(due_s_[at]));
      const Clock::time_point due = options_.request_rate > 0 ? start_ + wait : Clock::now();
      if (!wait_until(due)) return;
      net::HttpRequest request = make_request(options_, "/v1/completions");
      request.method = "POST";
      request.headers = {{"Content-Type", "application/json"}};
      request.body = std::move(bodies_[at]);
      PieceSink sink;
      const Status status = client->exchange(request, sink).status();
      note(sink, status, due);
    }
  }

  bool wait_until(Clock::time_point due) const {
    constexpr auto kTick = std::chrono::milliseconds(100);
    for (auto now = Clock::now(); now < due; now = Clock::now()) {
      if (is_cancelled()) return false;
      std::this_thread::sleep_for(std::min<Clock::duration>(due - now, kTick));
    }
    return true;
  }

  void note(const PieceSink& sink, const Status& status, Clock::time_point due) {
    const std::string failure = status.ok() ? sink.failure() : status.message();
    const std::lock_guard lock(mutex_);
    if (!failure.empty() || sink.pieces().empty()) {
      const std::string what = failure.empty() ? "an answer without text" : failure;
      ++result_.failures[what];
      if (first_failure_.ok()) first_failure_ = internal_error(fmt::format("no request succeeded: {}", what));
    } else {
      add(sink, due);
    }
    if (options_.progress) options_.progress(++finished_, static_cast<std::int64_t>(bodies_.size()));
  }

  void add(const PieceSink& sink, Clock::time_point due) {
    const std::vector<Clock::time_point>& pieces = sink.pieces();
    ++result_.successful;
    result_.prompt_tokens += sink.prompt_tokens();
    result_.output_tokens += sink.tokens();
    latencies_.push_back(seconds_between(due, pieces.back()));
    ttfts_.push_back(seconds_between(due, pieces.front()));
    std::optional<double> tpot;
    if (sink.tokens() > 1) {
      tpot = seconds_between(pieces.front(), pieces.back()) / static_cast<double>(sink.tokens() - 1);
      tpots_.push_back(*tpot);
    }
    const LatencyBounds& bounds = options_.bounds;
    const auto within = [](const std::optional<double>& bound, double value) { return !bound || value <= *bound; };
    const bool good = within(bounds.ttft_s, ttfts_.back()) && within(bounds.tpot_s, tpot.value_or(0)) &&
                      within(bounds.latency_s, latencies_.back());
    if (good) ++result_.good;
    for (std::size_t i = 1; i < pieces.size(); ++i) gaps_.push_back(seconds_between(pieces[i - 1], pieces[i]));
  }

  const ServingOptions& options_;
  std::vector<std::string> bodies_;  // one a request
  std::vector<double> due_s_;        // from the start
  Clock::time_point start_;
  std::atomic<std::size_t> next_ = 0;

  std::mutex mutex_;
  // Under it:
  Serving result_;
  Status first_failure_;
  std::int64_t finished_ = 0;
  std::vector<double> latencies_;
  std::vector<double> ttfts_;
  std::vector<double> tpots_;
  std::vector<double> gaps_;
};

}  // namespace

Distribution distribution_of(const std::vector<double>& values) {
  if (values.empty()) return {};
  return {.mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size()),
          .p50 = percentile(values, 50),
          .p75 = percentile(values, 75),
          .p95 = percentile(values, 95),
          .p99 = percentile(values, 99)};
}

std::optional<std::string> first_model_of(const std::string& body) {
  const Json json = Json::parse(body, nullptr, /*allow_exceptions=*/false);
  const bool list = json.is_object() && json.contains("data") && json["data"].is_array() && !json["data"].empty() &&
                    json["data"][0].is_object() && json["data"][0].contains("id") && json["data"][0]["id"].is_string();
  if (!list) return std::nullopt;
  return json["data"][0]["id"].get<std::string>();
}

Result<std::string> first_model(const ServingOptions& options) {
  const auto client = make_client(options);
  LANNER_ASSIGN_OR_RETURN(const net::HttpResponse answer,
                          net::fetch(*client, make_request(options, "/v1/models"), kMaxModelsBytes));
  if (answer.head.status != 200) {
    return internal_error(fmt::format("{}/v1/models answers with status {}", options.url, answer.head.status));
  }
  auto model = first_model_of(answer.body);
  if (!model) return corrupt(fmt::format("{}/v1/models lists no model", options.url));
  return *std::move(model);
}

Result<Serving> measure_serving(const ServingOptions& options) {
  if (options.requests.empty()) return invalid_argument("there are no requests to measure");
  LANNER_CHECK(options.prompts.empty() || options.prompts.size() == options.requests.size());
  Run run(options);
  return run.go();
}

}  // namespace lanner::eval
