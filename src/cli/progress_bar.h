#pragma once
// A line on stderr that shows how far long work has come and how long it will take. Silent where stderr is no terminal.
//
//   ProgressBar bar("loading");
//   while (…) bar.set(share);   // 0 to 1
//   bar.clear();                // or let the destructor do it
//
// Threads: one at a time.

#include <chrono>
#include <cstdint>
#include <string>

namespace lanner::cli {

class ProgressBar {
 public:
  explicit ProgressBar(std::string what);
  ~ProgressBar() { clear(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void set(double share);
  /// For work that is counted.
  void set(std::int64_t done, std::int64_t total) { set(static_cast<double>(done) / static_cast<double>(total)); }
  /// Wipes the line; set() would bring it back.
  void clear();

 private:
  const std::string what_;
  const bool enabled_;
  const std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point drawn_;
  bool visible_ = false;
};

/// The text of the line, at most `width` columns wide.
std::string progress_line(const std::string& what, double share, double elapsed_seconds, int width);

}  // namespace lanner::cli
