#pragma once
// The matrices of a layer that have been rounded, in a safetensors file under the names that the folder will give them,
// and a checkpoint that has them in the place of the ones they were made of.

#include <memory>
#include <string>

#include "lanner/status.h"
#include "model/checkpoint.h"
#include "model/forwarding_checkpoint.h"
#include "model/group_quantization.h"
#include "model/stored_tensor.h"

namespace lanner::quant {

/// The tensors of such a file, which stays mapped as long as one of them lives.
Result<model::TensorMap> open_rounded_layer(const std::string& path);

/// Reads rounded matrices as the engine reads those of a folder. Borrows the checkpoint.
class RoundedCheckpoint final : public model::ForwardingCheckpoint {
 public:
  RoundedCheckpoint(const model::Checkpoint& source, model::TensorMap tensors,
                    const model::GroupQuantization& quantization)
      : ForwardingCheckpoint(source), tensors_(std::move(tensors)), quantization_(quantization) {}

  Result<ops::WeightSource> matrix(std::string_view name, std::int64_t rows, std::int64_t cols) const override;

 private:
  const model::TensorMap tensors_;
  const model::GroupQuantization quantization_;
};

}  // namespace lanner::quant
