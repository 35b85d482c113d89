#pragma once
// A Pipeline that Python owns.

#include <memory>
#include <string>
#include <utility>

#include <nanobind/nanobind.h>

#include "inbox.h"
#include "lanner/pipeline.h"

namespace lanner::python {

/// Ends with close(), or with the Python object. In a process that was forked from the one that opened it, it is only
/// forgotten: its engine's thread exists in the other one alone. All methods need the GIL.
class OpenPipeline {
 public:
  /// `load_progress` is None or called with the share that is loaded.
  OpenPipeline(const std::string& model, PipelineOptions options, const nanobind::object& load_progress);
  ~OpenPipeline() { close(); }
  OpenPipeline(const OpenPipeline&) = delete;
  OpenPipeline& operator=(const OpenPipeline&) = delete;

  /// Requests that run end with kAbort. A second call does nothing.
  void close();
  /// The request's chunks arrive in the inbox under `key`. Returns its id, and of how many tokens the prompt is.
  std::pair<RequestId, std::size_t> submit(GenerationRequest request, std::shared_ptr<Inbox> inbox, std::uint64_t key,
                                           bool whole);
  /// Stays open for as long as this is held; raises where it is closed.
  std::shared_ptr<Pipeline> pipeline() const;

 private:
  const int process_;
  std::shared_ptr<Pipeline> pipeline_;
};

/// Adds class Pipeline and what it is opened and asked with.
void bind_options(nanobind::module_& module);
void bind_requests(nanobind::module_& module);
void bind_pipeline(nanobind::module_& module);
void bind_tokenizer(nanobind::module_& module);

}  // namespace lanner::python
