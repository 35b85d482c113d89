#include "engine/step_runner.h"

#include <algorithm>

namespace lanner {
namespace {

Event event_of(const Sequence& sequence, Event::Kind kind) {
  Event event;
  event.kind = kind;
  event.request = sequence.request->id;
  event.choice = sequence.choice;
  return event;
}

void send(const Sequence& sequence, const Event& event) {
  if (sequence.request->request.on_event) sequence.request->request.on_event(event);
}

bool wants_every_logits_row(const Sequence& sequence) {
  return sequence.choice == 0 && sequence.request->request.wants.logits == RequestWants::Logits::kAll;
}

}  // namespace

std::vector<StepResult> StepRunner::run(const Scheduler::Step& step, Scheduler& scheduler) {
  build(step);
  const ops::Batch batch{
      .rows = static_cast<std::int32_t>(tokens_.size()), .tokens = tokens_, .positions = positions_, .slices = slices_};
  const model::StepOutput output =
      decoder_.forward(batch, cache_, {.logits = wanted_logits_, .hidden = wanted_hidden_});
  sample(output);
  std::vector<StepResult> results;
  for (const Place& place : places_) {
    deliver_logits(place, output);
    deliver_hidden(place, output);
    scheduler.computed(*place.item.sequence, place.item.rows);
    results.push_back(advance(place));
  }
  return results;
}

void StepRunner::build(const Scheduler::Step& step) {
  tokens_.clear();
  positions_.clear();
  slices_.clear();
  places_.clear();
  wanted_logits_.clear();
  wanted_hidden_.clear();
  for (const Scheduler::Item& item : step.items) {
    const Sequence& sequence = *item.sequence;
    Place place{.item = item,
                .first_row = static_cast<std::int32_t>(tokens_.size()),
                .first_logits = wanted_logits_.size(),
                .logits_rows = 0,
                .first_hidden = wanted_hidden_.size(),
                .hidden_rows = 0};
    for (std::int64_t i = 0; i < item.rows; ++i) {
      const std::int64_t position = sequence.computed + i;
      tokens_.push_back(sequence.tokens[static_cast<std::size_t>(position)]);
      positions_.push_back(static_cast<std::int32_t>(position));
    }
    slices_.push_back({.first_row = place.first_row,
                       .rows = static_cast<std::int32_t>(item.rows),
                       .first_position = static_cast<std::int32_t>(sequence.computed),
                       .blocks = sequence.table.blocks()});
    add_wanted(place);
    places_.push_back(place);
  }
}

void StepRunner::add_wanted(Place& place) {
  const Sequence& sequence = *place.item.sequence;
  const auto rows = static_cast<std::int32_t>(place.item.rows);
  const bool last = place.item.rows == sequence.pending();
  const bool generates = last && sequence.request->request.max_new_tokens > 0;
  const bool every_row = wants_every_logits_row(sequence) && sequence.logits_delivered < sequence.size();
  for (std::int32_t i = 0; i < rows; ++i) {
    const bool undelivered = every_row && sequence.computed + i >= sequence.logits_delivered;
    if (undelivered || (generates && i == rows - 1)) wanted_logits_.push_back(place.first_row + i);
  }
  place.logits_rows = wanted_logits_.size() - place.first_logits;
  if (generates) place.sample = 0;  // numbered in sample()
  const RequestWants::Hidden hidden = sequence.request->request.wants.hidden;
  if (!sequence.wants_prompt_rows() || hidden == RequestWants::Hidden::kNone) return;
  for (std::int32_t i = hidden == RequestWants::Hidden::kMean ? 0 : rows - 1; i < rows; ++i) {
    wanted_hidden_.push_back(place.first_row + i);
  }
  place.hidden_rows = wanted_hidden_.size() - place.first_hidden;
}

void StepRunner::sample(const model::StepOutput& output) {
  const auto vocab = static_cast<std::size_t>(decoder_.spec().vocab);
  sample_rows_.clear();
  for (Place& place : places_) {
    if (place.sample < 0) continue;
    Sequence& sequence = *place.item.sequence;
    ban_tokens(sequence);
    const std::span<const std::int32_t> all(sequence.tokens);
    const auto prompt = static_cast<std::size_t>(sequence.prompt_size());
    place.sample = static_cast<std::int64_t>(sample_rows_.size());
    sample_rows_.push_back({.logits = {output.logits + (place.first_logits + place.logits_rows - 1) * vocab, vocab},
                            .params = &sequence.sampling,
                            .prompt_tokens = all.first(prompt),
                            .output_tokens = all.subspan(prompt),
                            .banned_tokens = sequence.banned,
                            .logit_bias = sequence.request->logit_bias});
  }
  sampled_.assign(sample_rows_.size(), {});
  if (!sample_rows_.empty()) backend_.sample(sample_rows_, sampled_);
}

void StepRunner::ban_tokens(Sequence& sequence) const {
  const Request& request = sequence.request->request;
  sequence.banned.clear();
  if (sequence.generated() < request.min_new_tokens) {
    sequence.banned.insert(sequence.banned.end(), request.stop_ids.begin(), request.stop_ids.end());
  }
  for (const std::vector<std::int32_t>& word : request.bad_words) {
    const std::span<const std::int32_t> beginning(word.data(), word.size() - 1);
    if (sequence.generated() < static_cast<std::int64_t>(beginning.size())) continue;
    const auto end = std::span<const std::int32_t>(sequence.tokens).last(beginning.size());
    if (std::equal(beginning.begin(), beginning.end(), end.begin())) sequence.banned.push_back(word.back());
  }
}

std::span<const float> StepRunner::on_host(const float* values, std::size_t count) {
  host_values_.resize(count);
  backend_.read(values, static_cast<std::int64_t>(count), host_values_.data());
  return host_values_;
}

void StepRunner::deliver_logits(const Place& place, const model::StepOutput& output) {
  Sequence& sequence = *place.item.sequence;
  const RequestWants::Logits wants = sequence.request->request.wants.logits;
  if (wants == RequestWants::Logits::kNone || place.logits_rows == 0) return;
  if (wants == RequestWants::Logits::kAll && sequence.choice > 0) return;
  const std::int64_t end = sequence.computed + place.item.rows;  // after this step
  auto rows = static_cast<std::int64_t>(place.logits_rows);
  rows = std::min(rows, end - sequence.logits_delivered);
  if (rows <= 0) return;
  const auto vocab = static_cast<std::size_t>(decoder_.spec().vocab);
  const std::size_t first = place.first_logits + place.logits_rows - static_cast<std::size_t>(rows);
  Event event = event_of(sequence, Event::Kind::kLogits);
  event.first_position = static_cast<std::int32_t>(end - rows);
  event.rows = static_cast<std::int32_t>(rows);
  event.values = on_host(output.logits + first * vocab, static_cast<std::size_t>(rows) * vocab);
  send(sequence, event);
  sequence.logits_delivered = end;
}

void StepRunner::deliver_hidden(const Place& place, const model::StepOutput& output) {
  if (place.hidden_rows == 0) return;
  Sequence& sequence = *place.item.sequence;
  const auto width = static_cast<std::size_t>(decoder_.spec().hidden);
  const bool mean = sequence.request->request.wants.hidden == RequestWants::Hidden::kMean;
  if (sequence.hidden_sum.empty() || !mean) sequence.hidden_sum.assign(width, 0.0F);
  const std::span<const float> hidden = on_host(output.hidden + place.first_hidden * width, place.hidden_rows * width);
  for (std::size_t row = 0; row < place.hidden_rows; ++row) {
    for (std::size_t i = 0; i < width; ++i) sequence.hidden_sum[i] += hidden[row * width + i];
  }
  if (place.item.rows < sequence.pending()) return;  // the prompt goes on
  if (mean) {
    const float inverse = 1.0F / static_cast<float>(sequence.prompt_size());
    for (float& value : sequence.hidden_sum) value *= inverse;
  }
  Event event = event_of(sequence, Event::Kind::kHidden);
  event.rows = 1;
  event.values = sequence.hidden_sum;
  send(sequence, event);
}

StepResult StepRunner::advance(const Place& place) {
  Sequence& sequence = *place.item.sequence;
  if (sequence.state == SequenceState::kPrefill) prompt_tokens_ += place.item.rows;
  if (sequence.pending() > 0) return {.sequence = &sequence};
  sequence.request->prompt_computed = true;
  if (place.sample < 0) return {.sequence = &sequence, .finished = true, .reason = FinishReason::kLength};
  return append_token(sequence, sampled_[static_cast<std::size_t>(place.sample)]);
}

StepResult StepRunner::append_token(Sequence& sequence, const ops::SampledToken& sampled) {
  if (!sampled.finite) {
    return {.sequence = &sequence,
            .finished = true,
            .reason = FinishReason::kError,
            .status = internal_error("the model's logits are not finite (NaN or infinity)")};
  }
  RequestState& request = *sequence.request;
  sequence.state = SequenceState::kDecode;
  sequence.tokens.push_back(sampled.token);
  ++request.generated_tokens;
  ++generated_tokens_;
  std::vector<TokenLogprob> top;
  for (const ops::TokenLogprob& entry : sampled.top) top.push_back({entry.token, entry.logprob});
  Event event = event_of(sequence, Event::Kind::kToken);
  event.token = sampled.token;
  event.logprob = sampled.logprob;
  event.top = top;
  send(sequence, event);
  const std::vector<std::int32_t>& stops = request.request.stop_ids;
  if (std::find(stops.begin(), stops.end(), sampled.token) != stops.end()) {
    return {.sequence = &sequence, .finished = true, .reason = FinishReason::kStop};
  }
  const bool full = sequence.generated() >= request.request.max_new_tokens || sequence.size() >= session_len_;
  return {.sequence = &sequence, .finished = full, .reason = FinishReason::kLength};
}

}  // namespace lanner
