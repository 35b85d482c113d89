#pragma once
// JSON from untrusted files, and fields out of it with their types and ranges checked.
//
// parse_json() bounds size, depth and the number of values before memory grows, and refuses duplicate keys: two
// readers that pick different ones of a pair would see two different models. Errors are one line,
// "PATH: FIELD: why", and never repeat the file's text beyond a short clipped name.
//
//   LANNER_ASSIGN_OR_RETURN(const auto json, parse_json(text, "config.json", {}));
//   const JsonFields fields(json, "config.json");
//   LANNER_ASSIGN_OR_RETURN(const std::int64_t layers, fields.integer("num_hidden_layers", 1, 1024));

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lanner/status.h"

namespace lanner::model {

using Json = nlohmann::ordered_json;

struct JsonLimits {
  std::int64_t max_bytes = 16 << 20;
  std::int64_t max_depth = 64;  // a scalar is depth 0, {"a": 1} is depth 1
  std::int64_t max_values = 1 << 21;
};

/// One JSON document. kCorrupt, or kResourceExhausted when it is past a limit.
Result<Json> parse_json(std::string_view text, std::string_view path, const JsonLimits& limits);

/// parse_json() of a whole file, which must hold an object.
Result<Json> read_json_object(const std::string& path, const JsonLimits& limits);

/// `name` fit for one line of an error message: control characters and non-ASCII replaced, long names clipped.
std::string printable(std::string_view name);

/// What a file that is not JSON calls a field: "hidden_size" to "llama.embedding_length".
using FieldNames = std::map<std::string, std::string, std::less<>>;

/// The fields of one JSON object, which must outlive this. A field that is null counts as absent, as in
/// Transformers. Failures are kCorrupt: a missing field, a wrong type, a value out of range.
class JsonFields {
 public:
  /// `where` is the file, or the file and the field that holds this object.
  JsonFields(const Json& object, std::string where) : object_(&object), where_(std::move(where)) {}
  /// With the names that errors give the fields. Those of the objects inside are among them: what has names of its
  /// own is flat.
  JsonFields(const Json& object, std::string where, FieldNames names)
      : object_(&object), where_(std::move(where)), names_(std::make_shared<const FieldNames>(std::move(names))) {}

  bool has(std::string_view key) const { return find(key) != nullptr; }
  /// There and null: for a field whose default is not "none".
  bool is_null(std::string_view key) const;
  const Json* find(std::string_view key) const;
  const std::string& where() const { return where_; }
  /// What the file calls the field.
  std::string_view name(std::string_view key) const;

  Result<std::int64_t> integer(std::string_view key, std::int64_t low, std::int64_t high) const;
  Result<std::int64_t> integer_or(std::string_view key, std::int64_t low, std::int64_t high,
                                  std::int64_t fallback) const;
  Result<double> number(std::string_view key, double low, double high) const;
  Result<double> number_or(std::string_view key, double low, double high, double fallback) const;
  Result<std::optional<double>> optional_number(std::string_view key, double low, double high) const;
  /// A list of exactly `count` numbers.
  Result<std::vector<double>> numbers(std::string_view key, std::int64_t count, double low, double high) const;
  Result<bool> boolean_or(std::string_view key, bool fallback) const;
  Result<std::string> text(std::string_view key) const;
  Result<std::string> text_or(std::string_view key, std::string_view fallback) const;
  /// An object inside this one; absent when the field is missing or null.
  Result<std::optional<JsonFields>> object(std::string_view key) const;

  Status wrong(std::string_view key, std::string_view why) const;          // kCorrupt
  Status not_supported(std::string_view key, std::string_view why) const;  // kUnsupported

 private:
  const Json* object_;
  std::string where_;
  std::shared_ptr<const FieldNames> names_;  // null: the fields are called what they are
};

}  // namespace lanner::model
