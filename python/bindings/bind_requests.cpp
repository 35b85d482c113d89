// What is asked and what comes back: GenerationConfig, GenerationRequest, Chunk, and the Inbox in which chunks arrive.

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <unistd.h>

#include "inbox.h"
#include "lanner/pipeline.h"
#include "open_pipeline.h"
#include "status_error.h"
#include "without_gil.h"

namespace nb = nanobind;

namespace lanner::python {
namespace {

const char* reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop: return "stop";
    case FinishReason::kLength: return "length";
    case FinishReason::kAbort: return "abort";
    case FinishReason::kError: break;
  }
  return "error";
}

std::vector<std::string> reason_names(const Chunk& chunk) {
  std::vector<std::string> names;
  for (const FinishReason reason : chunk.reasons) names.emplace_back(reason_name(reason));
  return names;
}

/// (code, message) of a request that failed.
std::optional<std::pair<std::string, std::string>> error_of(const Chunk& chunk) {
  if (chunk.status.ok()) return std::nullopt;
  return std::pair{std::string(status_code_name(chunk.status.code())), chunk.status.message()};
}

/// Of each token [(id, logprob), …]: the token itself first, then the best.
std::vector<std::vector<std::pair<std::int32_t, float>>> logprobs_of(const Chunk& chunk) {
  std::vector<std::vector<std::pair<std::int32_t, float>>> tokens;
  for (const TokenLogprobs& token : chunk.logprobs) {
    std::vector<std::pair<std::int32_t, float>> pairs{{token.token, token.logprob}};
    for (const TokenLogprob& best : token.top) pairs.emplace_back(best.token, best.logprob);
    tokens.push_back(std::move(pairs));
  }
  return tokens;
}

/// All floats, (rows * vocabulary), which the array takes over; None where none are there.
nb::object take_logits(Chunk& chunk) {
  if (chunk.logits.empty()) return nb::none();
  auto kept = std::make_unique<std::vector<float>>(std::move(chunk.logits));
  float* values = kept->data();
  const std::size_t count = kept->size();
  const nb::capsule owner(kept.release(),
                          [](void* floats) noexcept { delete static_cast<std::vector<float>*>(floats); });
  return nb::cast(nb::ndarray<nb::numpy, float, nb::ndim<1>>(values, {count}, owner));
}

std::vector<Letter> take(InboxHandle& handle, double seconds) {
  if (getpid() != handle.process) {
    raise(Status(StatusCode::kConflict,
                 "this request belongs to the process that was forked: open a pipeline after the fork"));
  }
  return without_gil([&] { return handle.inbox->take(seconds); });
}

}  // namespace

void bind_requests(nb::module_& module) {
  nb::class_<Message>(module, "Message")
      .def(
          "__init__",
          [](Message* self, std::string role, std::string content, std::string more) {
            new (self) Message{.role = std::move(role), .content = std::move(content), .more = std::move(more)};
          },
          nb::arg("role"), nb::arg("content"), nb::arg("more") = "");
  nb::class_<GenerationConfig>(module, "GenerationConfig")
      .def(nb::init<>())
      .def_rw("max_new_tokens", &GenerationConfig::max_new_tokens)
      .def_rw("min_new_tokens", &GenerationConfig::min_new_tokens)
      .def_rw("do_sample", &GenerationConfig::do_sample, nb::arg().none())
      .def_rw("temperature", &GenerationConfig::temperature, nb::arg().none())
      .def_rw("top_p", &GenerationConfig::top_p, nb::arg().none())
      .def_rw("top_k", &GenerationConfig::top_k, nb::arg().none())
      .def_rw("min_p", &GenerationConfig::min_p, nb::arg().none())
      .def_rw("repetition_penalty", &GenerationConfig::repetition_penalty, nb::arg().none())
      .def_rw("seed", &GenerationConfig::seed, nb::arg().none())
      .def_rw("ignore_eos", &GenerationConfig::ignore_eos)
      .def_rw("skip_special_tokens", &GenerationConfig::skip_special_tokens)
      .def_rw("include_stop_str_in_output", &GenerationConfig::include_stop_str_in_output)
      .def_rw("logprobs", &GenerationConfig::logprobs)
      .def_rw("logit_bias", &GenerationConfig::logit_bias)
      .def_rw("stop", &GenerationConfig::stop)
      .def_rw("stop_ids", &GenerationConfig::stop_ids)
      .def_rw("bad_words", &GenerationConfig::bad_words);
  [[maybe_unused]] const nb::class_<GrammarHandle> grammar_class(module, "Grammar");
  nb::enum_<RequestWants::Logits>(module, "Logits")
      .value("NONE", RequestWants::Logits::kNone)
      .value("GENERATED", RequestWants::Logits::kGenerated)
      .value("ALL", RequestWants::Logits::kAll);
  nb::class_<GenerationRequest>(module, "GenerationRequest")
      .def(nb::init<>())
      .def_rw("messages", &GenerationRequest::messages)
      .def_rw("prompt", &GenerationRequest::prompt, nb::arg().none())
      .def_rw("prompt_ids", &GenerationRequest::prompt_ids)
      .def_rw("config", &GenerationRequest::config)
      .def_rw("logits", &GenerationRequest::logits)
      .def("set_grammar",
           [](GenerationRequest& request, const GrammarHandle& handle) { request.grammar = handle.grammar; });

  nb::class_<Chunk>(module, "Chunk")
      .def_ro("choice", &Chunk::choice)
      .def_ro("text", &Chunk::text)
      .def_ro("token_ids", &Chunk::token_ids)
      .def_prop_ro("logprobs", logprobs_of)
      .def("take_logits", take_logits)
      .def_ro("final", &Chunk::final)
      .def_prop_ro("reasons", reason_names)
      .def_prop_ro("error", error_of)
      .def_ro("cached_tokens", &Chunk::cached_tokens)
      .def_ro("generated_tokens", &Chunk::generated_tokens);
  nb::class_<Letter>(module, "Letter").def_ro("key", &Letter::key).def_ro("chunks", &Letter::chunks);
  nb::class_<InboxHandle>(module, "Inbox")
      .def("__init__", [](InboxHandle* self) { new (self) InboxHandle{value_of(Inbox::open()), getpid()}; })
      .def("take", take, nb::arg("seconds"))
      .def("fileno", [](const InboxHandle& handle) { return handle.inbox->descriptor(); });
}

}  // namespace lanner::python
