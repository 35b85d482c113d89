// Class Tokenizer: a model's tokenizer without its weights; and Detokenizer, token by token.

#include <memory>
#include <optional>
#include <string>
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

namespace nb = nanobind;

namespace lanner::python {
namespace {

using Tokens = std::vector<std::int32_t>;

struct ModelTokenizer {
  std::shared_ptr<const Tokenizer> tokenizer;
  SpecialTokens special;
};

ModelTokenizer open(const std::string& path) {
  const auto checkpoint = value_of(model::open_checkpoint(path, {}));
  return {.tokenizer = value_of(checkpoint->tokenizer()), .special = checkpoint->special_tokens()};
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
             return value_of(self.tokenizer->encode(text, {.add_special_tokens = add_special_tokens}));
           })
      .def("decode",
           [](const Self& self, const Tokens& ids, bool skip_special_tokens) {
             return value_of(self.tokenizer->decode(ids, skip_special_tokens));
           })
      .def("piece", piece)
      .def("token_id", [](const Self& self, const std::string& text) { return self.tokenizer->token_id(text); })
      .def_prop_ro("vocab_size", [](const Self& self) { return self.tokenizer->vocab_size(); })
      .def_prop_ro("bos_token_id", [](const Self& self) { return self.tokenizer->token_id(self.special.bos); })
      .def_prop_ro("eos_token_id", [](const Self& self) { return self.tokenizer->token_id(self.special.eos); });
  nb::class_<IncrementalDetokenizer>(module, "Detokenizer")
      .def("__init__",
           [](IncrementalDetokenizer* self, const Self& tokenizer, bool skip_special_tokens) {
             new (self) IncrementalDetokenizer(tokenizer.tokenizer, skip_special_tokens);
           })
      .def("push", [](IncrementalDetokenizer& self, std::int32_t id) { return value_of(self.push(id)); })
      .def("finish", &IncrementalDetokenizer::finish);
}

}  // namespace lanner::python
