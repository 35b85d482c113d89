#include "net/line_sink.h"

namespace lanner::net {

Status LineSink::begin(const HttpHead& head) {
  status_ = head.status;
  return {};
}

Status LineSink::write(std::string_view bytes) {
  if (status_ != 200) {
    if (error_body_.size() + bytes.size() <= kMaxErrorBytes) error_body_ += bytes;
    return {};
  }
  rest_ += bytes;
  std::size_t begin = 0;
  for (std::size_t end = 0; (end = rest_.find('\n', begin)) != std::string::npos; begin = end + 1) {
    std::string_view line = std::string_view(rest_).substr(begin, end - begin);
    if (line.ends_with('\r')) line.remove_suffix(1);
    LANNER_RETURN_IF_ERROR(take_line(line));
  }
  rest_.erase(0, begin);
  return rest_.size() > kMaxLineBytes ? corrupt("the server sends a line without an end") : Status();
}

}  // namespace lanner::net
