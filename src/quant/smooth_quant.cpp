#include "quant/smooth_quant.h"

#include "quant/dense_rows.h"
#include "quant/int8_matrix.h"

namespace lanner::quant {
namespace {

class SmoothQuantRun final : public SmoothingRun {
 public:
  using SmoothingRun::SmoothingRun;

 private:
  Result<std::vector<float>> rounded(const DenseRows& matrix, std::span<const float> scales) override {
    return int8_weights(matrix, scales, pool());
  }
  Status write_rounded(const DenseRows& matrix, const TensorFactors& factors,
                       model::SafetensorsWriter& writer) override {
    LANNER_ASSIGN_OR_RETURN(const Int8Matrix rounded, round_int8(matrix, factors, pool()));
    return append_int8(rounded, writer);
  }
};

}  // namespace

Result<Outcome> quantize_smooth(const model::Checkpoint& checkpoint, const Plan& plan,
                                const SmoothingOptions& options) {
  return run_smoothed<SmoothQuantRun>(checkpoint, plan, options);
}

}  // namespace lanner::quant
