#pragma once
// Writes a safetensors file (safetensors.h has the format) of tensors whose names, types and shapes are known before
// their contents, so that they can be made, written and forgotten one after the other.
//
// It is written beside its place and renamed by finish(), so that it is there whole or not at all; what is not
// finished is removed. The metadata says {"format": "pt"}, without which Transformers refuses a file.
//
//   LANNER_ASSIGN_OR_RETURN(const auto writer, SafetensorsWriter::create(path, headers));
//   for (…) LANNER_RETURN_IF_ERROR(writer->append(bytes));
//   LANNER_RETURN_IF_ERROR(writer->finish());

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lanner/status.h"

namespace lanner::model {

struct TensorHeader {
  std::string name;
  std::string dtype;  // as safetensors spells it
  std::vector<std::int64_t> shape;
  std::int64_t bytes = 0;  // of that shape and dtype
};

class SafetensorsWriter {
 public:
  static Result<std::unique_ptr<SafetensorsWriter>> create(const std::string& path,
                                                           const std::vector<TensorHeader>& headers);
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  /// The next bytes of the tensors, which are cut anywhere.
  Status append(std::span<const std::byte> bytes);
  /// After the last byte of the last tensor (CHECKed): syncs, and moves the file to its place.
  Status finish();

 private:
  SafetensorsWriter(std::string path, std::string partial, int descriptor);
  Status write_all(std::span<const std::byte> bytes);
  Status failure(const char* action) const;

  std::string path_;
  std::string partial_;
  int descriptor_;
  std::int64_t missing_bytes_ = 0;
};

}  // namespace lanner::model
