#pragma once
// One request's tokens to its text: what lies between the engine's events and the pipeline's chunks.
//
// Each choice has a detokenizer and a matcher of stop strings. The engine can only cancel whole requests, so a choice
// whose stop string was found stays quiet while others go on, and the request is cancelled once none is left.
//
//   if (answer.take(event)) engine.cancel(event.request);
//
// Threads: one at a time (the engine's). Exactly one final chunk leaves, with the final event.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lanner/pipeline.h"
#include "text/detokenizer.h"
#include "text/stop_strings.h"

namespace lanner {

struct AnswerSettings {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::int32_t n = 1;
  std::vector<std::string> stop;       // strings
  std::vector<std::int32_t> stop_ids;  // as in the engine's request
  bool skip_special_tokens = true;
  bool include_stop = false;  // stop strings and stop tokens are part of the answer
  bool logprobs = false;
};

class Answer {
 public:
  Answer(AnswerSettings settings, std::function<void(Chunk)> on_chunk);

  /// True, once, when nothing more is wanted although the engine has not ended the request.
  bool take(const Event& event);

 private:
  struct Choice {
    Choice(const AnswerSettings& settings)  // NOLINT(google-explicit-constructor)
        : detokenizer(settings.tokenizer, settings.skip_special_tokens), stops(settings.stop) {}
    IncrementalDetokenizer detokenizer;
    StopMatcher stops;
    bool ended = false;                  // no more text, whatever the engine sends
    std::optional<FinishReason> reason;  // ours, which goes before the engine's
    std::string stop;                    // the stop string that ended it
  };

  void take_token(const Event& event);
  void take_logits(const Event& event);
  void take_final(const Event& event);
  /// Adds what may be shown of `text` to the chunk; ends the choice at a stop string.
  void add_text(Choice& choice, std::string_view text, Chunk& chunk) const;
  /// What the choice still holds back.
  void flush(Choice& choice, Chunk& chunk) const;
  bool is_stop_id(std::int32_t token) const;

  const AnswerSettings settings_;
  const std::function<void(Chunk)> on_chunk_;
  std::vector<Choice> choices_;  // (n)
  std::int32_t generated_ = 0;
  bool cancelled_ = false;  // by us
  Status failure_;
};

}  // namespace lanner
