#pragma once
// The conversations of /v1/chat/interactive, kept for clients that send only the new message each time.
//
// A conversation is its messages: each turn is rendered by the chat template from the start, and the engine's prefix
// cache makes what was said before cheap. Idle ones are forgotten after a while, and the one that was used least
// recently when there are too many.
//
// Threads: any.

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "lanner/pipeline.h"

namespace lanner::server {

class Sessions {
 public:
  using Clock = std::chrono::steady_clock;

  Sessions(std::size_t most, std::chrono::seconds idle_time) : most_(most), idle_time_(idle_time) {}

  struct Turn {
    std::uint64_t id = 0;
    std::vector<Message> history;
    std::int64_t history_tokens = 0;  // of the prompt and the answer before
  };

  /// The conversation so far; nothing when another of its turns is being answered. `id` empty: a new one.
  std::optional<Turn> begin(std::optional<std::uint64_t> id, Clock::time_point now);
  /// A request of this turn has begun: cancel() stops it.
  void running(std::uint64_t id, std::vector<RequestId> requests);
  /// The turn is over; `history` is what the next one goes on from.
  void keep(std::uint64_t id, std::vector<Message> history, std::int64_t history_tokens, Clock::time_point now);
  /// The turn is over, and the conversation goes on as if it had not been.
  void release(std::uint64_t id, Clock::time_point now);
  /// The conversation is over.
  void end(std::uint64_t id);

  /// Requests of the turn that is being answered; none where there is no such session or turn.
  std::vector<RequestId> requests_of(std::uint64_t id) const;
  std::size_t size() const;

 private:
  struct Session {
    std::vector<Message> history;
    std::int64_t history_tokens = 0;
    Clock::time_point used;
    bool busy = false;
    std::vector<RequestId> requests;
  };

  /// For one more.
  void make_room();

  const std::size_t most_;
  const std::chrono::seconds idle_time_;
  mutable std::mutex mutex_;
  std::map<std::uint64_t, Session> sessions_;
  std::uint64_t last_drawn_ = 1ULL << 32U;  // above what people choose
};

}  // namespace lanner::server
