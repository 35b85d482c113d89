// What an engine is set up with: EngineOptions and PipelineOptions, under their own names.

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "lanner/pipeline.h"
#include "open_pipeline.h"

namespace nb = nanobind;

namespace lanner::python {

void bind_options(nb::module_& module) {
  nb::enum_<Device>(module, "Device")
      .value("AUTO", Device::kAuto)
      .value("CPU", Device::kCpu)
      .value("CUDA", Device::kCuda);
  nb::enum_<ComputeType>(module, "ComputeType")
      .value("AUTO", ComputeType::kAuto)
      .value("FLOAT32", ComputeType::kFloat32)
      .value("FLOAT16", ComputeType::kFloat16)
      .value("BFLOAT16", ComputeType::kBFloat16);
  nb::enum_<QuantPolicy>(module, "QuantPolicy")
      .value("NONE", QuantPolicy::kNone)
      .value("INT4", QuantPolicy::kInt4)
      .value("INT8", QuantPolicy::kInt8);
  nb::class_<EngineOptions>(module, "EngineOptions")
      .def(nb::init<>())
      .def_rw("model_format", &EngineOptions::model_format)
      .def_rw("device", &EngineOptions::device)
      .def_rw("dtype", &EngineOptions::dtype)
      .def_rw("quant_policy", &EngineOptions::quant_policy)
      .def_rw("cache_max_entry_count", &EngineOptions::cache_max_entry_count)
      .def_rw("session_len", &EngineOptions::session_len)
      .def_rw("max_batch_size", &EngineOptions::max_batch_size)
      .def_rw("max_prefill_token_num", &EngineOptions::max_prefill_token_num)
      .def_rw("enable_prefix_caching", &EngineOptions::enable_prefix_caching)
      .def_rw("deterministic", &EngineOptions::deterministic)
      .def_rw("threads", &EngineOptions::threads);
  nb::class_<PipelineOptions>(module, "PipelineOptions")
      .def(nb::init<>())
      .def_rw("engine", &PipelineOptions::engine)
      .def_rw("chat_template", &PipelineOptions::chat_template);
}

}  // namespace lanner::python
