// Class Pipeline: opening, submitting, and what else may be asked of an open model. Each waits without the GIL.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <unistd.h>

#include "engine/prompt_outputs.h"
#include "lanner/pipeline.h"
#include "net/hub.h"
#include "open_pipeline.h"
#include "status_error.h"

namespace nb = nanobind;

namespace lanner::python {
namespace {

using Tokens = std::vector<std::int32_t>;
using Array = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

/// Whether Ctrl-C was pressed, or another signal's handler raised; the exception stays set.
bool signal_raised() {
  const nb::gil_scoped_acquire acquire;
  return PyErr_CheckSignals() != 0;
}

/// The value of a call that was made without the GIL, unless a signal ended it.
template <typename T>
T value_or_signal(Result<T> result) {
  if (PyErr_Occurred() != nullptr) throw nb::python_error();
  return value_of(std::move(result));
}

template <typename Call>
auto without_gil(Call call) {
  const nb::gil_scoped_release release;
  return call();
}

std::vector<double> ppl(OpenPipeline& self, const std::vector<Tokens>& prompts) {
  const auto open = self.pipeline();
  return value_or_signal(without_gil([&] { return get_ppl(open->engine(), prompts, signal_raised); }));
}

std::vector<std::vector<float>> embeddings(OpenPipeline& self, const std::vector<Tokens>& prompts, bool mean,
                                           bool normalize) {
  const Pooling pooling = mean ? Pooling::kMean : Pooling::kLast;
  const auto open = self.pipeline();
  return value_or_signal(
      without_gil([&] { return get_embeddings(open->engine(), prompts, pooling, normalize, signal_raised); }));
}

Array logits(OpenPipeline& self, const Tokens& prompt) {
  const auto open = self.pipeline();
  auto made = std::make_unique<PromptLogits>(value_of(without_gil([&] { return get_logits(open->engine(), prompt); })));
  float* values = made->values.as<float>();
  const std::size_t shape[] = {static_cast<std::size_t>(made->rows), static_cast<std::size_t>(made->vocab)};
  const nb::capsule owner(made.release(), [](void* kept) noexcept { delete static_cast<PromptLogits*>(kept); });
  return {values, 2, shape, owner};
}

std::shared_ptr<TokenGrammar> compile_grammar(OpenPipeline& self, const std::string& kind, std::string text) {
  GrammarSource source{.kind = GrammarSource::Kind::kLark, .text = std::move(text)};
  if (kind == "json_schema") source.kind = GrammarSource::Kind::kJsonSchema;
  if (kind == "regex") source.kind = GrammarSource::Kind::kRegex;
  const auto open = self.pipeline();
  return std::const_pointer_cast<TokenGrammar>(value_of(without_gil([&] { return open->compile_grammar(source); })));
}

nb::dict memory_plan(OpenPipeline& self) {
  const MemoryPlan plan = self.pipeline()->engine().memory_plan();
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
  const EngineStats now = self.pipeline()->engine().stats();
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
  // Neither may throw through find_model(): what they raise ends the download, and goes on from here.
  const auto call = [&](const auto& body) {
    const nb::gil_scoped_acquire acquire;
    if (cancelled) return;
    try {
      body();
      cancelled = PyErr_CheckSignals() != 0;
    } catch (nb::python_error& error) {
      error.restore();
      cancelled = true;
    }
  };
  request.progress = [&](const net::DownloadProgress& done) { call([&] { progress(done.share()); }); };
  request.note = [&](std::string_view text) { call([&] { note(std::string(text)); }); };
  request.cancelled = &cancelled;
  return value_or_signal(without_gil([&] { return net::find_model(request); }));
}

}  // namespace

OpenPipeline::OpenPipeline(const std::string& model, PipelineOptions options, const nb::object& load_progress)
    : process_(getpid()) {
  if (!load_progress.is_none()) {
    options.load_progress = [&](double share) {
      const nb::gil_scoped_acquire acquire;
      if (PyErr_Occurred() != nullptr) return;
      try {
        load_progress(share);
      } catch (nb::python_error& error) {
        error.restore();
      }
    };
  }
  pipeline_ = value_or_signal(without_gil([&] { return Pipeline::open(model, options); }));
}

void OpenPipeline::close() {
  if (getpid() != process_) {
    static_cast<void>(new std::shared_ptr<Pipeline>(std::move(pipeline_)));  // never freed: see the class
    return;
  }
  std::shared_ptr<Pipeline> last = std::move(pipeline_);
  const nb::gil_scoped_release release;
  last.reset();
}

std::shared_ptr<Pipeline> OpenPipeline::pipeline() const {
  if (!pipeline_) raise(Status(StatusCode::kConflict, "the pipeline is closed"));
  return pipeline_;
}

std::pair<RequestId, std::size_t> OpenPipeline::submit(GenerationRequest request, std::shared_ptr<Inbox> inbox,
                                                       std::uint64_t key, bool whole) {
  const Delivery delivery = whole ? Delivery::kWhole : Delivery::kPieces;
  const auto open = pipeline();
  return value_of(without_gil([&]() -> Result<std::pair<RequestId, std::size_t>> {
    LANNER_ASSIGN_OR_RETURN(request.prompt_ids, open->prompt_tokens(request));
    request.messages.clear();
    request.prompt.reset();
    const std::size_t prompt_tokens = request.prompt_ids.size();
    LANNER_ASSIGN_OR_RETURN(const RequestId id, open->submit(std::move(request), [=](Chunk chunk) {
      inbox->put(key, delivery, std::move(chunk));
    }));
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
      .def("submit", &Self::submit, nb::arg("request"), nb::arg("inbox"), nb::arg("key"), nb::arg("whole"))
      .def("cancel", [](Self& self, RequestId id) { self.pipeline()->cancel(id); })
      .def("compile_grammar", compile_grammar, nb::arg("kind"), nb::arg("text"))
      .def("encode",
           [](Self& self, const std::string& text, bool add_special_tokens) {
             return value_of(self.pipeline()->encode(text, add_special_tokens));
           })
      .def("decode",
           [](Self& self, const Tokens& ids, bool skip_special_tokens) {
             return value_of(self.pipeline()->decode(ids, skip_special_tokens));
           })
      .def("prompt_tokens",
           [](Self& self, const GenerationRequest& request) {
             return value_of(self.pipeline()->prompt_tokens(request));
           })
      .def("get_ppl", ppl, nb::arg("prompts"))
      .def("get_logits", logits, nb::arg("prompt"))
      .def("get_embeddings", embeddings, nb::arg("prompts"), nb::arg("mean"), nb::arg("normalize"))
      .def("memory_plan", memory_plan)
      .def("stats", stats)
      .def_prop_ro("session_len", [](Self& self) { return self.pipeline()->engine().session_len(); })
      .def_prop_ro("vocab_size", [](Self& self) { return self.pipeline()->engine().vocab_size(); })
      .def_prop_ro("model_name", [](Self& self) { return self.pipeline()->model_name(); })
      .def_prop_ro("architecture", [](Self& self) { return self.pipeline()->architecture(); })
      .def_prop_ro("device", [](Self& self) { return self.pipeline()->device(); })
      .def_prop_ro("loading", [](Self& self) { return self.pipeline()->loading(); })
      .def_prop_ro("notes", [](Self& self) { return self.pipeline()->notes(); });
}

}  // namespace lanner::python
