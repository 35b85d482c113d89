// Any bytes as the table of a converted model: refused, or the model loads and computes one step.
//
// The data before the table are always those of one small model; the seeds are its table.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include "model/checkpoint.h"
#include "model/convert.h"
#include "model/decoder.h"
#include "model/decoder_config.h"
#include "model/file_builders.h"
#include "model/packed_file.h"
#include "ops/backend.h"

using namespace lanner;
using namespace lanner::model;

namespace {

std::uint64_t fnv1a(std::string_view text) {
  std::uint64_t hash = 14695981039346656037U;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211U;
  return hash;
}

/// A converted model whose table is replaced again and again.
class ConvertedModel {
 public:
  ConvertedModel() {
    folder_.write("m.gguf", small_llama_gguf({"a", "b", "c"}).file());
    const Status made = convert_model({.source = folder_.path() + "/m.gguf", .destination = path(), .threads = 1});
    if (!made.ok()) std::abort();
    std::ifstream file(file_path(), std::ios::binary);
    data_.assign(std::istreambuf_iterator<char>(file), {});
    std::uint64_t table_offset = 0;
    std::memcpy(&table_offset, data_.data() + 16, sizeof(table_offset));
    data_.resize(table_offset);
  }

  std::string path() const { return folder_.path() + "/converted"; }

  void write_table(std::string_view table) {
    const std::uint64_t table_bytes = table.size();
    const std::uint64_t hash = fnv1a(table);
    std::memcpy(data_.data() + 24, &table_bytes, sizeof(table_bytes));
    std::memcpy(data_.data() + 32, &hash, sizeof(hash));
    std::ofstream file(file_path(), std::ios::binary | std::ios::trunc);
    file << data_ << table;
    if (!file.flush()) std::abort();
  }

 private:
  std::string file_path() const { return path() + "/" + std::string(kPackedFileName); }

  TemporaryFolder folder_;
  std::string data_;  // preamble and data
};

Status load_and_compute(const ConvertedModel& model) {
  LANNER_ASSIGN_OR_RETURN(const auto checkpoint, open_checkpoint(model.path()));
  LANNER_ASSIGN_OR_RETURN(const DecoderSpec spec, read_decoder_spec(*checkpoint));
  if (spec.layers.size() > 4 || spec.hidden > 256 || spec.vocab > 256) return {};  // too much to compute each time
  LANNER_ASSIGN_OR_RETURN(const auto backend, ops::make_cpu_backend({.threads = 1}));
  LANNER_ASSIGN_OR_RETURN(const auto decoder, Decoder::load(*checkpoint, spec, *backend, {}));
  LANNER_RETURN_IF_ERROR(decoder->reserve({.rows = 1, .output_rows = 1}));
  const ops::KvLayout layout = decoder->kv_layout(DType::kF16);
  LANNER_ASSIGN_OR_RETURN(std::byte* const kv, backend->allocate(layout.block_bytes(), "the KV cache"));
  const std::int32_t zero = 0;
  const ops::SequenceSlice slice{.rows = 1, .blocks = {&zero, 1}};
  const ops::Batch batch{.rows = 1, .tokens = {&zero, 1}, .positions = {&zero, 1}, .slices = {&slice, 1}};
  (void)decoder->forward(batch, {.layout = layout, .data = kv, .blocks = 1}, {.logits = {&zero, 1}});
  return {};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static ConvertedModel model;
  model.write_table({reinterpret_cast<const char*>(data), size});
  const Status status = load_and_compute(model);
  if (status.message().find('\n') != std::string::npos) std::abort();  // errors are one line
  return 0;
}
