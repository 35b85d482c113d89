#pragma once
// A .jsonl file: a JSON value on each line.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "lanner/status.h"
#include "model/json_reader.h"

namespace lanner::eval {

/// Reads line after line of a text that outlives it. Empty lines are left out; a line has at most 64 MB.
class JsonLines {
 public:
  JsonLines(std::string_view text, std::string path) : rest_(text), path_(std::move(path)) {}

  /// The next line's value; none at the end. kCorrupt or kResourceExhausted, naming FILE:LINE.
  Result<std::optional<model::Json>> next();
  /// FILE:LINE of what next() gave last.
  std::string where() const;

 private:
  std::string_view rest_;
  const std::string path_;
  std::int64_t number_ = 0;  // of the line
};

/// A member of an object, where it is a string; else null, as of what is no object.
const std::string* string_member(const model::Json& object, const char* name);

}  // namespace lanner::eval
