#include "inbox.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/check.h"

namespace lanner::python {
namespace {

/// Puts `next` behind `chunk`, of the same choice.
void append(Chunk& chunk, Chunk next) {
  next.text.insert(0, chunk.text);
  next.token_ids.insert(next.token_ids.begin(), chunk.token_ids.begin(), chunk.token_ids.end());
  next.logprobs.insert(next.logprobs.begin(), std::make_move_iterator(chunk.logprobs.begin()),
                       std::make_move_iterator(chunk.logprobs.end()));
  next.logits.insert(next.logits.begin(), chunk.logits.begin(), chunk.logits.end());
  chunk = std::move(next);
}

}  // namespace

Inbox::Inbox() : descriptor_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) { LANNER_CHECK(descriptor_ >= 0); }

Inbox::~Inbox() { close(descriptor_); }

void Inbox::put(std::uint64_t key, Delivery delivery, Chunk chunk) {
  const std::lock_guard lock(mutex_);
  Pending& pending = pending_[key];
  const bool ready = delivery == Delivery::kPieces || chunk.final;
  const auto same = std::ranges::find(pending.chunks, chunk.choice, &Chunk::choice);
  if (same == pending.chunks.end()) {
    pending.chunks.push_back(std::move(chunk));
  } else {
    append(*same, std::move(chunk));
    std::rotate(same, same + 1, pending.chunks.end());
  }
  if (!ready || pending.ready) return;
  pending.ready = true;
  ready_.push_back(key);
  if (ready_.size() == 1) eventfd_write(descriptor_, 1);
}

std::vector<Letter> Inbox::take(double seconds) {
  pollfd wait{.fd = descriptor_, .events = POLLIN, .revents = 0};
  poll(&wait, 1, static_cast<int>(std::lround(std::clamp(seconds, 0.0, 3600.0) * 1000)));
  const std::lock_guard lock(mutex_);
  eventfd_t count = 0;
  eventfd_read(descriptor_, &count);
  std::vector<Letter> letters;
  letters.reserve(ready_.size());
  for (const std::uint64_t key : ready_) {
    const auto found = pending_.find(key);
    letters.push_back({.key = key, .chunks = std::move(found->second.chunks)});
    pending_.erase(found);
  }
  ready_.clear();
  return letters;
}

}  // namespace lanner::python
