#pragma once
// From names in a DecoderSpec to packed weights on a backend. Used by Decoder::load, and by calibration for
// products of its own.

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lanner/status.h"
#include "model/checkpoint.h"
#include "model/decoder_spec.h"
#include "ops/backend.h"

namespace lanner::model {

/// Reads tensors, brings them into the order that the decoder computes in, packs them, and counts what has been done.
class WeightLoader {
 public:
  /// Borrows all of them. `progress` may be empty.
  WeightLoader(const Checkpoint& checkpoint, const DecoderSpec& spec, ops::Backend& backend, ops::Arithmetic arithmetic,
               const std::function<void(double)>& progress);

  /// What is on the backend so far.
  std::int64_t weight_bytes() const { return weight_bytes_; }

  Result<std::shared_ptr<const ops::PackedWeight>> embedding();
  /// The final norm and the head, with what is done to the logits. `embedding` is shared where they are tied.
  Result<ops::Linear> head(const std::shared_ptr<const ops::PackedWeight>& embedding);
  /// A Linear over these projections behind a norm (none where it is empty).
  Result<ops::Linear> linear(const NormSpec& norm, std::initializer_list<const ProjectionSpec*> projections);
  /// One whose product is added to the residual stream, through a norm where there is one.
  Result<ops::Linear> residual_linear(const ProjectionSpec& projection, const NormSpec& post_norm);
  Result<ops::Norm> norm(const NormSpec& norm, std::int64_t size);
  Result<std::shared_ptr<const ops::DeviceVector>> upload(std::span<const double> values);

 private:
  Result<ops::WeightSource> source(const ProjectionSpec& projection);
  /// Widens a matrix whose columns are in an order of their own. kCorrupt where it is packed already: the converter
  /// has left none to undo.
  Status undo_input_order(const std::string& name, ops::WeightSource& source) const;
  Result<std::shared_ptr<const ops::PackedWeight>> pack(const std::string& name, ops::WeightSource source);
  Result<std::shared_ptr<const ops::DeviceVector>> upload(const std::vector<float>& values);
  Result<std::shared_ptr<const ops::DeviceVector>> bias(const ProjectionSpec& projection);

  const Checkpoint& checkpoint_;
  const DecoderSpec& spec_;
  ops::Backend& backend_;
  ops::Arithmetic arithmetic_;
  const std::function<void(double)>& progress_;
  std::int64_t total_ = 0;
  std::int64_t done_ = 0;
  std::int64_t weight_bytes_ = 0;
  bool quantized_layers_ = false;  // whether a matrix of a layer was
  // The tensor that the last slice came from, so that q, k and v unpack theirs once. Empty between Linears.
  std::string sliced_name_;
  ops::WeightSource sliced_;
};

}  // namespace lanner::model
