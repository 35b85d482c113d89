// Any bytes as a GGUF file: refused, or its metadata, its vocabulary and every tensor in it can be read.

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>

#include "model/decoder_config.h"
#include "model/generation_config.h"
#include "model/gguf.h"
#include "model/gguf_checkpoint.h"
#include "model/gguf_vocabulary.h"
#include "model/row_order.h"

using namespace lanner::model;

namespace {

void read_tensors(const Checkpoint& checkpoint, const Gguf& gguf) {
  for (const auto& [name, tensor] : gguf.tensors) {
    const auto& shape = tensor.shape;
    if (shape.size() == 1) (void)checkpoint.vector(name, shape[0]).ok();
    if (shape.size() != 2) continue;
    auto source = checkpoint.matrix(name, shape[0], shape[1]);
    if (source.ok() != checkpoint.check_matrix(name, shape[0], shape[1]).ok() &&
        source.status().code() != lanner::StatusCode::kCorrupt) {
      std::abort();
    }
    if (!source.ok() || shape[0] % 2 != 0) continue;
    const ProjectionSpec rotated{
        .rows = shape[0], .cols = shape[1], .row_order = RowOrder::kPairwiseRope, .heads = 1, .rotary_dim = shape[0]};
    (void)gather_rows(*source, rows_in_tensor(rotated));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
  const auto gguf = parse_gguf(file, "fuzz");
  const auto checkpoint = make_gguf_checkpoint(file, nullptr, "fuzz");
  if (!checkpoint.ok()) {
    if (checkpoint.status().message().find('\n') != std::string::npos) std::abort();  // errors are one line
    return 0;
  }
  if (!gguf.ok()) std::abort();
  (void)gguf_tokenizer(*gguf).ok();
  (void)(*checkpoint)->special_tokens();
  (void)(*checkpoint)->chat_template();
  (void)read_generation_defaults(**checkpoint).ok();
  (void)read_decoder_spec(**checkpoint).ok();
  read_tensors(**checkpoint, *gguf);
  return 0;
}
