#include "net/download_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "core/write_all.h"
#include "net/digest.h"

namespace lanner::net {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kReadBytes = 1 << 20;
constexpr std::int64_t kMaxRefusalBytes = 64 << 10;  // of the body of an answer that is no file
constexpr std::int64_t kProgressBytes = 1 << 20;  // after so much, or a hundredth of the file, attempts are there again

Status file_failure(const fs::path& path, int error) {
  const std::string text = fmt::format("{}: {}", path.string(), std::generic_category().message(error));
  const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
  if (full) return resource_exhausted(text + " (what has come so far is kept: make room and start again)");
  return internal_error(text);
}

/// The partial file: its content so far, and the digest of it.
class PartialFile {
 public:
  PartialFile(fs::path path, RepositoryFile file) : path_(std::move(path)), file_(std::move(file)) {}
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;
  ~PartialFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }

  std::int64_t size() const { return size_; }

  Status open() {
    std::error_code error;
    fs::create_directories(path_.parent_path(), error);
    if (error) return file_failure(path_.parent_path(), error.value());
    descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (descriptor_ < 0) return file_failure(path_, errno);
    struct stat facts{};
    if (::fstat(descriptor_, &facts) != 0) return file_failure(path_, errno);
    if (!S_ISREG(facts.st_mode)) return internal_error(fmt::format("{}: is no regular file", path_.string()));
    if (facts.st_size > file_.size) return restart();
    return digest_again(facts.st_size);
  }

  /// Forgets what has come so far.
  Status restart() {
    if (::ftruncate(descriptor_, 0) != 0) return file_failure(path_, errno);
    return digest_again(0);
  }

  Status append(std::string_view bytes) {
    if (!write_all_at(descriptor_, std::as_bytes(std::span(bytes)), size_)) return file_failure(path_, errno);
    digest_->add(bytes);
    size_ += static_cast<std::int64_t>(bytes.size());
    return {};
  }

  /// Whether the content has the checksum; once, when it is whole.
  bool is_right() { return digest_->finish() == file_.checksum; }

  Status move_to(const fs::path& final) {
    std::error_code error;
    fs::create_directories(final.parent_path(), error);
    if (error) return file_failure(final.parent_path(), error.value());
    // A name that outlives a power failure must not outlive its content.
    if (::fdatasync(descriptor_) != 0) return file_failure(path_, errno);
    fs::rename(path_, final, error);
    return error ? file_failure(final, error.value()) : Status();
  }

  void remove() {
    std::error_code ignored;
    fs::remove(path_, ignored);
  }

 private:
  Status digest_again(std::int64_t size) {
    LANNER_ASSIGN_OR_RETURN(Digest digest, Digest::for_name(file_.checksum, file_.size));
    std::vector<char> buffer(size > 0 ? kReadBytes : 0);
    for (std::int64_t at = 0; at < size;) {
      const std::int64_t wanted = std::min<std::int64_t>(size - at, static_cast<std::int64_t>(buffer.size()));
      const ssize_t count = ::pread(descriptor_, buffer.data(), static_cast<std::size_t>(wanted), at);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return file_failure(path_, count < 0 ? errno : EIO);
      digest.add(std::string_view(buffer.data(), static_cast<std::size_t>(count)));
      at += count;
    }
    digest_ = std::make_unique<Digest>(std::move(digest));
    size_ = size;
    return {};
  }

  const fs::path path_;
  const RepositoryFile file_;
  int descriptor_ = -1;
  std::int64_t size_ = 0;
  std::unique_ptr<Digest> digest_;
};

/// False where the text is anything but a number that `value` holds.
bool read_number(std::string_view text, std::int64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

/// "bytes 100-199/200" as (100, 200); a total of -1 is unknown.
std::optional<std::pair<std::int64_t, std::int64_t>> content_range(std::string_view text) {
  std::int64_t begin = 0;
  std::int64_t total = -1;
  if (!text.starts_with("bytes ")) return std::nullopt;
  text.remove_prefix(6);
  const std::size_t dash = text.find('-');
  const std::size_t slash = text.find('/');
  if (dash == std::string_view::npos || slash == std::string_view::npos || dash > slash) return std::nullopt;
  if (!read_number(text.substr(0, dash), begin)) return std::nullopt;
  const std::string_view whole = text.substr(slash + 1);
  if (whole != "*" && !read_number(whole, total)) return std::nullopt;
  return std::pair{begin, total};
}

/// W/"abc" as abc
std::string_view bare_etag(std::string_view etag) {
  if (etag.starts_with("W/")) etag.remove_prefix(2);
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"') etag = etag.substr(1, etag.size() - 2);
  return etag;
}

/// Puts an answer behind what is there, when it is what was asked for.
class FileSink final : public BodySink {
 public:
  FileSink(const FileDownload& download, PartialFile& partial) : download_(download), partial_(partial) {}

  Status redirect(const HttpHead& head) override { return check_etag(head); }

  Status begin(const HttpHead& head) override {
    LANNER_RETURN_IF_ERROR(check_etag(head));
    const RepositoryFile& file = download_.file;
    if (head.status == 206) {
      const auto range = content_range(head.header("content-range"));
      const bool fits = range && range->first == partial_.size() && (range->second < 0 || range->second == file.size);
      if (!fits)
        return start_anew(corrupt(fmt::format("{}: the hub sends another part than was asked for", file.path)));
    } else if (head.status == 200) {
      LANNER_RETURN_IF_ERROR(restart());  // the whole file, asked for or not
    } else {
      if (head.status == 416) return start_anew(corrupt(fmt::format("{}: the hub has no such part", file.path)));
      refused_ = true;
      return {};
    }
    const std::optional<std::int64_t> length = head.content_length();
    if (length && *length != file.size - partial_.size()) {
      return failed(corrupt(fmt::format("{}: the hub announces {} bytes where its list says {}", file.path,
                                        *length + partial_.size(), file.size)));
    }
    return {};
  }

  Status write(std::string_view bytes) override {
    const auto count = static_cast<std::int64_t>(bytes.size());
    if (refused_) {
      refusal_bytes_ += count;
      return refusal_bytes_ > kMaxRefusalBytes ? corrupt("an error message without end") : Status();
    }
    if (count > download_.file.size - partial_.size()) {
      return start_anew(corrupt(fmt::format("{}: the hub sends more than the {} bytes of its list", download_.file.path,
                                            download_.file.size)));
    }
    const std::int64_t before = partial_.size();
    const Status status = partial_.append(bytes);
    tell(partial_.size() - before);
    return failed(status);
  }

  bool refused() const { return refused_; }
  /// The partial file was of no use and is empty now.
  bool anew() const { return anew_; }
  /// What this end of the exchange failed with, which no retry mends.
  const Status& failure() const { return failure_; }

 private:
  void tell(std::int64_t bytes) const {
    if (download_.on_bytes && bytes != 0) download_.on_bytes(bytes);
  }

  Status restart() {
    tell(-partial_.size());
    return failed(partial_.restart());
  }

  /// Once, from the beginning; the second time it is a failure.
  Status start_anew(const Status& status) {
    anew_ = partial_.size() > 0;
    LANNER_RETURN_IF_ERROR(restart());
    return anew_ ? status : failed(status);
  }

  Status failed(const Status& status) {
    if (!status.ok()) failure_ = status;
    return status;
  }

  /// The hub's own answer, which is the first one, names what the file holds now.
  Status check_etag(const HttpHead& head) {
    if (std::exchange(answers_, answers_ + 1) > 0) return {};
    std::string_view etag = bare_etag(head.header("x-linked-etag"));
    if (etag.empty() && head.status / 100 == 2) etag = bare_etag(head.header("etag"));
    if (!is_digest_name(etag) || etag == download_.file.checksum) return {};
    partial_.remove();
    return failed(
        corrupt(fmt::format("{}: has changed on the hub since it was listed; start again", download_.file.path)));
  }

  const FileDownload& download_;
  PartialFile& partial_;
  bool refused_ = false;
  bool anew_ = false;
  int answers_ = 0;
  std::int64_t refusal_bytes_ = 0;
  Status failure_;
};

/// Fills the partial file up to its size.
Status fill(HttpClient& client, const FileDownload& download, PartialFile& partial) {
  const RepositoryFile& file = download.file;
  Retries retries(download.retries);
  bool began_anew = false;
  while (partial.size() < file.size) {
    HttpRequest request{
        .url = download.url, .authorization = download.authorization, .cancelled = download.retries.cancelled};
    if (partial.size() > 0) request.headers.emplace_back("Range", fmt::format("bytes={}-", partial.size()));
    const std::int64_t before = partial.size();
    FileSink sink(download, partial);
    const Result<HttpHead> head = client.exchange(request, sink);
    if (!sink.failure().ok()) return sink.failure();
    if (sink.anew() && !std::exchange(began_anew, true)) continue;
    if (partial.size() - before >= std::min(kProgressBytes, file.size / 100 + 1)) retries.reset();
    Status failure = with_context(head.status(), file.path);
    std::optional<std::chrono::seconds> asked;
    if (head.ok() && sink.refused()) {
      if (!is_passing_failure(head->status)) return download.explain(*head);
      failure = io_error(fmt::format("{}: status {}", file.path, head->status));
      asked = retry_after(head->header("retry-after"), std::chrono::system_clock::now());
    } else if (head.ok()) {
      if (partial.size() == file.size) return {};
      failure = io_error(fmt::format("{}: the answer ends after {} of {} bytes", file.path, partial.size(), file.size));
    }
    LANNER_RETURN_IF_ERROR(retries.wait_or_fail(failure, asked));
  }
  return {};
}

}  // namespace

Status download_file(HttpClient& client, const FileDownload& download) {
  PartialFile partial(download.place.incomplete, download.file);
  LANNER_RETURN_IF_ERROR(partial.open());
  const bool resumed = partial.size() > 0;
  LANNER_RETURN_IF_ERROR(fill(client, download, partial));
  bool right = partial.is_right();
  if (!right && resumed) {
    // The fault may lie in the part that was there before: once more from the beginning.
    if (download.on_bytes) download.on_bytes(-partial.size());
    LANNER_RETURN_IF_ERROR(partial.restart());
    LANNER_RETURN_IF_ERROR(fill(client, download, partial));
    right = partial.is_right();
  }
  if (right) return partial.move_to(download.place.final);
  partial.remove();
  return corrupt(fmt::format("{}: its checksum is wrong; what came has been deleted", download.file.path));
}

}  // namespace lanner::net
