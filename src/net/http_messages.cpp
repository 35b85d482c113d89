// What http_client.h declares beside the connection itself.

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <ctime>

#include "net/http_client.h"

namespace lanner::net {
namespace {

class MemorySink final : public BodySink {
 public:
  explicit MemorySink(std::int64_t limit) : limit_(limit) {}

  Status begin(const HttpHead& head) override {
    url_ = head.url;
    const std::optional<std::int64_t> length = head.content_length();
    return length && *length > limit_ ? too_long() : Status();
  }

  Status write(std::string_view bytes) override {
    if (static_cast<std::int64_t>(bytes.size()) > limit_ - static_cast<std::int64_t>(body_.size())) return too_long();
    body_ += bytes;
    return {};
  }

  std::string take() { return std::move(body_); }

 private:
  Status too_long() const { return corrupt(fmt::format("{}: the answer is longer than {} bytes", url_, limit_)); }

  std::int64_t limit_;
  std::string url_;
  std::string body_;
};

}  // namespace

std::string_view HttpHead::header(std::string_view name) const {
  const auto found = std::ranges::find(headers, name, [](const auto& field) { return std::string_view(field.first); });
  return found == headers.end() ? std::string_view() : std::string_view(found->second);
}

std::optional<std::int64_t> HttpHead::content_length() const {
  const std::string_view text = header("content-length");
  std::int64_t length = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), length);
  if (error != std::errc() || end != text.data() + text.size() || length < 0) return std::nullopt;
  return length;
}

Status BodySink::redirect(const HttpHead& /*head*/) { return {}; }

Result<HttpResponse> fetch(HttpClient& client, const HttpRequest& request, std::int64_t max_body_bytes) {
  MemorySink sink(max_body_bytes);
  LANNER_ASSIGN_OR_RETURN(HttpHead head, client.exchange(request, sink));
  return HttpResponse{std::move(head), sink.take()};
}

std::optional<std::chrono::seconds> retry_after(std::string_view header, std::chrono::system_clock::time_point now) {
  int seconds = 0;
  const auto [end, error] = std::from_chars(header.data(), header.data() + header.size(), seconds);
  if (error == std::errc() && end == header.data() + header.size() && seconds >= 0)
    return std::chrono::seconds(seconds);
  std::tm date{};
  const std::string text(header);
  const char* rest = ::strptime(text.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &date);
  if (rest == nullptr || *rest != '\0') return std::nullopt;
  // In whole seconds: the clock's own unit overflows in the year 2262, and "never" is often spelled as 9999.
  const std::chrono::seconds wait(::timegm(&date) - std::chrono::system_clock::to_time_t(now));
  return std::max(std::chrono::seconds(0), wait);
}

}  // namespace lanner::net
