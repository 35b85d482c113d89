// Class Tokenizer: a model's tokenizer without its weights; and Detokenizer, token by token.

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "model/checkpoint.h"
#include "open_pipeline.h"
#include "status_error.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "without_gil.h"

namespace nb = nanobind;

namespace lanner::python {
namespace {

using Tokens = std::vector<std::int32_t>;

struct ModelTokenizer {
  std::shared_ptr<const Tokenizer> tokenizer;
  SpecialTokens special;
};

ModelTokenizer open(const std::string& path) {
  return value_of(without_gil([&]() -> Result<ModelTokenizer> {
    LANNER_ASSIGN_OR_RETURN(const auto checkpoint, model::open_checkpoint(path, {}));
    LANNER_ASSIGN_OR_RETURN(auto tokenizer, checkpoint->tokenizer());
    return ModelTokenizer{.tokenizer = std::move(tokenizer), .special = checkpoint->special_tokens()};
  }));
}

std::optional<std::string> piece(const ModelTokenizer& self, std::int32_t id) {
  Result<std::string> found = self.tokenizer->piece(id);
  if (!found.ok()) return std::nullopt;
  return *std::move(found);
}

}  // namespace

void bind_tokenizer(nb::module_& module) {
  using Self = ModelTokenizer;
  nb::class_<Self>(module, "Tokenizer")
      .def("__init__", [](Self* self, const std::string& path) { new (self) Self(open(path)); })
      .def("encode",
           [](const Self& self, const std::string& text, bool add_special_tokens) {
             return value_of(
                 without_gil([&] { return self.tokenizer->encode(text, {.add_special_tokens = add_special_tokens}); }));
           })
      .def("decode",
           [](const Self& self, const Tokens& ids, bool skip_special_tokens) {
             return value_of(without_gil([&] { return self.tokenizer->decode(ids, skip_special_tokens); }));
           })
      .def("piece", piece)
      .def_prop_ro("vocab_size", [](const Self& self) { return self.tokenizer->vocab_size(); })
      .def_prop_ro("bos_token_id", [](const Self& self) { return self.tokenizer->token_id(self.special.bos); })
      .def_prop_ro("eos_token_id", [](const Self& self) { return self.tokenizer->token_id(self.special.eos); });
  nb::class_<IncrementalDetokenizer>(module, "Detokenizer")
      .def("__init__",
           [](IncrementalDetokenizer* self, const Self& tokenizer, bool skip_special_tokens) {
             new (self) IncrementalDetokenizer(tokenizer.tokenizer, skip_special_tokens);
           })
      .def("push", [](IncrementalDetokenizer& self, std::int32_t id) { return value_of(self.push(id)); });
}

}  // namespace lanner::python
