#pragma once
// One file from a hub to its place: resumed, checked, and never seen half.

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "lanner/status.h"
#include "net/http_client.h"
#include "net/hub_cache.h"
#include "net/repository_files.h"
#include "net/retries.h"

namespace lanner::net {

struct FileDownload {
  RepositoryFile file;
  FilePlace place;
  std::string url;
  std::string authorization;
  RetryPolicy retries;
  /// What an answer other than 2xx means; called for those that no retry helps.
  std::function<Status(const HttpHead&)> explain;
  /// Bytes that came, or, negative, that have to come again.
  std::function<void(std::int64_t)> on_bytes;
};

/// Continues `place.incomplete`, or begins it, and gives the file its final name when it is whole and its checksum is
/// right. To be called with place.lock held. A partial file stays for the next attempt in every failure but these: the
/// hub has another file by now, or the checksum is wrong (kCorrupt both). A full disk is kResourceExhausted.
Status download_file(HttpClient& client, const FileDownload& download);

}  // namespace lanner::net
