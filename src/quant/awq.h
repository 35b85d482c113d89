#pragma once
// `lanner lite auto_awq`: calibration (calibration.h) gives the scales of smoothing (smoothing.h), layer by layer; then
// tensor by tensor is smoothed, rounded and packed (awq_matrix.h). plan.h says how it is called.

#include "lanner/status.h"
#include "model/checkpoint.h"
#include "quant/plan.h"
#include "quant/smoothing_run.h"

namespace lanner::quant {

/// The plan is one of Method::kAwq.
Result<Outcome> quantize_awq(const model::Checkpoint& checkpoint, const Plan& plan, const SmoothingOptions& options);

}  // namespace lanner::quant
