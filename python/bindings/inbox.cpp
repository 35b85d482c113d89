#include "inbox.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <iterator>
#include <string>
#include <system_error>
#include <utility>

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace lanner::python {
namespace {

/// Puts `next` behind `chunk`, of the same choice.
void append(Chunk& chunk, Chunk next) {
  chunk.text += next.text;
  chunk.token_ids.insert(chunk.token_ids.end(), next.token_ids.begin(), next.token_ids.end());
  std::ranges::move(next.logprobs, std::back_inserter(chunk.logprobs));
  chunk.logits.insert(chunk.logits.end(), next.logits.begin(), next.logits.end());
  if (!next.final) return;
  next.text = std::move(chunk.text);
  next.token_ids = std::move(chunk.token_ids);
  next.logprobs = std::move(chunk.logprobs);
  next.logits = std::move(chunk.logits);
  chunk = std::move(next);
}

}  // namespace

Result<std::shared_ptr<Inbox>> Inbox::open() {
  const int descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (descriptor < 0) {
    return resource_exhausted("a request needs a file descriptor: " + std::generic_category().message(errno));
  }
  return std::shared_ptr<Inbox>(new Inbox(descriptor));
}

Inbox::~Inbox() { close(descriptor_); }

void Inbox::put(std::uint64_t key, Delivery delivery, Chunk chunk) {
  const std::lock_guard lock(mutex_);
  if (chunk.final && running_.erase(key) == 0) ended_before_started_.insert(key);
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

void Inbox::started(std::uint64_t key, RequestId id) {
  const std::lock_guard lock(mutex_);
  if (ended_before_started_.erase(key) == 0) running_[key] = id;
}

std::vector<RequestId> Inbox::running() {
  const std::lock_guard lock(mutex_);
  std::vector<RequestId> ids;
  for (const auto& [key, id] : running_) ids.push_back(id);
  return ids;
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
