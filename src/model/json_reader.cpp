#include "model/json_reader.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <unordered_set>
#include <utility>
#include <vector>

#include "core/mapped_file.h"

namespace lanner::model {
namespace {

/// Builds the document while it is parsed, so that a limit stops the parser and not only the reader. Objects
/// are put together at their end: ordered_json's own insertion looks through all keys, which is quadratic.
class LimitedBuilder : public nlohmann::json_sax<Json> {
 public:
  explicit LimitedBuilder(const JsonLimits& limits) : limits_(limits) {}

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t& /*text*/) override {
    return std::isfinite(value) ? add(value) : fail("holds a number that is not finite");
  }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t& /*value*/) override { return fail("holds binary data"); }
  bool start_object(std::size_t /*elements*/) override { return open(true); }
  bool start_array(std::size_t /*elements*/) override { return open(false); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    Frame& frame = frames_.back();
    if (!frame.seen.insert(name).second) return fail(fmt::format("{}: is there twice", printable(name)));
    frame.keys.push_back(std::move(name));
    return true;
  }
  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& /*error*/) override {
    return fail(fmt::format("is not valid JSON at byte {}", position));
  }

  bool limit_hit() const { return limit_hit_; }
  const std::string& failure() const { return failure_; }
  Json take() { return std::move(root_); }

 private:
  /// An object or array that is still open.
  struct Frame {
    bool is_object = false;
    std::vector<Json> values;
    std::vector<std::string> keys;  // of an object; one more than values while a member is being read
    std::unordered_set<std::string> seen;
  };

  template <typename T>
  bool add(T&& value) {
    if (++values_ > limits_.max_values) return exceed(fmt::format("holds more than {} values", limits_.max_values));
    place(Json(std::forward<T>(value)));
    return true;
  }

  void place(Json value) {
    if (frames_.empty()) {
      root_ = std::move(value);
    } else {
      frames_.back().values.push_back(std::move(value));
    }
  }

  bool open(bool is_object) {
    if (static_cast<std::int64_t>(frames_.size()) >= limits_.max_depth) {
      return exceed(fmt::format("is nested deeper than {} levels", limits_.max_depth));
    }
    if (++values_ > limits_.max_values) return exceed(fmt::format("holds more than {} values", limits_.max_values));
    frames_.push_back({is_object, {}, {}, {}});
    return true;
  }

  bool close() {
    Frame frame = std::move(frames_.back());
    frames_.pop_back();
    if (!frame.is_object) {
      place(Json(std::move(frame.values)));
      return true;
    }
    Json::object_t members;
    members.reserve(frame.values.size());  // to grow it would copy every value in it: its keys are const
    for (std::size_t i = 0; i < frame.values.size(); ++i) {
      members.emplace_back(std::move(frame.keys[i]), std::move(frame.values[i]));
    }
    place(Json(std::move(members)));
    return true;
  }

  bool fail(std::string why) {
    failure_ = std::move(why);
    return false;
  }
  bool exceed(std::string why) {
    limit_hit_ = true;
    return fail(std::move(why));
  }

  JsonLimits limits_;
  std::vector<Frame> frames_;
  Json root_;
  std::int64_t values_ = 0;
  bool limit_hit_ = false;
  std::string failure_;
};

std::optional<std::int64_t> as_integer(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<std::uint64_t>();
    if (number > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return std::nullopt;
    return static_cast<std::int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<std::int64_t>();
  return std::nullopt;
}

}  // namespace

Result<Json> parse_json(std::string_view text, std::string_view path, const JsonLimits& limits) {
  if (static_cast<std::int64_t>(text.size()) > limits.max_bytes) {
    return resource_exhausted(
        fmt::format("{}: {} bytes of JSON, more than the {} allowed", path, text.size(), limits.max_bytes));
  }
  LimitedBuilder builder(limits);
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) {
    const std::string message = fmt::format("{}: {}", path, builder.failure());
    return builder.limit_hit() ? resource_exhausted(message) : corrupt(message);
  }
  return builder.take();
}

Result<Json> read_json_object(const std::string& path, const JsonLimits& limits) {
  LANNER_ASSIGN_OR_RETURN(const std::string text, read_file(path, limits.max_bytes));
  LANNER_ASSIGN_OR_RETURN(Json json, parse_json(text, path, limits));
  if (!json.is_object()) return corrupt(fmt::format("{}: does not hold a JSON object", path));
  return json;
}

std::string printable(std::string_view name) {
  constexpr std::size_t kLongest = 120;
  std::string result;
  for (const char c : name.substr(0, kLongest)) result.push_back(c >= 0x20 && c < 0x7F ? c : '?');
  if (name.size() > kLongest) result += "...";
  return result;
}

const Json* JsonFields::find(std::string_view key) const {
  const auto found = object_->find(key);
  return found == object_->end() || found->is_null() ? nullptr : &*found;
}

bool JsonFields::is_null(std::string_view key) const {
  const auto found = object_->find(key);
  return found != object_->end() && found->is_null();
}

std::string_view JsonFields::name(std::string_view key) const {
  if (names_ == nullptr) return key;
  const auto found = names_->find(key);
  return found == names_->end() ? key : std::string_view(found->second);
}

Result<std::int64_t> JsonFields::integer(std::string_view key, std::int64_t low, std::int64_t high) const {
  const Json* value = find(key);
  if (value == nullptr) return wrong(key, "is missing");
  const auto number = as_integer(*value);
  if (!number) return wrong(key, "is not an integer that fits 64 bits");
  if (*number < low || *number > high) return wrong(key, fmt::format("{} is not in {}..{}", *number, low, high));
  return *number;
}

Result<std::int64_t> JsonFields::integer_or(std::string_view key, std::int64_t low, std::int64_t high,
                                            std::int64_t fallback) const {
  return has(key) ? integer(key, low, high) : fallback;
}

Result<double> JsonFields::number(std::string_view key, double low, double high) const {
  const Json* value = find(key);
  if (value == nullptr) return wrong(key, "is missing");
  if (!value->is_number()) return wrong(key, "is not a number");
  const auto number = value->get<double>();
  if (!(number >= low && number <= high)) return wrong(key, fmt::format("{} is not in {}..{}", number, low, high));
  return number;
}

Result<double> JsonFields::number_or(std::string_view key, double low, double high, double fallback) const {
  return has(key) ? number(key, low, high) : fallback;
}

Result<std::optional<double>> JsonFields::optional_number(std::string_view key, double low, double high) const {
  if (!has(key)) return std::optional<double>();
  LANNER_ASSIGN_OR_RETURN(const double value, number(key, low, high));
  return std::optional<double>(value);
}

Result<std::vector<double>> JsonFields::numbers(std::string_view key, std::int64_t count, double low,
                                                double high) const {
  const Json* value = find(key);
  if (value == nullptr) return wrong(key, "is missing");
  if (!value->is_array() || static_cast<std::int64_t>(value->size()) != count) {
    return wrong(key, fmt::format("is not a list of {} numbers", count));
  }
  std::vector<double> result;
  result.reserve(value->size());
  for (const Json& element : *value) {
    if (!element.is_number()) return wrong(key, "holds something that is not a number");
    const auto number = element.get<double>();
    if (!(number >= low && number <= high)) {
      return wrong(key, fmt::format("holds {}, which is not in {}..{}", number, low, high));
    }
    result.push_back(number);
  }
  return result;
}

Result<bool> JsonFields::boolean_or(std::string_view key, bool fallback) const {
  const Json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) return wrong(key, "is neither true nor false");
  return value->get<bool>();
}

Result<std::string> JsonFields::text(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr) return wrong(key, "is missing");
  if (!value->is_string()) return wrong(key, "is not a string");
  return value->get<std::string>();
}

Result<std::string> JsonFields::text_or(std::string_view key, std::string_view fallback) const {
  return has(key) ? text(key) : std::string(fallback);
}

Result<std::optional<JsonFields>> JsonFields::object(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr) return std::optional<JsonFields>();
  if (!value->is_object()) return wrong(key, "is not an object");
  JsonFields inner = *this;
  inner.object_ = value;
  if (names_ == nullptr) inner.where_ = fmt::format("{}: {}", where_, key);
  return std::optional<JsonFields>(std::move(inner));
}

Status JsonFields::wrong(std::string_view key, std::string_view why) const {
  return corrupt(fmt::format("{}: {}: {}", where_, name(key), why));
}

Status JsonFields::not_supported(std::string_view key, std::string_view why) const {
  return unsupported(fmt::format("{}: {}: {}", where_, name(key), why));
}

}  // namespace lanner::model
