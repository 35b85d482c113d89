#include "cli/reply_queue.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <utility>

#include "core/check.h"

namespace lanner::cli {

ReplyQueue::ReplyQueue() : descriptor_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) { LANNER_CHECK(descriptor_ >= 0); }

ReplyQueue::~ReplyQueue() { ::close(descriptor_); }

void ReplyQueue::push(Chunk chunk) {
  const std::lock_guard lock(mutex_);
  chunks_.push_back(std::move(chunk));
  ::eventfd_write(descriptor_, 1);
}

std::vector<Chunk> ReplyQueue::take() {
  const std::lock_guard lock(mutex_);
  eventfd_t count = 0;
  ::eventfd_read(descriptor_, &count);
  return std::exchange(chunks_, {});
}

}  // namespace lanner::cli
