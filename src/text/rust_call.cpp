#include "text/rust_call.h"

namespace lanner {

std::string take_buffer(LannerBuffer buffer) {
  if (buffer.data == nullptr) return {};
  std::string text(reinterpret_cast<const char*>(buffer.data), buffer.size);
  lanner_buffer_free(buffer);
  return text;
}

Status take_error(std::int32_t code, LannerBuffer error) {
  if (code == LANNER_TEXT_OK) return {};
  std::string message = take_buffer(error);
  switch (code) {
    case LANNER_TEXT_INVALID_ARGUMENT: return invalid_argument(std::move(message));
    case LANNER_TEXT_CORRUPT: return corrupt(std::move(message));
    case LANNER_TEXT_UNSUPPORTED: return unsupported(std::move(message));
    case LANNER_TEXT_RESOURCE_EXHAUSTED: return resource_exhausted(std::move(message));
    default: return internal_error(std::move(message));
  }
}

Result<std::string> json_as_python(std::string_view json) {
  LannerBuffer text = {nullptr, 0};
  LannerBuffer error = {nullptr, 0};
  const std::int32_t code = lanner_json_as_python(to_slice(json), &text, &error);
  LANNER_RETURN_IF_ERROR(take_error(code, error));
  return take_buffer(text);
}

}  // namespace lanner
