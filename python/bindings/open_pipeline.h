#pragma once
// A Pipeline that Python owns.

#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include <nanobind/nanobind.h>

#include "inbox.h"
#include "lanner/pipeline.h"

namespace lanner::python {

/// How Python holds an Inbox. The engine's thread holds the same one; a reference that nanobind makes of a Python
/// object would want the GIL when it goes.
struct InboxHandle {
  std::shared_ptr<Inbox> inbox;
  int process = 0;  // that made it
};

/// The same for a grammar.
struct GrammarHandle {
  std::shared_ptr<const TokenGrammar> grammar;
};

/// Ends with close(), or with the Python object. In a process that was forked from the one that opened it, it is only
/// forgotten: its engine's thread exists in the other one alone. All methods need the GIL.
class OpenPipeline {
 public:
  /// `load_progress` is None or called with the share that is loaded.
  OpenPipeline(const std::string& model, PipelineOptions options, const nanobind::object& load_progress);
  ~OpenPipeline() { close(); }
  OpenPipeline(const OpenPipeline&) = delete;
  OpenPipeline& operator=(const OpenPipeline&) = delete;

  /// Requests that run end with kAbort, calls that wait are cancelled. A second call does nothing.
  void close();
  /// The request's chunks arrive in the inbox under `key`. Returns its id, and of how many tokens the prompt is.
  std::pair<RequestId, std::size_t> submit(GenerationRequest request, const InboxHandle& handle, std::uint64_t key,
                                           bool whole);
  /// Ends one request; nothing where the pipeline is closed, or belongs to another process.
  void cancel(RequestId id);
  /// The same for all that report to an inbox.
  void cancel_all(const InboxHandle& handle);
  /// Raises where the pipeline is closed, or belongs to another process.
  void check() const;
  /// Whether nobody waits for a call's result any more: this is closed, or a signal's handler raised. Without the GIL.
  bool is_unwanted() const;

  /// call(pipeline) without the GIL. The pipeline stays open meanwhile.
  template <typename Call>
  auto use(Call call) const {
    check();
    std::shared_ptr<Pipeline> open = pipeline_;
    const nanobind::gil_scoped_release release;
    // Behind `release`, so that an engine that ends with this reference does not end with the GIL held.
    const std::shared_ptr<Pipeline> held = std::move(open);
    return call(*held);
  }

 private:
  const int process_;
  std::atomic<bool> closing_ = false;
  std::shared_ptr<Pipeline> pipeline_;
};

/// Adds class Pipeline and what it is opened and asked with.
void bind_options(nanobind::module_& module);
void bind_requests(nanobind::module_& module);
void bind_pipeline(nanobind::module_& module);
void bind_tokenizer(nanobind::module_& module);

}  // namespace lanner::python
