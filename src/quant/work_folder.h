#pragma once
// Where a model is written until it is whole: the folder DESTINATION.part, which is renamed at the end.
//
// A run that fails removes it. One that is killed leaves it, and can go on with it: what a folder's run has been asked
// for is written into it, and must be the same. Two runs do not share one (flock on the folder).

#include <cstdint>
#include <string>
#include <string_view>

#include "lanner/status.h"
#include "model/json_reader.h"

namespace lanner::quant {

class WorkFolder {
 public:
  /// DESTINATION.part.
  static std::string partial_path(const std::string& destination);

  /// `settings`: what the run was asked for, an object; with `resume` the folder may be there, and must say the same.
  /// kConflict when the destination is there already and holds something, or the folder is there and is not to be
  /// resumed, or another run has it.
  static Result<WorkFolder> open(const std::string& destination, const model::Json& settings, bool resume);
  ~WorkFolder();
  WorkFolder(WorkFolder&& other) noexcept;
  WorkFolder& operator=(WorkFolder&&) = delete;
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;

  const std::string& path() const { return partial_; }
  std::string file(std::string_view name) const;
  /// A file of the run, not of the model: finish() removes it.
  std::string scratch_file(std::string_view name) const;
  /// kResourceExhausted where the file system has less room than that.
  Status check_room(std::int64_t bytes) const;
  Status finish();

 private:
  WorkFolder(std::string partial, std::string place, int descriptor);
  Status check_settings(const model::Json& settings, bool resume) const;

  std::string partial_;  // empty: moved away, or finished
  std::string place_;
  int descriptor_ = -1;  // of the folder, locked
};

}  // namespace lanner::quant
