#include "server/sessions.h"

#include <utility>

namespace lanner::server {
namespace {

std::size_t bytes_of(const std::vector<Message>& messages) {
  std::size_t bytes = 0;
  for (const Message& message : messages) {
    bytes += sizeof(Message) + message.role.size() + message.content.size() + message.more.size();
  }
  return bytes;
}

}  // namespace

std::optional<Sessions::Turn> Sessions::begin(std::optional<std::uint64_t> id, Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  for (auto at = sessions_.begin(); at != sessions_.end();) {
    const auto entry = at++;
    if (entry->second.turn == 0 && now - entry->second.used > idle_time_) forget(entry);
  }
  const std::uint64_t name = id ? *id : ++last_drawn_;
  if (!sessions_.contains(name)) {
    // Where all are being answered there may be more, which the server's limits bound.
    while (sessions_.size() >= most_ && forget_oldest()) {
    }
  }
  Session& session = sessions_[name];
  if (session.turn != 0) return std::nullopt;
  session.turn = ++last_turn_;
  session.used = now;
  return Turn{.id = {.session = name, .number = session.turn},
              .history = session.history,
              .history_tokens = session.history_tokens};
}

bool Sessions::hold(TurnId turn, const std::vector<Message>& messages) {
  const std::lock_guard lock(mutex_);
  const auto found = find(turn);
  if (found == sessions_.end()) return true;  // it has ended, and keeps nothing
  const std::size_t before = found->second.bytes;
  count(found->second, bytes_of(messages));
  while (bytes_ > most_bytes_ && forget_oldest()) {
  }
  if (bytes_ <= most_bytes_) return true;
  count(found->second, before);
  return false;
}

bool Sessions::running(TurnId turn, std::vector<RequestId> requests) {
  const std::lock_guard lock(mutex_);
  const auto found = find(turn);
  if (found == sessions_.end()) return false;
  found->second.requests = std::move(requests);
  return true;
}

void Sessions::keep(TurnId turn, std::vector<Message> history, std::int64_t history_tokens, Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  const auto found = find(turn);
  if (found == sessions_.end()) return;
  Session& session = found->second;
  count(session, bytes_of(history));
  while (bytes_ > most_bytes_ && forget_oldest()) {  // not this one, which is still busy
  }
  if (bytes_ > most_bytes_) {
    forget(found);
    return;
  }
  session.history = std::move(history);
  session.history_tokens = history_tokens;
  session.used = now;
  session.turn = 0;
  session.requests.clear();
}

void Sessions::release(TurnId turn, Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  const auto found = find(turn);
  if (found == sessions_.end()) return;
  Session& session = found->second;
  if (session.history.empty()) {  // it was never more than an attempt
    forget(found);
    return;
  }
  count(session, bytes_of(session.history));
  session.used = now;
  session.turn = 0;
  session.requests.clear();
}

void Sessions::end(TurnId turn) {
  const std::lock_guard lock(mutex_);
  const auto found = find(turn);
  if (found != sessions_.end()) forget(found);
}

std::vector<RequestId> Sessions::end_session(std::uint64_t id) {
  const std::lock_guard lock(mutex_);
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) return {};
  std::vector<RequestId> requests = std::move(found->second.requests);
  forget(found);
  return requests;
}

std::vector<RequestId> Sessions::requests_of(std::uint64_t id) const {
  const std::lock_guard lock(mutex_);
  const auto found = sessions_.find(id);
  return found == sessions_.end() ? std::vector<RequestId>() : found->second.requests;
}

std::size_t Sessions::size() const {
  const std::lock_guard lock(mutex_);
  return sessions_.size();
}

std::size_t Sessions::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

Sessions::Entry Sessions::find(TurnId turn) {
  const auto found = sessions_.find(turn.session);
  return found != sessions_.end() && found->second.turn == turn.number ? found : sessions_.end();
}

void Sessions::forget(Entry entry) {
  bytes_ -= entry->second.bytes;
  sessions_.erase(entry);
}

void Sessions::count(Session& session, std::size_t bytes) {
  bytes_ += bytes;
  bytes_ -= session.bytes;
  session.bytes = bytes;
}

bool Sessions::forget_oldest() {
  auto oldest = sessions_.end();
  for (auto at = sessions_.begin(); at != sessions_.end(); ++at) {
    if (at->second.turn == 0 && (oldest == sessions_.end() || at->second.used < oldest->second.used)) oldest = at;
  }
  if (oldest == sessions_.end()) return false;
  forget(oldest);
  return true;
}

}  // namespace lanner::server
