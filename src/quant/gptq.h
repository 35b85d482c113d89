#pragma once
// `lanner lite auto_gptq`: layer by layer, calibration (calibration.h) gives the Hessian of what each product reads
// (hessian.h), by which its matrices are rounded (gptq_matrix.h); the next layer then reads what the rounded one
// computes. plan.h says how it is called.
//
// In memory are, besides a layer's weights, the Hessians of its four inputs: half of 4 * n^2 bytes for n channels.

#include "lanner/status.h"
#include "model/checkpoint.h"
#include "quant/plan.h"

namespace lanner::quant {

/// The plan is one of Method::kGptq, and symmetric.
Result<Outcome> quantize_gptq(const model::Checkpoint& checkpoint, const Plan& plan, const Options& options);

}  // namespace lanner::quant
