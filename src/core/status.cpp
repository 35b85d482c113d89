#include "lanner/status.h"

namespace lanner {

std::string_view status_code_name(StatusCode code) {
  switch (code) {
    case StatusCode::kOk: return "ok";
    case StatusCode::kInvalidArgument: return "invalid_argument";
    case StatusCode::kNotFound: return "not_found";
    case StatusCode::kCorrupt: return "corrupt";
    case StatusCode::kUnsupported: return "unsupported";
    case StatusCode::kResourceExhausted: return "resource_exhausted";
    case StatusCode::kTooLong: return "too_long";
    case StatusCode::kConflict: return "conflict";
    case StatusCode::kCancelled: return "cancelled";
    case StatusCode::kIo: return "io";
    case StatusCode::kInternal: return "internal";
  }
  return "unknown";
}

Status with_context(const Status& status, std::string_view context) {
  if (status.ok()) return status;
  return {status.code(), std::string(context) + ": " + status.message()};
}

}  // namespace lanner
