#pragma once
// A failed Status as the exception that lanner/errors.py has for it. All of this needs the GIL.

#include <utility>

#include <nanobind/nanobind.h>

#include "lanner/status.h"

namespace lanner::python {

[[noreturn]] void raise(const Status& status);

inline void raise_if_error(const Status& status) {
  if (!status.ok()) raise(status);
}

template <typename T>
T value_of(Result<T> result) {
  if (!result.ok()) raise(result.status());
  return *std::move(result);
}

}  // namespace lanner::python
