#include "status_error.h"

#include <string>

#include <nanobind/stl/string.h>

namespace nb = nanobind;

namespace lanner::python {

void raise(const Status& status) {
  const nb::object make = nb::module_::import_("lanner.errors").attr("error_of");
  const nb::object error = make(std::string(status_code_name(status.code())), status.message());
  PyErr_SetObject(error.type().ptr(), error.ptr());
  throw nb::python_error();
}

}  // namespace lanner::python
