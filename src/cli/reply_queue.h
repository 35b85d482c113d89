#pragma once
// Chunks on their way from the engine's thread to the one that writes them, with a descriptor to wait on.

#include <mutex>
#include <vector>

#include "lanner/pipeline.h"

namespace lanner::cli {

class ReplyQueue {
 public:
  ReplyQueue();
  ~ReplyQueue();
  ReplyQueue(const ReplyQueue&) = delete;
  ReplyQueue& operator=(const ReplyQueue&) = delete;

  /// From any thread.
  void push(Chunk chunk);
  /// What has come since the last call.
  std::vector<Chunk> take();
  /// Readable while take() has something to return.
  int descriptor() const { return descriptor_; }

 private:
  const int descriptor_;  // an eventfd
  std::mutex mutex_;
  std::vector<Chunk> chunks_;
};

}  // namespace lanner::cli
