#pragma once
// A request under way in the pipeline, as an answer that comes late: chunks in from the engine's thread, bytes out on
// the server's.
//
// An AnswerFormat is what one endpoint makes of it: events of a stream, or one body in the end.

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "lanner/pipeline.h"
#include "server/context.h"
#include "server/http.h"
#include "server/refusal.h"

namespace lanner::server {

/// One choice as far as it has come.
struct ChoiceSoFar {
  std::string text;
  std::vector<std::int32_t> token_ids;
  std::vector<TokenLogprobs> logprobs;
  FinishReason reason = FinishReason::kAbort;
  std::string stop;  // the stop string that ended it; empty where none did
};

struct TokenCounts {
  std::int64_t prompt = 0;
  std::int64_t cached = 0;
  std::int64_t generated = 0;
};

struct AnswerSoFar {
  std::vector<ChoiceSoFar> choices;
  TokenCounts counts;
};

/// Called on the server's thread alone. `out` is appended to.
class AnswerFormat {
 public:
  AnswerFormat() = default;
  AnswerFormat(const AnswerFormat&) = delete;
  AnswerFormat& operator=(const AnswerFormat&) = delete;
  virtual ~AnswerFormat() = default;

  virtual void begin(std::size_t choices, std::string& out) = 0;
  virtual void piece(std::size_t choice, const Chunk& chunk, std::string& out) = 0;
  virtual void end(const AnswerSoFar& answer, std::string& out) = 0;
  /// In place of end().
  virtual void fail(const Refusal& refusal, std::string& out) = 0;
  virtual HttpReply whole(const AnswerSoFar& answer) = 0;
  /// In place of whole().
  virtual HttpReply refuse(const Refusal& refusal) { return to_reply(refusal); }
};

struct AnswerPlan {
  std::vector<GenerationRequest> requests;  // choice c of request r is choice r * n + c of the answer
  std::unique_ptr<AnswerFormat> format;
  bool stream = false;
  /// Sees every chunk before the client does, on the engine's thread, also when the client has gone; may be empty.
  std::function<void(const Chunk&)> tap;
  /// The requests have begun under these names; may be empty.
  std::function<void(const std::vector<RequestId>&)> on_begun;
};

/// Checks the limits, submits, and answers: with a refusal, or late.
HttpReply answer_with(Context& context, AnswerPlan plan);

/// "stop", "length", "abort" or "error".
const char* reason_name(FinishReason reason);

}  // namespace lanner::server
