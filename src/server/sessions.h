#pragma once
// The conversations of /v1/chat/interactive, kept for clients that send only the new message each time.
//
// A conversation is its messages: each turn is rendered by the chat template from the start, and the engine's prefix
// cache makes what was said before cheap. Idle ones are forgotten after a while, and the one that was used least
// recently when there are too many or all together hold too many bytes.
//
// A turn has a number of its own: what is said in the name of a turn whose session has ended since changes nothing,
// even where another one has begun under the same id.
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

  /// `most` sessions, and `most_bytes` of all their messages together.
  Sessions(std::size_t most, std::size_t most_bytes, std::chrono::seconds idle_time)
      : most_(most), most_bytes_(most_bytes), idle_time_(idle_time) {}

  /// Which turn of which session.
  struct TurnId {
    std::uint64_t session = 0;
    std::uint64_t number = 0;
  };

  struct Turn {
    TurnId id;
    std::vector<Message> history;
    std::int64_t history_tokens = 0;  // of the prompt and the answer before
  };

  /// The conversation so far; nothing when another of its turns is being answered. `id` empty: a new one.
  std::optional<Turn> begin(std::optional<std::uint64_t> id, Clock::time_point now);
  /// Counts `messages` as the turn's already, and forgets idle sessions to make room for them; false when there is
  /// none.
  bool hold(TurnId turn, const std::vector<Message>& messages);
  /// Requests of this turn have begun: cancel them to stop it. False when the turn is over, and they are for nobody.
  bool running(TurnId turn, std::vector<RequestId> requests);
  /// The turn is over; `history` is what the next one goes on from. A session for which there is no room even after
  /// the idle ones have been forgotten is forgotten itself.
  void keep(TurnId turn, std::vector<Message> history, std::int64_t history_tokens, Clock::time_point now);
  /// The turn is over, and the conversation goes on as if it had not been.
  void release(TurnId turn, Clock::time_point now);
  /// The turn is over, and with it the conversation.
  void end(TurnId turn);
  /// The conversation is over, whatever is being done for it: requests that are to be cancelled.
  std::vector<RequestId> end_session(std::uint64_t id);

  /// Requests of the turn that is being answered; none where there is no such session or turn.
  std::vector<RequestId> requests_of(std::uint64_t id) const;
  std::size_t size() const;
  /// Of all messages that are kept.
  std::size_t bytes() const;

 private:
  struct Session {
    std::vector<Message> history;
    std::int64_t history_tokens = 0;
    Clock::time_point used;
    std::uint64_t turn = 0;  // the one that is being answered; 0: none
    std::size_t bytes = 0;   // as counted in bytes_
    std::vector<RequestId> requests;
  };
  using Entry = std::map<std::uint64_t, Session>::iterator;

  /// Where the turn is still being answered; else the end.
  Entry find(TurnId turn);
  void forget(Entry entry);
  void count(Session& session, std::size_t bytes);
  /// False when all are busy.
  bool forget_oldest();

  const std::size_t most_;
  const std::size_t most_bytes_;
  const std::chrono::seconds idle_time_;
  mutable std::mutex mutex_;
  std::map<std::uint64_t, Session> sessions_;
  std::size_t bytes_ = 0;
  std::uint64_t last_turn_ = 0;
  std::uint64_t last_drawn_ = 1ULL << 32U;  // above what people choose
};

}  // namespace lanner::server
