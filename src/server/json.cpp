#include "server/json.h"

#include <fmt/format.h>

#include <cmath>
#include <unordered_set>
#include <utility>
#include <vector>

namespace lanner::server {
namespace {

constexpr std::size_t kMaxDepth = 64;
constexpr std::size_t kMaxValues = 1'000'000;
constexpr std::size_t kMaxMembers = 1'024;  // of one object: those who look a member up go through all of them

/// Builds the value from the parser's events. The parser itself does not recurse.
class Builder final : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t& /*text*/) override {
    if (!std::isfinite(value)) return fail("a number is out of range");
    return add(value);
  }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t& /*value*/) override { return fail("binary data"); }
  bool start_object(std::size_t /*size*/) override { return open(Json::object()); }
  bool start_array(std::size_t /*size*/) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    if (open_.back().keys.size() >= kMaxMembers) {
      return fail(fmt::format("an object has more than {} members", kMaxMembers));
    }
    if (!open_.back().keys.insert(name).second) return fail(fmt::format("the key \"{}\" stands there twice", name));
    open_.back().key = std::move(name);
    return true;
  }
  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& error) override {
    // Numbers that no double holds come this way, too.
    return fail(error.id == 406 ? std::string("a number is out of range")
                                : fmt::format("it is not valid JSON at byte {}", position));
  }

  Json take() { return std::move(root_); }
  const std::string& failure() const { return failure_; }

 private:
  struct Open {
    Json* value = nullptr;
    std::string key;                       // of the member that comes next
    std::unordered_set<std::string> keys;  // of an object
  };

  bool fail(std::string failure) {
    failure_ = std::move(failure);
    return false;
  }

  bool add(Json value) { return place(std::move(value)) != nullptr; }

  Json* place(Json value) {
    if (++values_ > kMaxValues) {
      fail(fmt::format("it has more than {} values", kMaxValues));
      return nullptr;
    }
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *open_.back().value;
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    // The vector below the map: its own insertion searches all keys, which have been compared already.
    auto& members = parent.get_ref<Json::object_t&>();
    members.push_back({std::move(open_.back().key), std::move(value)});
    return &members.back().second;
  }

  bool open(Json value) {
    if (open_.size() >= kMaxDepth) return fail(fmt::format("it is nested deeper than {} levels", kMaxDepth));
    Json* placed = place(std::move(value));
    if (placed == nullptr) return false;
    open_.push_back({.value = placed, .key = {}, .keys = {}});
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  Json root_;
  std::vector<Open> open_;  // a parent does not grow while a child is open, so that the pointers hold
  std::size_t values_ = 0;
  std::string failure_;
};

}  // namespace

Result<Json> parse_json(std::string_view text) {
  // The parser takes one for the end of the text.
  if (text.find('\0') != std::string_view::npos)
    return invalid_argument("the body: it is not valid JSON: it holds a NUL");
  Builder builder;
  if (!Json::sax_parse(text, &builder)) return invalid_argument("the body: " + builder.failure());
  return builder.take();
}

std::string to_text(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string json_string(std::string_view text) { return to_text(Json(std::string(text))); }

}  // namespace lanner::server
