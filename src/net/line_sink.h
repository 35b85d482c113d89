#pragma once
// An answer taken line by line, as streams of events come.

#include <cstddef>
#include <string>
#include <string_view>

#include "net/http_client.h"

namespace lanner::net {

/// Hands the lines of an answer of status 200 to take_line(), and keeps the head of any other's body.
class LineSink : public BodySink {
 public:
  Status begin(const HttpHead& head) final;
  /// kCorrupt for a line of more than 1 MiB.
  Status write(std::string_view bytes) override;

  int status() const { return status_; }  // 0: no answer has begun
  const std::string& error_body() const { return error_body_; }

 protected:
  /// Without its end, LF or CRLF. A failure ends the exchange.
  virtual Status take_line(std::string_view line) = 0;

 private:
  static constexpr std::size_t kMaxLineBytes = 1 << 20;
  static constexpr std::size_t kMaxErrorBytes = 64 << 10;

  int status_ = 0;
  std::string rest_;  // of the line that has not ended
  std::string error_body_;
};

}  // namespace lanner::net
