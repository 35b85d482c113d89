#include "engine/scheduler.h"

#include <algorithm>

#include "core/check.h"

namespace lanner {
namespace {

constexpr int kMostHeldSteps = 16;

using Queue = std::list<std::unique_ptr<Sequence>>;

void insert_by_age(Queue& queue, std::unique_ptr<Sequence> sequence) {
  auto place = queue.end();
  while (place != queue.begin() && sequence->older_than(**std::prev(place))) --place;
  queue.insert(place, std::move(sequence));
}

std::unique_ptr<Sequence> take(Queue& queue, const Sequence& wanted) {
  for (auto it = queue.begin(); it != queue.end(); ++it) {
    if (it->get() != &wanted) continue;
    std::unique_ptr<Sequence> found = std::move(*it);
    queue.erase(it);
    return found;
  }
  return nullptr;
}

}  // namespace

void Scheduler::add(std::unique_ptr<Sequence> sequence) { insert_by_age(waiting_, std::move(sequence)); }

std::unique_ptr<Sequence> Scheduler::remove(const Sequence& sequence) {
  std::unique_ptr<Sequence> found = take(running_, sequence);
  if (found == nullptr) found = take(waiting_, sequence);
  LANNER_CHECK(found != nullptr);
  blocks_.release(found->table);
  return found;
}

std::vector<Sequence*> Scheduler::all() const {
  std::vector<Sequence*> result;
  for (const auto& sequence : running_) result.push_back(sequence.get());
  for (const auto& sequence : waiting_) result.push_back(sequence.get());
  return result;
}

Scheduler::Step Scheduler::plan() {
  Step step;
  rows_left_ = limits_.max_rows;
  output_rows_left_ = limits_.max_output_rows;
  plan_decode(step);
  plan_prefill(step);
  admit(step);
  return step;
}

void Scheduler::plan_decode(Step& step) {
  prefilling_ = 0;
  going_on_ = 0;
  for (auto it = running_.begin(); it != running_.end(); ++it) {
    Sequence& sequence = **it;
    if (sequence.state == SequenceState::kPrefill) ++prefilling_;
    if (sequence.awaits_last_token()) continue;
    ++going_on_;
    if (sequence.state != SequenceState::kDecode) continue;
    bool room = blocks_.extend(sequence.size(), sequence.table);
    while (!room && std::prev(running_.end()) != it) {
      preempt(std::prev(running_.end()));  // younger than this one, and not in the step yet
      room = blocks_.extend(sequence.size(), sequence.table);
    }
    if (room) {
      step.items.push_back({&sequence, 1});
      --rows_left_;
      --output_rows_left_;
    } else if (running_.size() == 1) {
      step.stuck.push_back(&sequence);
    } else {  // the youngest itself: it waits until older ones end
      preempt(it);
      --going_on_;
      return;
    }
  }
}

void Scheduler::plan_prefill(Step& step) {
  if (prefilling_ == 0) return;
  for (const auto& sequence : running_) {
    if (sequence->state == SequenceState::kPrefill && !schedule_chunk(*sequence, step)) return;
  }
}

void Scheduler::admit(Step& step) {
  if (waits_for_company(limits_.max_sequences - going_on_)) return;
  was_full_ = false;
  while (!waiting_.empty() && going_on_ < limits_.max_sequences && rows_left_ > 0 && output_rows_left_ > 0) {
    if (!try_admit(*waiting_.front())) return;
    ++going_on_;
    std::unique_ptr<Sequence> sequence = std::move(waiting_.front());
    waiting_.pop_front();
    Sequence& admitted = *sequence;
    admitted.state = SequenceState::kPrefill;
    insert_by_age(running_, std::move(sequence));
    if (!schedule_chunk(admitted, step)) return;
  }
  was_full_ = going_on_ >= limits_.max_sequences;
}

bool Scheduler::waits_for_company(std::int64_t free) {
  const bool waits = was_full_ && free > 0 && free < limits_.given_at_once && waiting() > free &&
                     held_steps_ < kMostHeldSteps && !waiting_.front()->older_than(*running_.back());
  held_steps_ = waits ? held_steps_ + 1 : 0;
  return waits;
}

bool Scheduler::try_admit(Sequence& sequence) {
  const RequestState& request = *sequence.request;
  // The other choices wait for the first to compute the prompt, and then find it in the tree.
  if (sequence.choice > 0 && !request.prompt_computed) return false;
  std::int64_t matched = 0;
  if (!sequence.wants_prompt_rows()) matched = blocks_.match(sequence.tokens, sequence.table);
  // Room for the prompt, and a block for each that runs already, so that admission does not cause preemption at once.
  const std::int64_t needed =
      KvBlocks::blocks_for(sequence.size()) - static_cast<std::int64_t>(sequence.table.blocks().size());
  const bool room = needed + running() <= blocks_.available() || (running_.empty() && needed <= blocks_.available());
  if (!room) {
    blocks_.release(sequence.table);
    return false;
  }
  LANNER_CHECK(blocks_.extend(sequence.size(), sequence.table));
  sequence.computed = matched;
  prefix_hits_ += matched;
  if (sequence.choice == 0 && sequence.generated() == 0) {
    sequence.request->cached_tokens = static_cast<std::int32_t>(matched);
  }
  return true;
}

bool Scheduler::schedule_chunk(Sequence& sequence, Step& step) {
  std::int64_t rows = std::min(sequence.pending(), rows_left_);
  if (sequence.wants_prompt_rows()) rows = std::min(rows, output_rows_left_);
  if (rows <= 0 || output_rows_left_ <= 0) return false;
  step.items.push_back({&sequence, rows});
  ++step.prompts;
  rows_left_ -= rows;
  output_rows_left_ -= sequence.wants_prompt_rows() ? rows : 1;
  return true;
}

bool Scheduler::give_way() {
  constexpr std::int64_t kLeastRows = 16;  // of a step with prompts
  const bool fewer = running_.size() > 1;
  const bool smaller = limits_.max_rows > kLeastRows;
  if (fewer) limits_.max_sequences = running() / 2;
  while (running() > limits_.max_sequences) preempt(std::prev(running_.end()));
  if (smaller) limits_.max_rows = std::max(limits_.max_rows / 2, kLeastRows);
  return fewer || smaller;
}

void Scheduler::recover() {
  limits_.max_sequences = std::min(limits_.max_sequences + 1, most_.max_sequences);
  limits_.max_rows = std::min(2 * limits_.max_rows, most_.max_rows);
}

void Scheduler::preempt(Queue::iterator victim) {
  std::unique_ptr<Sequence> sequence = std::move(*victim);
  running_.erase(victim);
  blocks_.release(sequence->table);
  sequence->computed = 0;
  sequence->state = SequenceState::kWaiting;
  sequence->hidden_sum.clear();
  ++preemptions_;
  insert_by_age(waiting_, std::move(sequence));
}

}  // namespace lanner
