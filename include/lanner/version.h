#pragma once
namespace lanner {
/// "0.1.0"
const char* version();
}  // namespace lanner
