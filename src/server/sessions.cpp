#include "server/sessions.h"

#include <algorithm>
#include <utility>

namespace lanner::server {

std::optional<Sessions::Turn> Sessions::begin(std::optional<std::uint64_t> id, Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  std::erase_if(sessions_,
                [&](const auto& entry) { return !entry.second.busy && now - entry.second.used > idle_time_; });
  const std::uint64_t name = id ? *id : ++last_drawn_;
  if (!sessions_.contains(name)) make_room();
  Session& session = sessions_[name];
  if (session.busy) return std::nullopt;
  session.busy = true;
  session.used = now;
  return Turn{.id = name, .history = session.history, .history_tokens = session.history_tokens};
}

void Sessions::running(std::uint64_t id, std::vector<RequestId> requests) {
  const std::lock_guard lock(mutex_);
  const auto found = sessions_.find(id);
  if (found != sessions_.end() && found->second.busy) found->second.requests = std::move(requests);
}

void Sessions::keep(std::uint64_t id, std::vector<Message> history, std::int64_t history_tokens,
                    Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) return;
  found->second = Session{
      .history = std::move(history), .history_tokens = history_tokens, .used = now, .busy = false, .requests = {}};
}

void Sessions::release(std::uint64_t id, Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) return;
  found->second.busy = false;
  found->second.used = now;
  found->second.requests.clear();
  if (found->second.history.empty()) sessions_.erase(found);  // it was never more than an attempt
}

void Sessions::end(std::uint64_t id) {
  const std::lock_guard lock(mutex_);
  sessions_.erase(id);
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

void Sessions::make_room() {
  while (sessions_.size() >= most_) {
    auto oldest = sessions_.end();
    for (auto at = sessions_.begin(); at != sessions_.end(); ++at) {
      if (!at->second.busy && (oldest == sessions_.end() || at->second.used < oldest->second.used)) oldest = at;
    }
    if (oldest == sessions_.end()) return;  // all are being answered, which the server's limits bound
    sessions_.erase(oldest);
  }
}

}  // namespace lanner::server
