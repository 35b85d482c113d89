#pragma once
// What the answers of /v1/chat/completions and /v1/completions have in common.

#include <string>
#include <string_view>
#include <vector>

#include "server/answer_task.h"
#include "server/json.h"

namespace lanner::server {

struct OpenAiAnswerOptions {
  const Pipeline* pipeline = nullptr;  // spells tokens
  std::string id;
  std::string model;
  bool include_usage = false;  // in a stream
  int logprobs = -1;           // -1: none; how many others are told
};

Json usage_json(const TokenCounts& counts);

/// A logprob as JSON knows it: minus infinity is not a number there.
double finite_logprob(float logprob);
/// A list of what the model thought of each token.
Json token_logprobs_json(const Pipeline& pipeline, const std::vector<TokenLogprobs>& tokens);
/// The bytes as text.
std::string lossy_text(std::string_view bytes);

/// Puts an event, and after a stream's last one `[DONE]`.
void put_event(std::string_view json, std::string& out);
/// An event that has a name besides.
void put_named_event(std::string_view name, std::string_view json, std::string& out);
void put_done(std::string& out);
void put_failure(const Refusal& refusal, std::string& out);

/// Choices in the envelope of OpenAI's protocol, streamed or whole.
class OpenAiFormat : public AnswerFormat {
 public:
  /// What the protocol calls an event of a stream, and a whole answer.
  OpenAiFormat(OpenAiAnswerOptions options, const char* event, const char* object);

  void end(const AnswerSoFar& answer, std::string& out) final;
  void fail(const Refusal& refusal, std::string& out) final { put_failure(refusal, out); }
  HttpReply whole(const AnswerSoFar& answer) final;

 protected:
  const OpenAiAnswerOptions& options() const { return options_; }
  /// An event of one choice. `addition`: the member that says what is added, such as `"text":"…"`; the others are JSON.
  void put_choice(std::size_t index, std::string_view addition, std::string_view logprobs, std::string_view reason,
                  std::string& out) const;
  /// The member of put_choice() that adds nothing.
  virtual std::string_view no_addition() const = 0;
  virtual Json choice_json(std::size_t index, const ChoiceSoFar& choice) = 0;
  /// Events for what a choice held back, before the one that says why it ended.
  virtual void finish_choice(std::size_t /*index*/, std::string& /*out*/) {}
  /// What that event says, of a stream.
  virtual const char* end_reason(std::size_t /*index*/, FinishReason reason) const { return reason_name(reason); }

 private:
  const OpenAiAnswerOptions options_;
  const char* const object_;
  const std::string head_;  // with which every event begins, up to its choices
};

}  // namespace lanner::server
