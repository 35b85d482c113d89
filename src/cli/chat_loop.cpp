#include "cli/chat_loop.h"

#include <fmt/format.h>
#include <poll.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <memory>
#include <utility>

#include "cli/block_reader.h"
#include "cli/output.h"
#include "cli/reply_queue.h"
#include "cli/verbs.h"
#include "core/random_bits.h"

namespace lanner::cli {
namespace {

using Clock = std::chrono::steady_clock;

double seconds(Clock::duration time) { return std::chrono::duration<double>(time).count(); }

double rate(double count, double time_seconds) { return time_seconds > 0.0 ? count / time_seconds : 0.0; }

}  // namespace

struct ChatLoop::Reply {
  ReplyQueue queue;
  std::string text;
  Chunk final;
  bool interrupted = false;
  Clock::time_point start = Clock::now();
  Clock::time_point first_token;
  Clock::time_point last_token;
  std::int32_t tokens = 0;

  void count(const Chunk& chunk) {
    if (chunk.token_ids.empty()) return;
    last_token = Clock::now();
    if (tokens == 0) first_token = last_token;
    tokens += static_cast<std::int32_t>(chunk.token_ids.size());
  }

  std::string figures() const {
    const double first_seconds = tokens > 0 ? seconds(first_token - start) : seconds(Clock::now() - start);
    const double computed = final.prompt_tokens - final.cached_tokens;
    std::string line =
        fmt::format("prompt {} tokens ({} cached), generated {} tokens, first token {:.0f} ms, prefill {:.1f} tok/s",
                    final.prompt_tokens, final.cached_tokens, final.generated_tokens, first_seconds * 1000.0,
                    rate(computed, first_seconds));
    if (tokens > 1) line += fmt::format(", decode {:.1f} tok/s", rate(tokens - 1, seconds(last_token - first_token)));
    return line + "\n";
  }
};

ChatLoop::ChatLoop(Pipeline& pipeline, LineReader& lines, Interrupts& interrupts, ChatOptions options)
    : pipeline_(pipeline),
      lines_(lines),
      interrupts_(interrupts),
      options_(std::move(options)),
      clean_output_(stdout_is_terminal()) {
  start_over();
}

void ChatLoop::start_over() {
  messages_.clear();
  if (!options_.system.empty()) messages_.push_back({"system", options_.system});
  seed_ = options_.generation.seed.value_or(random_bits());
}

int ChatLoop::run() {
  while (true) {
    const Block block = read_block(lines_);
    if (block.kind == Block::Kind::kInterrupted) {
      if (after_interrupt() == Turn::kGoOn) write_stderr("\nexiting...\n");
      return exit_code_;
    }
    if (handle(block) == Turn::kStop) return exit_code_;
    if (block.kind == Block::Kind::kEnd) {
      if (options_.interactive) write_stderr("\n");  // the shell's prompt belongs on a line of its own
      return exit_code_;
    }
  }
}

ChatLoop::Turn ChatLoop::handle(const Block& block) {
  const std::string_view words = trimmed(block.text);
  if (words.empty()) return Turn::kGoOn;
  if (words == "exit") {
    write_stderr("exiting...\n");
    return Turn::kStop;
  }
  if (words == "end") {
    start_over();
    return Turn::kGoOn;
  }
  if (words == "/image" || words.starts_with("/image ")) {
    const bool bare = words == "/image";
    write_stderr(bare ? "Error: /image requires an image path or URL\n"
                      : "Error: images are not available yet in this version\n");
    miss_answer();
    return Turn::kGoOn;
  }
  return answer(block.text);
}

ChatLoop::Turn ChatLoop::finish(const Status& written) {
  if (written.ok()) return Turn::kGoOn;
  exit_code_ = report_write(written);
  return Turn::kStop;
}

void ChatLoop::report_refusal(const Status& status) {
  if (status.code() == StatusCode::kTooLong) {
    warn(fmt::format("the conversation fills the context of {} tokens; `end` starts a new one",
                     pipeline_.engine().session_len()));
  } else {
    report(status);
  }
  miss_answer();
}

void ChatLoop::miss_answer() {
  if (!options_.interactive) exit_code_ = kExitFailure;
}

ChatLoop::Turn ChatLoop::after_interrupt() {
  if (options_.interactive) return Turn::kGoOn;
  exit_code_ = kExitInterrupted;
  return Turn::kStop;
}

ChatLoop::Turn ChatLoop::answer(std::string text) {
  // At a terminal a Ctrl-C of before is not meant for this answer.
  if (interrupts_.take() && after_interrupt() == Turn::kStop) return Turn::kStop;
  messages_.push_back({"user", std::move(text)});
  const auto reply = std::make_shared<Reply>();
  GenerationRequest request{.messages = messages_, .prompt = std::nullopt, .config = options_.generation};
  request.config.seed = seed_;
  const Result<RequestId> id =
      pipeline_.submit(std::move(request), [reply](Chunk chunk) { reply->queue.push(std::move(chunk)); });
  if (!id.ok()) {
    messages_.pop_back();
    report_refusal(id.status());
    return Turn::kGoOn;
  }
  Status written = follow(*id, *reply);
  if (written.ok()) written = write_stdout("\n");
  if (!written.ok()) return finish(written);

  const Chunk& final = reply->final;
  const FinishReason reason = final.reasons.empty() ? FinishReason::kError : final.reasons.front();
  if (reason == FinishReason::kAbort || reason == FinishReason::kError) {
    messages_.pop_back();
    if (!final.status.ok()) report_refusal(final.status);
    miss_answer();
  } else {
    messages_.push_back({"assistant", std::move(reply->text)});
  }
  if (reason == FinishReason::kLength && (options_.interactive || options_.verbose)) {
    const bool full = final.prompt_tokens + final.generated_tokens >= pipeline_.engine().session_len();
    note(full ? fmt::format("the conversation fills the context of {} tokens; `end` starts a new one",
                            pipeline_.engine().session_len())
              : fmt::format("cut after {} tokens (--max-new-tokens)", final.generated_tokens));
  }
  if (options_.verbose) write_stderr(reply->figures());
  return reply->interrupted ? after_interrupt() : Turn::kGoOn;
}

Status ChatLoop::follow(RequestId id, Reply& reply) {
  while (true) {
    std::array<pollfd, 2> watched{{{reply.queue.descriptor(), POLLIN, 0}, {interrupts_.descriptor(), POLLIN, 0}}};
    if (::poll(watched.data(), watched.size(), -1) < 0 && errno != EINTR && errno != EAGAIN) {
      return internal_error("poll failed");
    }
    if (interrupts_.take()) {
      reply.interrupted = true;
      pipeline_.cancel(id);
    }
    std::string fresh;
    bool done = false;
    for (Chunk& chunk : reply.queue.take()) {
      reply.count(chunk);
      fresh += chunk.text;
      if (!chunk.final) continue;
      reply.final = std::move(chunk);
      done = true;
    }
    reply.text += fresh;
    // After Ctrl-C what was on its way is not shown.
    Status written = reply.interrupted ? Status() : write_stdout(clean_output_ ? printable(fresh) : fresh);
    if (!written.ok()) {
      pipeline_.cancel(id);
      return written;
    }
    if (done) return {};
  }
}

}  // namespace lanner::cli
