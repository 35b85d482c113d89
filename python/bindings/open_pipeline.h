#pragma once
// A Pipeline that Python owns.

#include <memory>
#include <string>
#include <utility>

#include <nanobind/nanobind.h>

#include "inbox.h"
#include "lanner/pipeline.h"

namespace lanner::python {

/// Ends with the Python object. In a process that was forked from the one that opened it, it is only forgotten: its
/// engine's thread exists in the other one alone.
class OpenPipeline {
 public:
  /// `load_progress` is None or called with the share that is loaded; with the GIL, as all methods.
  OpenPipeline(const std::string& model, PipelineOptions options, const nanobind::object& load_progress);
  ~OpenPipeline();
  OpenPipeline(const OpenPipeline&) = delete;
  OpenPipeline& operator=(const OpenPipeline&) = delete;

  /// The request's chunks arrive in the inbox under `key`. Returns its id, and of how many tokens the prompt is.
  std::pair<RequestId, std::size_t> submit(GenerationRequest request, std::shared_ptr<Inbox> inbox, std::uint64_t key,
                                           bool whole);
  Pipeline& pipeline() { return *pipeline_; }

 private:
  const int process_;
  std::unique_ptr<Pipeline> pipeline_;
};

/// Adds class Pipeline and what it is opened and asked with.
void bind_options(nanobind::module_& module);
void bind_requests(nanobind::module_& module);
void bind_pipeline(nanobind::module_& module);
void bind_tokenizer(nanobind::module_& module);

}  // namespace lanner::python
