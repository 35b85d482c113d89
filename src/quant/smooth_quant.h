#pragma once
// `lanner lite smooth_quant`: a Hugging Face folder of 8-bit weights (W8A8 int8) as LMDeploy's step of that name leaves
// it: smoothed as for AWQ, but with each row as one group of columns, then rounded row by row (int8_matrix.h). Inputs
// of products are rounded when the engine computes, as for all quantized weights. plan.h says how it is called.

#include "lanner/status.h"
#include "model/checkpoint.h"
#include "quant/plan.h"
#include "quant/smoothing_run.h"

namespace lanner::quant {

/// The plan is one of Method::kSmoothQuant.
Result<Outcome> quantize_smooth(const model::Checkpoint& checkpoint, const Plan& plan, const SmoothingOptions& options);

}  // namespace lanner::quant
