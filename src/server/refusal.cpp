#include "server/refusal.h"

#include <fmt/format.h>

#include <utility>

namespace lanner::server {

std::string error_type(int status) {
  switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 429: return "rate_limit_error";
    default: return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

Refusal bad_field(std::string param, const std::string& detail) {
  Refusal refusal;
  refusal.message = fmt::format("{}: {}", param, detail);
  refusal.param = std::move(param);
  refusal.code = "invalid_value";
  return refusal;
}

Refusal overloaded(const std::string& message) {
  return {.status = 429,
          .type = error_type(429),
          .message = message,
          .code = "rate_limit_exceeded",
          .headers = {{"Retry-After", "1"}}};
}

Refusal not_available(std::string param, const std::string& detail) {
  Refusal refusal = bad_field(std::move(param), detail);
  refusal.code = "unsupported_value";
  return refusal;
}

Refusal plain_refusal(int status, std::string message, std::string code) {
  return {.status = status, .type = error_type(status), .message = std::move(message), .code = std::move(code)};
}

Refusal not_allowed(const char* flag) {
  return plain_refusal(403, std::string("not allowed: the server takes this only with ") + flag + " and an API key",
                       "not_allowed");
}

Refusal shutting_down() {
  return {.status = 503,
          .type = error_type(503),
          .message = "the server is shutting down",
          .code = "shutting_down",
          .headers = {{"Retry-After", "5"}}};
}

Refusal turned_away(bool closed) {
  return closed ? shutting_down() : overloaded("too many requests are waiting; try again later");
}

Refusal unknown_model(const std::string& name) {
  return {.status = 404,
          .type = error_type(404),
          .message = fmt::format("The model '{}' does not exist.", name),
          .param = "model",
          .code = "model_not_found"};
}

Refusal refusal_of(const Status& status) {
  switch (status.code()) {
    case StatusCode::kInvalidArgument:
    case StatusCode::kUnsupported:
    case StatusCode::kNotFound: return {.message = status.message(), .code = "invalid_value"};
    case StatusCode::kConflict:  // a SleepingPipeline's
      return {.status = 503, .type = error_type(503), .message = status.message(), .code = "asleep"};
    case StatusCode::kTooLong: return {.message = status.message(), .code = "context_length_exceeded"};
    case StatusCode::kResourceExhausted: return overloaded(status.message());
    case StatusCode::kCancelled: return shutting_down();
    default: return {.status = 500, .type = error_type(500), .message = status.message(), .code = "internal_error"};
  }
}

Json error_body(const Refusal& refusal) {
  const auto or_null = [](const std::string& text) { return text.empty() ? Json() : Json(text); };
  const Json error{{"message", refusal.message},
                   {"type", refusal.type},
                   {"param", or_null(refusal.param)},
                   {"code", or_null(refusal.code)}};
  Json body{{"error", error}, {"object", "error"}};
  body.update(error);
  body["code"] = refusal.status;
  return body;
}

HttpReply to_reply(const Refusal& refusal) {
  HttpReply reply;
  reply.status = refusal.status;
  reply.headers = refusal.headers;
  reply.body = to_text(error_body(refusal));
  return reply;
}

}  // namespace lanner::server
