#pragma once
// Chunks of many requests on their way from the engine's thread to the Python thread that waits for them.
//
//   LANNER_ASSIGN_OR_RETURN(auto inbox, Inbox::open());
//   auto id = pipeline.submit(request, [inbox](Chunk chunk) { inbox->put(7, Delivery::kWhole, std::move(chunk)); });
//   inbox->started(7, *id);
//   for (Letter& letter : inbox->take(0.1)) …            // letter.key is 7
//
// What one request has sent since the last look arrives as one letter, so that a slow reader costs a fast engine
// nothing. No Python object is touched here, nor when the last reference goes: that may be the engine's thread.
// Threads: any.

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "lanner/pipeline.h"

namespace lanner::python {

/// When a request's chunks may be taken.
enum class Delivery : std::uint8_t {
  kPieces,  // as they come
  kWhole,   // once its final chunk is there
};

struct Letter {
  std::uint64_t key = 0;      // as given to put()
  std::vector<Chunk> chunks;  // one a choice that has something new, the final one last
};

class Inbox {
 public:
  /// kResourceExhausted where the process has no file descriptor left.
  static Result<std::shared_ptr<Inbox>> open();
  ~Inbox();
  Inbox(const Inbox&) = delete;
  Inbox& operator=(const Inbox&) = delete;

  void put(std::uint64_t key, Delivery delivery, Chunk chunk);
  /// The engine's id of a request whose chunks come under `key`, some of which may have come already.
  void started(std::uint64_t key, RequestId id);
  /// Ids of requests whose final chunk has not come.
  std::vector<RequestId> running();
  /// Waits until there is something to take, at most `seconds`, or until a signal arrives.
  std::vector<Letter> take(double seconds);
  /// Readable while take() would not wait: for an event loop.
  int descriptor() const { return descriptor_; }

 private:
  explicit Inbox(int descriptor) : descriptor_(descriptor) {}

  struct Pending {
    std::vector<Chunk> chunks;
    bool ready = false;
  };

  const int descriptor_;  // an eventfd
  std::mutex mutex_;
  std::unordered_map<std::uint64_t, Pending> pending_;
  std::vector<std::uint64_t> ready_;  // in the order in which they became so
  std::unordered_map<std::uint64_t, RequestId> running_;
  std::unordered_set<std::uint64_t> ended_before_started_;
};

}  // namespace lanner::python
