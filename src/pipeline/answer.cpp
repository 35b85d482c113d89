#include "pipeline/answer.h"

#include <algorithm>
#include <utility>

namespace lanner {

Answer::Answer(AnswerSettings settings, std::function<void(Chunk)> on_chunk)
    : settings_(std::move(settings)), on_chunk_(std::move(on_chunk)) {
  choices_.reserve(static_cast<std::size_t>(settings_.n));
  for (std::int32_t i = 0; i < settings_.n; ++i) choices_.emplace_back(settings_);
}

bool Answer::is_stop_id(std::int32_t token) const {
  return std::ranges::find(settings_.stop_ids, token) != settings_.stop_ids.end();
}

bool Answer::take(const Event& event) {
  if (event.kind == Event::Kind::kFinal) {
    take_final(event);
    return false;
  }
  if (event.kind == Event::Kind::kToken) take_token(event);
  if (event.kind == Event::Kind::kLogits) take_logits(event);
  if (cancelled_) return false;
  // A choice with a reason of ours is one that the engine would go on with.
  const bool stopped = std::ranges::any_of(choices_, [](const Choice& choice) { return choice.reason.has_value(); });
  const bool all_ended = std::ranges::all_of(choices_, [](const Choice& choice) { return choice.ended; });
  cancelled_ = !failure_.ok() || (stopped && all_ended);
  return cancelled_;
}

void Answer::take_token(const Event& event) {
  const auto at = static_cast<std::size_t>(event.choice);
  if (at >= choices_.size() || choices_[at].ended) return;
  Choice& choice = choices_[at];
  ++generated_;

  Chunk chunk;
  chunk.request = event.request;
  chunk.choice = event.choice;
  const bool is_stop = is_stop_id(event.token);
  if (!is_stop || settings_.include_stop) {
    chunk.token_ids.push_back(event.token);
    if (settings_.logprobs) {
      chunk.logprobs.push_back({event.token, event.logprob, {event.top.begin(), event.top.end()}});
    }
    const Result<std::string> text = choice.detokenizer.push(event.token);
    if (!text.ok()) {
      choice.ended = true;
      choice.reason = FinishReason::kError;
      if (failure_.ok()) failure_ = with_context(text.status(), "detokenizing the answer");
      return;
    }
    add_text(choice, *text, chunk);
  }
  if (is_stop && !choice.ended) {  // the engine ends the choice: nothing can follow what is held back
    flush(choice, chunk);
    choice.ended = true;
  }
  if (!chunk.text.empty() || !chunk.token_ids.empty()) on_chunk_(std::move(chunk));
}

void Answer::take_logits(const Event& event) {
  Chunk chunk;
  chunk.request = event.request;
  chunk.choice = event.choice;
  chunk.logits.assign(event.values.begin(), event.values.end());
  on_chunk_(std::move(chunk));
}

void Answer::add_text(Choice& choice, std::string_view text, Chunk& chunk) const {
  StopMatcher::Step step = choice.stops.push(text);
  chunk.text += step.text;
  if (!step.stop) return;
  choice.stop = settings_.stop[*step.stop];
  if (settings_.include_stop) chunk.text += choice.stop;
  choice.ended = true;
  choice.reason = FinishReason::kStop;
}

void Answer::flush(Choice& choice, Chunk& chunk) const {
  add_text(choice, choice.detokenizer.finish(), chunk);
  if (!choice.ended) chunk.text += choice.stops.finish();
}

void Answer::take_final(const Event& event) {
  Chunk final;
  final.request = event.request;
  final.final = true;
  final.reasons = event.reasons;
  final.reasons.resize(choices_.size(), event.status.ok() ? FinishReason::kAbort : FinishReason::kError);
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    Choice& choice = choices_[i];
    if (!choice.ended) {
      Chunk rest;
      rest.request = event.request;
      rest.choice = static_cast<std::int32_t>(i);
      flush(choice, rest);
      choice.ended = true;
      if (!rest.text.empty()) on_chunk_(std::move(rest));
    }
    if (choice.reason) final.reasons[i] = *choice.reason;
    final.stops.push_back(std::move(choice.stop));
  }
  // An engine that fails after every choice had its answer has not failed the request.
  const bool failed = std::ranges::find(final.reasons, FinishReason::kError) != final.reasons.end();
  if (failed) final.status = failure_.ok() ? event.status : failure_;
  if (failed && final.status.ok()) final.status = internal_error("the engine ended the request without saying why");
  final.prompt_tokens = event.prompt_tokens;
  final.cached_tokens = event.cached_tokens;
  final.generated_tokens = generated_;
  on_chunk_(std::move(final));
}

}  // namespace lanner
