// Any text as a configuration: refused, or a spec within the limits that later code multiplies by.

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "model/decoder.h"
#include "model/decoder_config.h"
#include "model/fake_checkpoint.h"
#include "model/generation_config.h"
#include "model/json_reader.h"
#include "model/row_order.h"

using namespace lanner::model;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto json = parse_json(text, "fuzz", {.max_bytes = 1 << 20, .max_depth = 16, .max_values = 1 << 16});
  if (!json.ok() || !json->is_object()) return 0;
  FakeCheckpoint checkpoint;
  checkpoint.kind_value = json->contains("gguf") ? CheckpointKind::kGguf : CheckpointKind::kFolder;
  checkpoint.config_value = *json;
  checkpoint.generation_value = *json;
  checkpoint.has_every_tensor = true;
  (void)read_generation_defaults(checkpoint).ok();
  const auto spec = read_decoder_spec(checkpoint);
  if (!spec.ok()) {
    if (spec.status().message().find('\n') != std::string::npos) std::abort();  // errors are one line
    return 0;
  }
  bool sane = spec->heads % spec->kv_heads == 0 && spec->head_dim <= kMaxHeadDim && spec->vocab <= kMaxVocab &&
              spec->norm_eps > 0 && !spec->layers.empty() && std::isfinite(spec->logit_scale);
  for (const RopeSpec& rope : spec->ropes) {
    sane = sane && rope.rotary_dim <= spec->head_dim && std::isfinite(rope.theta) && rope.factor > 0;
    // What loading computes with all of it.
    const RopeFrequencies frequencies = rope_frequencies(rope, spec->max_position, spec->max_position);
    sane = sane && static_cast<std::int64_t>(frequencies.inverse.size()) == rope.rotary_dim / 2;
  }
  const LayerSpec& layer = spec->layers.back();
  for (const ProjectionSpec* projection : {&layer.q, &layer.k, &layer.v, &layer.gate, &layer.up}) {
    for (const std::int64_t row : rows_in_tensor(*projection)) {
      sane = sane && row >= 0 && row < tensor_rows(*projection);
    }
  }
  if (!sane) std::abort();
  return 0;
}
