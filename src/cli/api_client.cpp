#include "cli/api_client.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "cli/output.h"
#include "cli/verbs.h"
#include "eval/serving_benchmark.h"
#include "lanner/version.h"
#include "net/line_sink.h"

namespace lanner::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::int64_t kMaxModelsBytes = 1 << 20;
constexpr int kNewTokens = 512;

/// The message of an error body, however it is shaped; else the status.
std::string error_text(int status, const std::string& body) {
  const Json json = Json::parse(body, nullptr, /*allow_exceptions=*/false);
  for (const Json* place : {&json, json.is_object() && json.contains("error") ? &json["error"] : nullptr}) {
    if (place == nullptr || !place->is_object()) continue;
    const auto found = place->find("message");
    if (found != place->end() && found->is_string()) return found->get<std::string>();
  }
  return fmt::format("the server answered with status {}", status);
}

/// Takes an answer line by line, and writes what was said. On the thread of the exchange.
class AnswerSink final : public net::LineSink {
 public:
  AnswerSink(bool clean_output, std::string& reply) : clean_output_(clean_output), reply_(reply) {}

  /// What went wrong although the exchange did not fail.
  Status outcome() const {
    if (status() != 200) return {StatusCode::kInternal, printable(error_text(status(), error_body()))};
    return failure_;
  }
  bool full() const { return full_; }

 private:
  Status take_line(std::string_view line) override {
    constexpr std::string_view kData = "data: ";
    if (line.starts_with(kData)) line.remove_prefix(kData.size());
    if (line.empty() || line == "[DONE]" || line.front() != '{') return {};
    const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) return corrupt("the server sends something that is no JSON");
    if (json.contains("error")) {
      failure_ = {StatusCode::kInternal, printable(error_text(200, std::string(line)))};
      return {};
    }
    return json.contains("choices") ? take_event(json) : take_turn(json);
  }

  /// Of /v1/chat/interactive.
  Status take_turn(const Json& json) {
    const auto reason = json.find("finish_reason");
    const bool length = reason != json.end() && *reason == "length";
    if (length && json.value("tokens", Json(0)) == 0) full_ = true;
    const auto text = json.find("text");
    return length || text == json.end() || !text->is_string() ? Status() : say(text->get<std::string>());
  }

  /// Of /v1/chat/completions.
  Status take_event(const Json& json) {
    const Json& choices = json["choices"];
    if (!choices.is_array() || choices.empty() || !choices[0].is_object()) return {};
    const auto delta = choices[0].find("delta");
    if (delta == choices[0].end() || !delta->is_object()) return {};
    const auto content = delta->find("content");
    return content == delta->end() || !content->is_string() ? Status() : say(content->get<std::string>());
  }

  Status say(const std::string& text) {
    reply_ += text;
    return write_stdout(clean_output_ ? printable(text) : text);
  }

  const bool clean_output_;
  std::string& reply_;
  Status failure_;
  bool full_ = false;
};

/// Does `work` on a thread of its own, and sets `cancelled` when Ctrl-C comes meanwhile. Whether it came.
template <typename Work>
bool with_interrupts(Interrupts& interrupts, std::atomic<bool>& cancelled, Work work) {
  const int done = ::eventfd(0, EFD_CLOEXEC);
  std::thread thread([&] {
    work();
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(done, &one, sizeof one);
  });
  bool interrupted = false;
  std::array<pollfd, 2> watched{{{done, POLLIN, 0}, {interrupts.descriptor(), POLLIN, 0}}};
  while ((watched[0].revents & POLLIN) == 0) {
    if (::poll(watched.data(), watched.size(), -1) < 0) continue;
    if (interrupts.take()) {
      interrupted = true;
      cancelled = true;
    }
  }
  thread.join();
  ::close(done);
  return interrupted;
}

}  // namespace

ApiClient::ApiClient(ApiClientOptions options, LineReader& lines, Interrupts& interrupts)
    : options_(std::move(options)),
      lines_(lines),
      interrupts_(interrupts),
      interactive_(stdin_is_terminal()),
      client_(net::make_http_client({.user_agent = fmt::format("lanner/{}", version()),
                                     .head_timeout = std::chrono::minutes(10),  // others may be served first
                                     .idle_timeout = std::chrono::minutes(10),
                                     .minimum_bytes_per_second = 0,
                                     .proxies = options_.proxies})) {}

net::HttpRequest ApiClient::request(const std::string& path, std::string body) const {
  net::HttpRequest request;
  request.method = body.empty() ? "GET" : "POST";
  request.url = options_.url + path;
  if (!options_.api_key.empty()) request.authorization = "Bearer " + options_.api_key;
  if (!body.empty()) request.headers = {{"Content-Type", "application/json"}};
  request.body = std::move(body);
  return request;
}

int ApiClient::run() {
  while (true) {
    const Block block = read_block(lines_);
    if (block.kind == Block::Kind::kInterrupted) {
      if (!interactive_) exit_code_ = kExitInterrupted;
      if (interactive_) write_stderr("\nexiting...\n");
      end_conversation();
      return exit_code_;
    }
    const Turn turn = handle(block);
    if (turn == Turn::kStop) return exit_code_;
    if (block.kind == Block::Kind::kEnd) {
      if (interactive_) write_stderr("\n");
      end_conversation();
      return exit_code_;
    }
  }
}

ApiClient::Turn ApiClient::handle(const Block& block) {
  const std::string_view words = trimmed(block.text);
  if (words.empty()) return Turn::kGoOn;
  if (words == "exit") {
    end_conversation();
    write_stderr("exiting...\n");
    return Turn::kStop;
  }
  if (words == "end") {
    end_conversation();
    return Turn::kGoOn;
  }
  return answer(block.text);
}

ApiClient::Turn ApiClient::answer(const std::string& text) {
  std::string reply;
  Status status;
  if (sessions_) status = ask_session(text, reply);
  if (!sessions_) status = ask_without_session(text, reply);
  Status written = status.code() == StatusCode::kCancelled && !interrupted_ ? status : Status();
  if (written.ok() && (status.ok() || !reply.empty())) written = write_stdout("\n");
  if (!written.ok()) {  // nobody reads stdout any more
    exit_code_ = report_write(written);
    return Turn::kStop;
  }
  if (interrupted_) {
    interrupted_ = false;
    if (interactive_) return Turn::kGoOn;
    exit_code_ = kExitInterrupted;
    return Turn::kStop;
  }
  if (status.ok()) return Turn::kGoOn;
  report(status);
  if (!interactive_) exit_code_ = kExitFailure;
  return Turn::kGoOn;
}

Status ApiClient::talk(const std::string& path, const std::string& body, std::string& reply) {
  AnswerSink sink(stdout_is_terminal(), reply);
  std::atomic<bool> cancelled = false;
  net::HttpRequest request = this->request(path, body);
  request.cancelled = &cancelled;
  Status status;
  interrupted_ = with_interrupts(interrupts_, cancelled, [&] { status = client_->exchange(request, sink).status(); });
  if (interrupted_) return {};
  LANNER_RETURN_IF_ERROR(status);
  if (sink.full()) warn("exceed session max length. Please end the session.");
  const bool missing = sink.status() == 404 || sink.status() == 405;
  return missing ? not_found(sink.outcome().message()) : sink.outcome();
}

Status ApiClient::ask_session(const std::string& text, std::string& reply) {
  const Json body{{"prompt", text},
                  {"session_id", options_.session_id},
                  {"interactive_mode", true},
                  {"stream", true},
                  {"request_output_len", kNewTokens},
                  {"top_p", 0.8},
                  {"top_k", 40},
                  {"temperature", 0.8}};
  Status status = talk("/v1/chat/interactive", body.dump(-1, ' ', false, Json::error_handler_t::replace), reply);
  if (status.code() == StatusCode::kNotFound && !begun_) {
    sessions_ = false;
    return {};
  }
  begun_ = begun_ || status.ok();
  return status;
}

Status ApiClient::ask_without_session(const std::string& text, std::string& reply) {
  if (model_.empty()) {
    LANNER_ASSIGN_OR_RETURN(model_, find_model());
  }
  Json messages = Json::array();
  for (const Said& said : said_) messages.push_back({{"role", said.role}, {"content", said.text}});
  messages.push_back({{"role", "user"}, {"content", text}});
  const Json body{{"model", model_}, {"messages", std::move(messages)},
                  {"stream", true},  {"max_tokens", kNewTokens},
                  {"top_p", 0.8},    {"temperature", 0.8}};
  const Status status = talk("/v1/chat/completions", body.dump(-1, ' ', false, Json::error_handler_t::replace), reply);
  if (status.ok() && !interrupted_) {
    said_.push_back({"user", text});
    said_.push_back({"assistant", reply});
  }
  return status;
}

Result<std::string> ApiClient::find_model() {
  LANNER_ASSIGN_OR_RETURN(const net::HttpResponse answer,
                          net::fetch(*client_, request("/v1/models", ""), kMaxModelsBytes));
  if (answer.head.status != 200) return internal_error(printable(error_text(answer.head.status, answer.body)));
  auto model = eval::first_model_of(answer.body);
  if (!model) return corrupt("the server's list of models cannot be read");
  return *std::move(model);
}

void ApiClient::end_conversation() {
  said_.clear();
  if (!std::exchange(begun_, false)) return;
  const Json body{
      {"prompt", ""}, {"session_id", options_.session_id}, {"interactive_mode", false}, {"request_output_len", 0}};
  net::HttpRequest end = request("/v1/chat/interactive", body.dump());
  end.total_timeout = std::chrono::seconds(10);
  const auto answer = net::fetch(*client_, end, kMaxModelsBytes);
  if (!answer.ok()) warn("the session could not be ended: " + answer.status().message());
}

}  // namespace lanner::cli
