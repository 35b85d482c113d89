#pragma once
// The door of this room for whoever opens a model: what a user calls a model becomes a path.
//
//   LANNER_ASSIGN_OR_RETURN(const std::string path, find_model({.model = "org/name", .progress = …}));
//
// In this order: a path that exists; a model that lies whole in the hub's local cache, of which nobody is asked; a
// download into that cache. docs/hub.md describes it for users, environment.h the variables that count.
//
// Only what is needed is fetched, never code. A download that was cut off, by Ctrl-C too, goes on where it stopped; two
// processes may fetch the same model; a full disk is seen before it starts, as far as it can be.

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "lanner/status.h"

namespace lanner::net {

struct DownloadProgress {
  std::int64_t done_bytes = 0;  // of all files of this download
  std::int64_t total_bytes = 0;
  std::int64_t start_bytes = 0;  // were here already when it began

  /// 0 to 1, of what was to be fetched: what a progress bar estimates the rest of the time from.
  double share() const;
};

struct ModelRequest {
  std::string model;                                      // a path, "org/name" or "org/name:selector" (model_id.h)
  std::string revision;                                   // a branch, tag or commit; empty: the hub's default one
  std::string download_dir;                               // takes the place of the cache's folder; empty: the hub's own
  std::function<void(const DownloadProgress&)> progress;  // often; on the calling thread
  std::function<void(std::string_view)> note;             // a line that the user should see, now and then
  const std::atomic<bool>* cancelled = nullptr;
};

/// The path of the model's folder or GGUF file. Failures are one line that says what to do.
Result<std::string> find_model(const ModelRequest& request);

/// What to call the model at a path that find_model() may have returned: "name" for a folder of the cache, else the
/// path's last part.
std::string model_name(const std::string& path);

}  // namespace lanner::net
