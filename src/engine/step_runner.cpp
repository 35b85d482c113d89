#include "engine/step_runner.h"

#include <algorithm>

#include "core/check.h"

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

/// Where a mask has failed, the row is sampled from all tokens, and ends with what has failed.
std::span<const std::uint32_t> allowed_of(const Sequence& sequence) {
  if (sequence.constraint == nullptr || !sequence.constraint_status.ok()) return {};
  return sequence.allowed;
}

bool wants_every_logits_row(const Sequence& sequence) {
  return sequence.choice == 0 && sequence.request->request.wants.logits == RequestWants::Logits::kAll;
}

}  // namespace

Status StepRunner::start(const Scheduler::Step& step) {
  LANNER_CHECK(under_way_ < ops::kMostUncollected);
  const int turn = (newest_ + 1) % ops::kMostUncollected;
  Started& started = started_[turn];
  build(step, started);
  const ops::Batch batch{
      .rows = static_cast<std::int32_t>(tokens_.size()), .tokens = tokens_, .positions = positions_, .slices = slices_};
  const model::StepOutput output =
      decoder_.forward(batch, cache_, {.logits = wanted_logits_, .hidden = wanted_hidden_});
  masks_.wait();
  LANNER_RETURN_IF_ERROR(backend_.take_failure());
  if (started.delivers) {
    // Before sampling, which overwrites logits.
    for (const Place& place : started.places) LANNER_RETURN_IF_ERROR(deliver_logits(place, output));
  }
  sample(output, started);
  LANNER_RETURN_IF_ERROR(backend_.take_failure());
  newest_ = turn;
  ++under_way_;
  if (started.delivers) {
    for (const Place& place : started.places) {
      const Status status = deliver_hidden(place, output);
      // It has been put to work, and is not to be tried again.
      if (!status.ok()) return internal_error(status.message());
    }
  }
  for (Place& place : started.places) move_on(place);
  return {};
}

bool StepRunner::due() const {
  const Started& newest = started_[newest_];
  return under_way_ == ops::kMostUncollected || (under_way_ > 0 && (newest.answered || newest.awaited));
}

Result<std::vector<StepResult>> StepRunner::collect(Scheduler& scheduler) {
  LANNER_CHECK(under_way_ > 0);
  Started& started = started_[(newest_ + 1 - under_way_ + ops::kMostUncollected) % ops::kMostUncollected];
  if (!started.answered) {
    const auto begin = std::chrono::steady_clock::now();
    backend_.collect(started.sampled);
    waited_ += std::chrono::steady_clock::now() - begin;
  }
  --under_way_;
  if (Status status = backend_.take_failure(); !status.ok()) return internal_error(status.message());
  std::vector<StepResult> ended;
  for (const Place& place : started.places) {
    if (place.item.sequence == nullptr) continue;
    Sequence& sequence = *place.item.sequence;
    // Also where it fails: the other choices then find nothing in the tree, and compute the prompt themselves.
    if (place.sample >= 0 || place.ends) sequence.request->prompt_computed = true;
    if (place.sample >= 0) {
      if (auto result = take_token(place, started.sampled[static_cast<std::size_t>(place.sample)])) {
        ended.push_back(*std::move(result));
        if (ended.back().reason == FinishReason::kError) continue;  // nobody else is to find its keys and values
      }
    } else if (place.ends) {
      ended.push_back({.sequence = &sequence, .reason = FinishReason::kLength});
    }
    scheduler.publish(sequence);
  }
  return ended;
}

void StepRunner::abandon() {
  for (; under_way_ > 0; --under_way_) {
    Started& started = started_[(newest_ + 1 - under_way_ + ops::kMostUncollected) % ops::kMostUncollected];
    if (!started.answered) backend_.collect(started.sampled);
    started.places.clear();
  }
  static_cast<void>(backend_.take_failure());  // what follows from the one that is known
}

void StepRunner::forget(const Sequence& sequence) {
  for (Started& started : started_) {
    for (Place& place : started.places) {
      if (place.item.sequence == &sequence) place.item.sequence = nullptr;
    }
  }
}

void StepRunner::build(const Scheduler::Step& step, Started& started) {
  tokens_.clear();
  positions_.clear();
  slices_.clear();
  wanted_logits_.clear();
  wanted_hidden_.clear();
  started.places.clear();
  started.awaited = false;
  started.delivers = false;
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
    // What add_wanted() and awaited() would find: of many rows their questions are much of the host's time.
    if (sequence.request->plain && sequence.state == SequenceState::kDecode) {
      wanted_logits_.push_back(place.first_row);
      place.logits_rows = 1;
      place.sample = 0;  // numbered in sample()
      started.places.push_back(place);
      continue;
    }
    add_wanted(place);
    started.awaited = started.awaited || awaited(place);
    started.delivers = started.delivers || place.hidden_rows > 0 ||
                       sequence.request->request.wants.logits != RequestWants::Logits::kNone;
    if (place.sample >= 0 && sequence.constraint != nullptr) masks_.begin(*item.sequence);
    started.places.push_back(place);
  }
}

bool StepRunner::awaited(const Place& place) const {
  const Request& request = place.item.sequence->request->request;
  if (place.ends || place.hidden_rows > 0 || request.wants.logits != RequestWants::Logits::kNone) return true;
  if (place.sample >= 0 && request.grammar != nullptr) return true;
  // Whether a word of several tokens is about to be completed shows in the last of them.
  return place.sample >= 0 && std::ranges::any_of(request.bad_words, [](const auto& word) { return word.size() > 1; });
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
  place.ends = last && !generates;
  const RequestWants::Hidden hidden = sequence.request->request.wants.hidden;
  if (!sequence.wants_prompt_rows() || hidden == RequestWants::Hidden::kNone) return;
  for (std::int32_t i = hidden == RequestWants::Hidden::kMean ? 0 : rows - 1; i < rows; ++i) {
    wanted_hidden_.push_back(place.first_row + i);
  }
  place.hidden_rows = wanted_hidden_.size() - place.first_hidden;
}

void StepRunner::sample(const model::StepOutput& output, Started& started) {
  const auto vocab = static_cast<std::size_t>(decoder_.spec().vocab);
  sample_rows_.clear();
  for (Place& place : started.places) {
    if (place.sample < 0) continue;
    Sequence& sequence = *place.item.sequence;
    if (!sequence.request->plain) ban_tokens(sequence);
    const std::span<const std::int32_t> all(sequence.tokens);
    const auto prompt = static_cast<std::size_t>(sequence.prompt_size());
    place.sample = static_cast<std::int64_t>(sample_rows_.size());
    sample_rows_.push_back({.logits = {output.logits + (place.first_logits + place.logits_rows - 1) * vocab, vocab},
                            .params = &sequence.sampling,
                            .prompt_tokens = all.first(prompt),
                            .output_tokens = all.subspan(prompt),
                            .banned_tokens = sequence.banned,
                            .allowed_tokens = allowed_of(sequence),
                            .logit_bias = sequence.request->logit_bias});
  }
  started.sampled.assign(sample_rows_.size(), {});
  started.answered = sample_rows_.empty() || backend_.sample(sample_rows_, started.sampled);
}

void StepRunner::move_on(Place& place) {
  Sequence& sequence = *place.item.sequence;
  if (sequence.state == SequenceState::kPrefill) prompt_tokens_ += place.item.rows;
  sequence.computed += place.item.rows;
  if (place.sample < 0) return;
  place.token = sequence.tokens.size();
  sequence.tokens.push_back(ops::sampled_token(place.sample));
  sequence.state = SequenceState::kDecode;
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

Result<std::span<const float>> StepRunner::on_host(const float* values, std::size_t count) {
  host_values_.resize(count);
  backend_.read(values, static_cast<std::int64_t>(count), host_values_.data());
  LANNER_RETURN_IF_ERROR(backend_.take_failure());
  return std::span<const float>(host_values_);
}

Status StepRunner::deliver_logits(const Place& place, const model::StepOutput& output) {
  Sequence& sequence = *place.item.sequence;
  const RequestWants::Logits wants = sequence.request->request.wants.logits;
  if (wants == RequestWants::Logits::kNone || place.logits_rows == 0) return {};
  if (wants == RequestWants::Logits::kAll && sequence.choice > 0) return {};
  const std::int64_t end = sequence.computed + place.item.rows;  // after this step
  auto rows = static_cast<std::int64_t>(place.logits_rows);
  rows = std::min(rows, end - sequence.logits_delivered);
  if (rows <= 0) return {};
  const auto vocab = static_cast<std::size_t>(decoder_.spec().vocab);
  const std::size_t first = place.first_logits + place.logits_rows - static_cast<std::size_t>(rows);
  Event event = event_of(sequence, Event::Kind::kLogits);
  event.first_position = static_cast<std::int32_t>(end - rows);
  event.rows = static_cast<std::int32_t>(rows);
  LANNER_ASSIGN_OR_RETURN(event.values, on_host(output.logits + first * vocab, static_cast<std::size_t>(rows) * vocab));
  send(sequence, event);
  sequence.logits_delivered = end;
  return {};
}

Status StepRunner::deliver_hidden(const Place& place, const model::StepOutput& output) {
  if (place.hidden_rows == 0) return {};
  Sequence& sequence = *place.item.sequence;
  const auto width = static_cast<std::size_t>(decoder_.spec().hidden);
  const bool mean = sequence.request->request.wants.hidden == RequestWants::Hidden::kMean;
  if (sequence.hidden_sum.empty() || !mean) sequence.hidden_sum.assign(width, 0.0F);
  LANNER_ASSIGN_OR_RETURN(const std::span<const float> hidden,
                          on_host(output.hidden + place.first_hidden * width, place.hidden_rows * width));
  for (std::size_t row = 0; row < place.hidden_rows; ++row) {
    for (std::size_t i = 0; i < width; ++i) sequence.hidden_sum[i] += hidden[row * width + i];
  }
  if (place.item.rows < sequence.pending()) return {};  // the prompt goes on
  if (mean) {
    const float inverse = 1.0F / static_cast<float>(sequence.prompt_size());
    for (float& value : sequence.hidden_sum) value *= inverse;
  }
  Event event = event_of(sequence, Event::Kind::kHidden);
  event.rows = 1;
  event.values = sequence.hidden_sum;
  send(sequence, event);
  return {};
}

std::optional<StepResult> StepRunner::take_token(const Place& place, const ops::SampledToken& sampled) {
  Sequence& sequence = *place.item.sequence;
  if (!sampled.finite) {
    return StepResult{.sequence = &sequence,
                      .reason = FinishReason::kError,
                      .status = internal_error("the model's logits are not finite (NaN or infinity)")};
  }
  if (!sequence.constraint_status.ok()) {
    return StepResult{.sequence = &sequence,
                      .reason = FinishReason::kError,
                      .status = with_context(sequence.constraint_status, "the grammar")};
  }
  RequestState& request = *sequence.request;
  sequence.tokens[place.token] = sampled.token;
  ++request.generated_tokens;
  ++generated_tokens_;
  top_.clear();
  for (const ops::TokenLogprob& entry : sampled.top) top_.push_back({entry.token, entry.logprob});
  Event event = event_of(sequence, Event::Kind::kToken);
  event.token = sampled.token;
  event.logprob = sampled.logprob;
  event.top = top_;
  send(sequence, event);
  const std::vector<std::int32_t>& stops = request.request.stop_ids;
  if (std::find(stops.begin(), stops.end(), sampled.token) != stops.end()) {
    return StepResult{.sequence = &sequence, .reason = FinishReason::kStop};
  }
  if (sequence.constraint != nullptr) {
    if (auto ended = constrain(sequence, sampled.token)) return ended;
  }
  if (static_cast<std::int64_t>(place.token) + 1 < sequence.most_tokens) return std::nullopt;
  return StepResult{.sequence = &sequence, .reason = FinishReason::kLength};
}

std::optional<StepResult> StepRunner::constrain(Sequence& sequence, std::int32_t token) {
  const Result<bool> ended = sequence.constraint->accept(token);
  if (!ended.ok()) {
    return StepResult{
        .sequence = &sequence, .reason = FinishReason::kError, .status = with_context(ended.status(), "the grammar")};
  }
  if (!*ended) return std::nullopt;
  return StepResult{.sequence = &sequence, .reason = FinishReason::kStop};
}

}  // namespace lanner
