#pragma once
// The one decoder: a DecoderSpec's layers as five operations each, on whatever backend it was loaded to.
//
// Ownership: keeps its weights; borrows the backend, which must outlive it. One thread at a time, the backend's.
// forward() answers for nothing: what can fail was checked or allocated by load() and reserve(), and what becomes of
// the device the backend tells (ops::Backend::take_failure).
//
//   LANNER_ASSIGN_OR_RETURN(auto decoder, Decoder::load(*checkpoint, spec, backend, {}));
//   LANNER_RETURN_IF_ERROR(decoder->reserve({.rows = 512, .output_rows = 128}));
//   const StepOutput output = decoder->forward(batch, cache, {.logits = last_rows});

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "lanner/status.h"
#include "model/checkpoint.h"
#include "model/decoder_spec.h"
#include "ops/backend.h"

namespace lanner::model {

class WeightLoader;

struct LoadOptions {
  ops::Arithmetic arithmetic = ops::Arithmetic::kFast;
  /// Tokens of the longest sequence; dynamic NTK and longrope choose their frequencies by it, once for all
  /// sequences. 0: what the model was trained for.
  std::int64_t session_len = 0;
  /// Called with the share of the weights that is loaded, 0 to 1, on the loading thread; may be empty.
  std::function<void(double)> progress;
};

/// The most that a step may ask for.
struct StepLimits {
  std::int64_t rows = 0;
  std::int64_t output_rows = 0;  // rows whose logits, or hidden states, one step returns
  // Of these a step may ask for more, for which memory is then taken when it comes:
  std::int64_t sequences = 0;
  std::int64_t blocks = 0;   // of all sequences together, see ops::StepRoom
  std::int64_t history = 0;  // tokens of all sequences together
};

/// Rows of the step, ascending, whose results the caller wants.
struct StepWants {
  std::span<const std::int32_t> logits;
  std::span<const std::int32_t> hidden;
};

/// In backend memory, valid until the next forward().
struct StepOutput {
  const float* logits = nullptr;  // (wants.logits.size(), vocab)
  const float* hidden = nullptr;  // (wants.hidden.size(), hidden), after the final norm
};

class Decoder {
 public:
  static Result<std::unique_ptr<Decoder>> load(const Checkpoint& checkpoint, const DecoderSpec& spec,
                                               ops::Backend& backend, const LoadOptions& options);

  const DecoderSpec& spec() const { return spec_; }
  ops::KvLayout kv_layout(DType dtype, ops::KvCodes codes = ops::KvCodes::kNone) const;
  std::int64_t weight_bytes() const { return weight_bytes_; }
  /// Every product of a step, in its order: "qkv", "attention out", "gate up" and "down" of each layer, then "head".
  void for_each_linear(const std::function<void(std::string_view, const ops::Linear&)>& visit) const;
  /// Bytes that reserve(limits) will take.
  std::int64_t workspace_bytes(const StepLimits& limits) const;
  Status reserve(const StepLimits& limits);

  /// Grows while a step is computed, at least twice a layer where the device does not work behind. From any thread.
  std::int64_t progress() const { return progress_.load(std::memory_order_relaxed); }

  StepOutput forward(const ops::Batch& batch, const ops::KvCacheView& cache, const StepWants& wants);

 private:
  struct Layer {
    ops::Linear qkv;
    ops::Norm q_norm;
    ops::Norm k_norm;
    ops::Linear attention_out;
    ops::Linear gate_up;
    ops::Linear down;
    std::int64_t window = 0;
    std::int32_t rope = -1;  // which of ropes_; -1: nothing rotates
  };
  /// One rotary embedding and the angles of the step's positions, computed once a step for all its layers.
  struct StepRope {
    ops::Rope rope;
    std::int64_t rotary_dim = 0;
    float* angles = nullptr;  // (rows, rotary_dim), in backend memory; sized by reserve()
  };

  Decoder(const DecoderSpec& spec, ops::Backend& backend) : spec_(spec), backend_(backend) {}
  static Result<Layer> load_layer(WeightLoader& loader, const LayerSpec& layer, std::int64_t head_dim);
  std::int64_t max_cols() const;
  std::int64_t angle_cols() const;
  ops::StepRoom room_for(const StepLimits& limits) const;
  void get_on() { progress_.fetch_add(1, std::memory_order_relaxed); }
  void run_step(const ops::Batch& batch, const ops::KvCacheView& cache, const StepWants& wants);

  DecoderSpec spec_;
  ops::Backend& backend_;
  std::shared_ptr<const ops::PackedWeight> embedding_;
  std::vector<Layer> layers_;
  ops::Linear head_;
  std::vector<StepRope> ropes_;
  StepRope no_rope_;                                       // of layers in which nothing rotates
  std::shared_ptr<const ops::DeviceVector> alibi_slopes_;  // (heads) or null
  std::int64_t weight_bytes_ = 0;
  std::atomic<std::int64_t> progress_ = 0;

  // Activations of a step, in backend memory; sized by reserve().
  StepLimits limits_;
  float* x_ = nullptr;         // (rows, hidden) residual stream
  float* q_ = nullptr;         // (rows, heads, head_dim)
  float* attended_ = nullptr;  // (rows, heads, head_dim)
  float* mlp_ = nullptr;       // (rows, intermediate)
  float* logits_ = nullptr;    // (output_rows, vocab)
  float* hidden_ = nullptr;    // (output_rows, hidden)
};

/// Inverse frequencies (rotary_dim / 2) of a rope, after its scaling, and the factor on cosines and sines:
/// Transformers' modeling_rope_utils.
struct RopeFrequencies {
  std::vector<float> inverse;
  float scale = 1.0F;
};
RopeFrequencies rope_frequencies(const RopeSpec& rope, std::int64_t max_position, std::int64_t session_len);

}  // namespace lanner::model
