#include "quant/work_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "core/mapped_file.h"

namespace lanner::quant {
namespace {

namespace fs = std::filesystem;

constexpr const char* kScratch = "unfinished";
constexpr const char* kSettings = "settings.json";

Status conflict(std::string message) { return {StatusCode::kConflict, std::move(message)}; }

Status check_destination(const std::string& place) {
  std::error_code error;
  if (!fs::exists(place, error)) return {};
  if (fs::is_directory(place, error) && fs::is_empty(place, error)) return {};
  return conflict(fmt::format("{}: is there already; remove it or name another folder", place));
}

std::string without_slash(const std::string& folder) {
  const fs::path normal = fs::path(folder).lexically_normal();
  return (normal.has_filename() ? normal : normal.parent_path()).string();
}

}  // namespace

std::string WorkFolder::partial_path(const std::string& destination) { return without_slash(destination) + ".part"; }

WorkFolder::WorkFolder(std::string partial, std::string place, int descriptor)
    : partial_(std::move(partial)), place_(std::move(place)), descriptor_(descriptor) {}

WorkFolder::WorkFolder(WorkFolder&& other) noexcept
    : partial_(std::exchange(other.partial_, {})),
      place_(std::move(other.place_)),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

WorkFolder::~WorkFolder() {
  std::error_code error;
  if (!partial_.empty()) fs::remove_all(partial_, error);
  if (descriptor_ >= 0) ::close(descriptor_);
}

Result<WorkFolder> WorkFolder::open(const std::string& destination, const model::Json& settings, bool resume) {
  const std::string place = without_slash(destination);
  const std::string partial = partial_path(destination);
  LANNER_RETURN_IF_ERROR(check_destination(place));
  std::error_code error;
  const bool was_there = fs::exists(partial, error);
  if (was_there && !resume) {
    return conflict(fmt::format(
        "{}: a run that was not finished, or is under way; add --resume to go on with it, or remove it", partial));
  }
  fs::create_directories(partial, error);
  if (error) return io_error(fmt::format("{}: cannot create: {}", partial, error.message()));
  const int descriptor = ::open(partial.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return io_error(fmt::format("{}: cannot open: {}", partial, std::strerror(errno)));
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    ::close(descriptor);
    return conflict(fmt::format("{}: another run writes it", partial));
  }
  WorkFolder folder(partial, place, descriptor);
  const Status same = folder.check_settings(settings, was_there);
  if (!same.ok() && was_there) folder.partial_.clear();  // what another run left is not ours to remove
  if (!same.ok()) return same;
  return folder;
}

Status WorkFolder::check_settings(const model::Json& settings, bool resume) const {
  const std::string path = scratch_file(kSettings);
  std::error_code error;
  if (resume && fs::exists(path, error)) {
    LANNER_ASSIGN_OR_RETURN(const model::Json found, model::read_json_object(path, {}));
    for (const auto& [key, value] : settings.items()) {
      if (found.contains(key) && found[key] == value) continue;
      return conflict(fmt::format("{}: was begun with another {}; remove it to begin anew", partial_, key));
    }
    return {};
  }
  fs::create_directories(fs::path(path).parent_path(), error);
  if (error) return io_error(fmt::format("{}: cannot create: {}", path, error.message()));
  return write_file_atomically(path, settings.dump(2) + "\n");
}

std::string WorkFolder::file(std::string_view name) const { return (fs::path(partial_) / name).string(); }

std::string WorkFolder::scratch_file(std::string_view name) const {
  return (fs::path(partial_) / kScratch / name).string();
}

Status WorkFolder::check_room(std::int64_t bytes) const {
  std::error_code error;
  const fs::space_info space = fs::space(partial_, error);
  if (error || space.available >= static_cast<std::uintmax_t>(bytes)) return {};
  constexpr double kMegabyte = 1e6;
  return resource_exhausted(fmt::format("{}: the disk has {:.0f} MB free, {:.0f} MB are needed", partial_,
                                        static_cast<double>(space.available) / kMegabyte,
                                        static_cast<double>(bytes) / kMegabyte));
}

Status WorkFolder::finish() {
  std::error_code error;
  fs::remove_all(fs::path(partial_) / kScratch, error);
  if (error) return io_error(fmt::format("{}: {}", partial_, error.message()));
  LANNER_RETURN_IF_ERROR(check_destination(place_));
  fs::rename(partial_, place_, error);
  if (error) return io_error(fmt::format("{}: {}", place_, error.message()));
  partial_.clear();
  return {};
}

}  // namespace lanner::quant
