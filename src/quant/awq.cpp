#include "quant/awq.h"

#include "quant/awq_matrix.h"
#include "quant/packed_matrix.h"

namespace lanner::quant {
namespace {

class AwqRun final : public SmoothingRun {
 public:
  using SmoothingRun::SmoothingRun;

 private:
  Result<std::vector<float>> rounded(const DenseRows& matrix, std::span<const float> scales) override {
    return rounded_weights(matrix, scales, plan().grouping, pool());
  }
  Status write_rounded(const DenseRows& matrix, const TensorFactors& factors,
                       model::SafetensorsWriter& writer) override {
    LANNER_ASSIGN_OR_RETURN(const PackedMatrix packed, round_awq(matrix, factors, plan().grouping, pool()));
    return append_packed(packed, writer);
  }
};

}  // namespace

Result<Outcome> quantize_awq(const model::Checkpoint& checkpoint, const Plan& plan, const SmoothingOptions& options) {
  return run_smoothed<AwqRun>(checkpoint, plan, options);
}

}  // namespace lanner::quant
