#pragma once
// Calls that wait, made without the GIL.

#include <nanobind/nanobind.h>

namespace lanner::python {

template <typename Call>
auto without_gil(Call call) {
  const nanobind::gil_scoped_release release;
  return call();
}

}  // namespace lanner::python
