#pragma once
// How expected failure travels: as a value.
//
// A function that can fail for a reason outside the program (a file, a request, a full disk, no memory)
// returns Status, or Result<T> when it also has something to return. A bug trips LANNER_CHECK (core/check.h)
// and ends the process. Nothing throws across a thread, a C or a Python border.
//
//   Result<Config> config = read_config(path);
//   if (!config.ok()) return config.status();
//   use(*config);
//
// Both types are values without shared state: copy, move and read them from any thread.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace lanner {

enum class StatusCode : std::uint8_t {
  kOk = 0,
  kInvalidArgument,    // what the caller or the user asked for makes no sense
  kNotFound,           // a file, model, template or name that does not exist
  kCorrupt,            // a file or message whose content contradicts itself
  kUnsupported,        // well formed, but not something this build can do
  kResourceExhausted,  // memory, disk, queue or KV blocks
  kTooLong,            // a prompt that cannot fit the context or the KV cache
  kConflict,           // the same id twice, or a state that excludes the call
  kCancelled,          // stopped on request
  kIo,                 // the operating system refused a read or a write
  kInternal,           // a broken promise inside the program that one request can survive
};

/// The name of a code as users see it in machine readable output, such as "invalid_argument".
std::string_view status_code_name(StatusCode code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  /// One line, without a trailing period or newline, that names the file or field and the cause.
  const std::string& message() const { return message_; }

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

inline Status invalid_argument(std::string message) { return {StatusCode::kInvalidArgument, std::move(message)}; }
inline Status not_found(std::string message) { return {StatusCode::kNotFound, std::move(message)}; }
inline Status corrupt(std::string message) { return {StatusCode::kCorrupt, std::move(message)}; }
inline Status unsupported(std::string message) { return {StatusCode::kUnsupported, std::move(message)}; }
inline Status resource_exhausted(std::string message) { return {StatusCode::kResourceExhausted, std::move(message)}; }
inline Status io_error(std::string message) { return {StatusCode::kIo, std::move(message)}; }
inline Status internal_error(std::string message) { return {StatusCode::kInternal, std::move(message)}; }

/// The same failure with "context: " in front of its message; ok stays ok.
Status with_context(const Status& status, std::string_view context);

/// A T, or the Status that says why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}        // NOLINT(google-explicit-constructor)
  Result(Status status) : state_(std::in_place_index<1>, std::move(status)) {  // NOLINT(google-explicit-constructor)
    if (std::get<1>(state_).ok()) std::abort();  // an ok Status carries no value: a bug at the caller
  }

  bool ok() const { return state_.index() == 0; }
  Status status() const { return ok() ? Status() : std::get<1>(state_); }

  /// The value; must be ok().
  T& operator*() & { return std::get<0>(state_); }
  const T& operator*() const& { return std::get<0>(state_); }
  T&& operator*() && { return std::get<0>(std::move(state_)); }
  T* operator->() { return &std::get<0>(state_); }
  const T* operator->() const { return &std::get<0>(state_); }

 private:
  std::variant<T, Status> state_;
};

}  // namespace lanner

/// Returns from the enclosing function when `expression` is a failed Status.
#define LANNER_RETURN_IF_ERROR(expression)           \
  do {                                               \
    ::lanner::Status lanner_status_ = (expression);  \
    if (!lanner_status_.ok()) return lanner_status_; \
  } while (false)

/// LANNER_ASSIGN_OR_RETURN(auto config, read_config(path)): declares config, or returns the failure.
#define LANNER_ASSIGN_OR_RETURN(declaration, expression) \
  LANNER_ASSIGN_OR_RETURN_(declaration, expression, LANNER_CONCAT_(lanner_result_, __LINE__))
#define LANNER_CONCAT_INNER_(a, b) a##b
#define LANNER_CONCAT_(a, b) LANNER_CONCAT_INNER_(a, b)
// A declaration cannot stand in parentheses. NOLINTBEGIN(bugprone-macro-parentheses)
#define LANNER_ASSIGN_OR_RETURN_(declaration, expression, result) \
  auto result = (expression);                                     \
  if (!(result).ok()) return (result).status();                   \
  declaration = *std::move(result)
// NOLINTEND(bugprone-macro-parentheses)
