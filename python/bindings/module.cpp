// The module lanner._core: include/lanner's types under their own names, for the package in python/lanner.

#include <nanobind/nanobind.h>

#include "lanner/version.h"
#include "open_pipeline.h"

NB_MODULE(_core, module) {
  module.attr("__version__") = lanner::version();
  lanner::python::bind_options(module);
  lanner::python::bind_requests(module);
  lanner::python::bind_pipeline(module);
  lanner::python::bind_tokenizer(module);
}
