// Class Pipeline: opening, submitting, and what else may be asked of an open model. Each waits without the GIL.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <unistd.h>

#include "engine/prompt_outputs.h"
#include "lanner/pipeline.h"
#include "net/hub.h"
#include "open_pipeline.h"
#include "status_error.h"
#include "without_gil.h"

namespace nb = nanobind;

namespace lanner::python {
namespace {

using Tokens = std::vector<std::int32_t>;
using Array = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

/// The value of a call that was made without the GIL, unless a signal ended it.
template <typename T>
T value_or_signal(Result<T> result) {
  if (PyErr_Occurred() != nullptr) throw nb::python_error();
  return value_of(std::move(result));
}

/// Calls Python from within a call that was made without the GIL. What it raises, or a signal's handler, stays set for
/// value_or_signal(): false from then on.
template <typename Call>
bool call_python(const Call& call) {
  const nb::gil_scoped_acquire acquire;
  if (PyErr_Occurred() != nullptr) return false;
  try {
    call();
  } catch (nb::python_error& error) {
    error.restore();
    return false;
  }
  return PyErr_CheckSignals() == 0;
}

std::vector<double> ppl(OpenPipeline& self, const std::vector<Tokens>& prompts) {
  return value_or_signal(self.use(
      [&](Pipeline& pipeline) { return get_ppl(pipeline.engine(), prompts, [&] { return self.is_unwanted(); }); }));
}

std::vector<std::vector<float>> embeddings(OpenPipeline& self, const std::vector<Tokens>& prompts, bool mean,
                                           bool normalize) {
  const Pooling pooling = mean ? Pooling::kMean : Pooling::kLast;
  return value_or_signal(self.use([&](Pipeline& pipeline) {
    return get_embeddings(pipeline.engine(), prompts, pooling, normalize, [&] { return self.is_unwanted(); });
  }));
}

Array logits(OpenPipeline& self, const Tokens& prompt) {
  auto made = std::make_unique<PromptLogits>(value_or_signal(self.use(
      [&](Pipeline& pipeline) { return get_logits(pipeline.engine(), prompt, [&] { return self.is_unwanted(); }); })));
  float* values = made->values.as<float>();
  const std::size_t shape[] = {static_cast<std::size_t>(made->rows), static_cast<std::size_t>(made->vocab)};
  const nb::capsule owner(made.release(), [](void* kept) noexcept { delete static_cast<PromptLogits*>(kept); });
  return {values, 2, shape, owner};
}

GrammarHandle compile_grammar(OpenPipeline& self, const std::string& kind, std::string text) {
  GrammarSource source{.kind = GrammarSource::Kind::kLark, .text = std::move(text)};
  if (kind == "json_schema") source.kind = GrammarSource::Kind::kJsonSchema;
  if (kind == "regex") source.kind = GrammarSource::Kind::kRegex;
  return {value_of(self.use([&](Pipeline& pipeline) { return pipeline.compile_grammar(source); }))};
}

Tokens encode(OpenPipeline& self, const std::string& text, bool add_special_tokens) {
  return value_of(self.use([&](Pipeline& pipeline) { return pipeline.encode(text, add_special_tokens); }));
}

std::string decode(OpenPipeline& self, const Tokens& ids, bool skip_special_tokens) {
  return value_of(self.use([&](Pipeline& pipeline) { return pipeline.decode(ids, skip_special_tokens); }));
}

nb::dict memory_plan(OpenPipeline& self) {
  const MemoryPlan plan = self.use([](Pipeline& pipeline) { return pipeline.engine().memory_plan(); });
  nb::dict made;
  made["free_bytes"] = plan.free_bytes;
  made["weight_bytes"] = plan.weight_bytes;
  made["copy_bytes"] = plan.copy_bytes;
  made["workspace_bytes"] = plan.workspace_bytes;
  made["kv_bytes"] = plan.kv_bytes;
  made["kv_blocks"] = plan.kv_blocks;
  made["kv_tokens"] = plan.kv_tokens;
  made["kv_type"] = plan.kv_type;
  made["sequences"] = plan.sequences;
  return made;
}

nb::dict stats(OpenPipeline& self) {
  const EngineStats now = self.use([](Pipeline& pipeline) { return pipeline.engine().stats(); });
  nb::dict made;
  made["running"] = now.running;
  made["waiting"] = now.waiting;
  made["kv_blocks_used"] = now.kv_blocks_used;
  made["kv_blocks_cached"] = now.kv_blocks_cached;
  made["prompt_tokens"] = now.prompt_tokens;
  made["cached_tokens"] = now.cached_tokens;
  made["generated_tokens"] = now.generated_tokens;
  made["preemptions"] = now.preemptions;
  return made;
}

/// A path, or what a hub calls a model, which may be downloaded. `progress` is called with the share, `note` with
/// lines.
std::string find_model(const std::string& model, const std::string& revision, const std::string& download_dir,
                       const nb::object& progress, const nb::object& note) {
  std::atomic<bool> cancelled = false;
  net::ModelRequest request{.model = model, .revision = revision, .download_dir = download_dir};
  const auto tell = [&](const auto& call) {
    if (!call_python(call)) cancelled = true;
  };
  request.progress = [&](const net::DownloadProgress& done) { tell([&] { progress(done.share()); }); };
  request.note = [&](std::string_view text) { tell([&] { note(std::string(text)); }); };
  request.cancelled = &cancelled;
  return value_or_signal(without_gil([&] { return net::find_model(request); }));
}

}  // namespace

OpenPipeline::OpenPipeline(const std::string& model, PipelineOptions options, const nb::object& load_progress)
    : process_(getpid()) {
  if (!load_progress.is_none()) {
    options.load_progress = [&](double share) { call_python([&] { load_progress(share); }); };
  }
  pipeline_ = value_or_signal(without_gil([&] { return Pipeline::open(model, options); }));
}

void OpenPipeline::close() {
  if (getpid() != process_) {
    static_cast<void>(new std::shared_ptr<Pipeline>(std::move(pipeline_)));  // never freed: see the class
    return;
  }
  closing_ = true;
  std::shared_ptr<Pipeline> last = std::move(pipeline_);
  const nb::gil_scoped_release release;
  // Calls that wait see `closing_` soon. They should have left before an interpreter that ends takes the GIL away.
  for (int i = 0; i < 1000 && last.use_count() > 1; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  last.reset();
}

void OpenPipeline::check() const {
  if (getpid() != process_) {
    raise(
        Status(StatusCode::kConflict, "this pipeline belongs to the process that opened it: open one after the fork"));
  }
  if (!pipeline_) raise(Status(StatusCode::kConflict, "the pipeline is closed"));
}

bool OpenPipeline::is_unwanted() const {
  return closing_ || !call_python([] {});
}

void OpenPipeline::cancel(RequestId id) {
  if (getpid() == process_ && pipeline_) pipeline_->cancel(id);
}

void OpenPipeline::cancel_all(const InboxHandle& handle) {
  if (getpid() != process_) return;  // the inbox may be locked for ever
  for (const RequestId id : handle.inbox->running()) cancel(id);
}

std::pair<RequestId, std::size_t> OpenPipeline::submit(GenerationRequest request, const InboxHandle& handle,
                                                       std::uint64_t key, bool whole) {
  const Delivery delivery = whole ? Delivery::kWhole : Delivery::kPieces;
  const std::shared_ptr<Inbox> inbox = handle.inbox;
  return value_of(use([&](Pipeline& pipeline) -> Result<std::pair<RequestId, std::size_t>> {
    LANNER_ASSIGN_OR_RETURN(request.prompt_ids, pipeline.prompt_tokens(request));
    request.messages.clear();
    request.prompt.reset();
    const std::size_t prompt_tokens = request.prompt_ids.size();
    LANNER_ASSIGN_OR_RETURN(const RequestId id, pipeline.submit(std::move(request), [=](Chunk chunk) {
      inbox->put(key, delivery, std::move(chunk));
    }));
    inbox->started(key, id);
    return std::pair{id, prompt_tokens};
  }));
}

void bind_pipeline(nb::module_& module) {
  using Self = OpenPipeline;
  module.def("find_model", find_model, nb::arg("model"), nb::arg("revision"), nb::arg("download_dir"),
             nb::arg("progress"), nb::arg("note"));
  nb::class_<Self>(module, "Pipeline")
      .def(nb::init<const std::string&, PipelineOptions, const nb::object&>(), nb::arg("model"), nb::arg("options"),
           nb::arg("load_progress").none())
      .def("close", &Self::close)
      .def("check", &Self::check)
      .def("submit", &Self::submit, nb::arg("request"), nb::arg("inbox"), nb::arg("key"), nb::arg("whole"))
      .def("cancel", &Self::cancel)
      .def("cancel_all", &Self::cancel_all)
      .def("compile_grammar", compile_grammar, nb::arg("kind"), nb::arg("text"))
      .def("encode", encode)
      .def("decode", decode)
      .def("get_ppl", ppl, nb::arg("prompts"))
      .def("get_logits", logits, nb::arg("prompt"))
      .def("get_embeddings", embeddings, nb::arg("prompts"), nb::arg("mean"), nb::arg("normalize"))
      .def("memory_plan", memory_plan)
      .def("stats", stats)
      .def_prop_ro("session_len",
                   [](Self& self) { return self.use([](Pipeline& p) { return p.engine().session_len(); }); })
      .def_prop_ro("vocab_size",
                   [](Self& self) { return self.use([](Pipeline& p) { return p.engine().vocab_size(); }); })
      .def_prop_ro("model_name", [](Self& self) { return self.use([](Pipeline& p) { return p.model_name(); }); })
      .def_prop_ro("device", [](Self& self) { return self.use([](Pipeline& p) { return p.device(); }); })
      .def_prop_ro("notes", [](Self& self) { return self.use([](Pipeline& p) { return p.notes(); }); });
}

}  // namespace lanner::python
