#pragma once
// One layer of a model, run by the engine's own decoder on hidden states that are handed in, with an ear on what its
// matrix products read.
//
// For the decoder it is a model of that one layer, whose embedding is never asked: a LayerCheckpoint stands in for
// it, and a backend around the CPU's puts the hidden states where the embedding would write, and looks at what the
// operations are given. So calibration computes what the engine computes, and the engine knows nothing of it. Memory
// for one layer at a time is what a model larger than memory needs.
//
//   LANNER_ASSIGN_OR_RETURN(const auto runner, LayerRunner::load(checkpoint, spec, 3, {.rows = 1024}));
//   LANNER_RETURN_IF_ERROR(runner->run(hidden, [](LinearInput input, std::span<const float> values) { … }));

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "lanner/status.h"
#include "model/checkpoint.h"
#include "model/decoder.h"
#include "model/decoder_spec.h"
#include "ops/backend.h"

namespace lanner::quant {

/// What the Linears of a layer read: q, k and v; o; gate and up; down.
enum class LinearInput : std::uint8_t { kAttention, kAttentionOut, kMlp, kDown };
inline constexpr std::size_t kLinearInputs = 4;

/// Columns of what is read.
std::int64_t input_cols(const model::LayerSpec& layer, LinearInput input);

/// Is given each product's input, (rows, cols), before it is computed. Valid during the call. May be empty.
using ObserveInput = std::function<void(LinearInput input, std::span<const float> values)>;

struct LayerRunnerOptions {
  std::int64_t rows = 0;  // tokens of a sequence
  int threads = 0;        // 0: all
};

/// What of a layer is computed: all of it; up to where attention's product has been added; or what is behind that, of
/// hidden states that have it already. The last two are of layers whose MLP reads what attention has added to alone.
enum class LayerPart : std::uint8_t { kWhole, kAttention, kMlp };

class LayerRunner {
 public:
  /// Borrows checkpoint and spec.
  static Result<std::unique_ptr<LayerRunner>> load(const model::Checkpoint& checkpoint, const model::DecoderSpec& spec,
                                                   std::size_t layer, const LayerRunnerOptions& options);
  ~LayerRunner();
  LayerRunner(const LayerRunner&) = delete;
  LayerRunner& operator=(const LayerRunner&) = delete;

  /// The hidden states (rows, hidden) of a sequence from its first token on, which become those behind the part.
  Status run(std::span<float> hidden, const ObserveInput& observe, LayerPart part = LayerPart::kWhole);

  /// The keys, after their rotation, and values of the sequence that was run, as the cache holds them: (rows,
  /// kv_heads, head_dim) each.
  void read_keys_and_values(std::vector<float>& keys, std::vector<float>& values) const;

 private:
  class Probe;

  LayerRunner(std::unique_ptr<Probe> probe, std::int64_t rows);

  std::unique_ptr<Probe> probe_;  // outlives the decoder
  std::unique_ptr<model::Decoder> decoder_;
  ops::KvCacheView cache_;
  std::vector<std::int32_t> tokens_;     // (rows), which nobody reads
  std::vector<std::int32_t> positions_;  // (rows)
  std::vector<std::int32_t> blocks_;
};

}  // namespace lanner::quant
