#pragma once
// What the next step computes.
//
// Decode rows first, one for each running sequence that has its prompt behind it; then prompt chunks, oldest first, up
// to the token budget; then sequences that wait are admitted in order of arrival while blocks and slots last. When a
// decoding sequence needs a block and none is left, the youngest running sequence gives up its own and waits again.
// Admission takes the blocks of the whole prompt at once, so that chunks cannot run out half way. A step may be planned
// while the one before is under way: sequences go on as if that did not end them, unless it is the last that they may
// have; what a preempted one is still given, it keeps.
//
// Where all slots are taken and more wait, slots are given out again some at a time, or after some steps: a few prompts
// together cost a GPU less than one beside each step, and the steps between them have the form that it repeats.
//
// Used by the engine's thread alone.

#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "engine/kv_blocks.h"
#include "engine/sequence.h"

namespace lanner {

struct SchedulerLimits {
  std::int64_t max_sequences = 1;
  std::int64_t max_rows = 1;         // of a step
  std::int64_t max_output_rows = 1;  // rows of a step whose logits or hidden states are wanted
  std::int64_t given_at_once = 1;    // slots that wait to be given out together where all were taken and more wait
};

class Scheduler {
 public:
  struct Item {
    Sequence* sequence;
    std::int64_t rows;
  };
  /// What one step computes, and who could not go on at all.
  struct Step {
    std::vector<Item> items;
    std::vector<Sequence*> stuck;  // alone and out of blocks: to be finished by the caller
    std::int64_t prompts = 0;      // items with rows of a prompt; the others have one row, of the token made last
  };

  Scheduler(const SchedulerLimits& limits, KvBlocks& blocks) : most_(limits), limits_(limits), blocks_(blocks) {}

  void add(std::unique_ptr<Sequence> sequence);
  Step plan();
  /// Takes a sequence out, whatever its state, and gives its blocks back.
  std::unique_ptr<Sequence> remove(const Sequence& sequence);
  /// Makes full blocks available to others; the sequence's computed tokens are all known.
  void publish(Sequence& sequence) { blocks_.publish(sequence.tokens, sequence.computed, sequence.table); }

  /// Steps become half as large: the younger half of those that run waits until the others have ended, and prompts are
  /// computed in smaller chunks. False: they are as small as they get.
  bool give_way();
  /// One more may run than give_way() left, and chunks may be twice as large, up to the limits.
  void recover();
  /// As give_way() left them.
  const SchedulerLimits& limits() const { return limits_; }

  bool idle() const { return running_.empty() && waiting_.empty(); }
  std::int64_t running() const { return static_cast<std::int64_t>(running_.size()); }
  std::int64_t waiting() const { return static_cast<std::int64_t>(waiting_.size()); }
  std::int64_t preemptions() const { return preemptions_; }
  std::int64_t prefix_hits() const { return prefix_hits_; }  // tokens
  /// All sequences, running and waiting.
  std::vector<Sequence*> all() const;

 private:
  using Queue = std::list<std::unique_ptr<Sequence>>;

  /// A step looks at each sequence once here, and in admit() at what was counted: of many, each look is a wait for
  /// memory.
  void plan_decode(Step& step);
  void plan_prefill(Step& step);
  void admit(Step& step);
  /// Whether the `free` slots stay empty in this step, for more to become free.
  bool waits_for_company(std::int64_t free);
  bool try_admit(Sequence& sequence);
  bool schedule_chunk(Sequence& sequence, Step& step);
  void preempt(Queue::iterator victim);

  const SchedulerLimits most_;
  SchedulerLimits limits_;  // now
  KvBlocks& blocks_;
  Queue running_;                // in order of arrival
  Queue waiting_;                // in order of arrival
  std::int64_t prefilling_ = 0;  // of those that run, by plan_decode()
  std::int64_t going_on_ = 0;    // who do not wait for their last token alone
  std::int64_t rows_left_ = 0;
  std::int64_t output_rows_left_ = 0;
  bool was_full_ = false;  // when sequences were admitted last
  int held_steps_ = 0;     // in which slots stayed empty
  std::int64_t preemptions_ = 0;
  std::int64_t prefix_hits_ = 0;
};

}  // namespace lanner
