#pragma once
// `lanner lite auto_awq`: calibration (calibration.h) gives the scales of smoothing (smoothing.h), layer by layer; then
// tensor by tensor is smoothed, rounded and packed (awq_matrix.h). plan.h says how it is called.

#include "lanner/status.h"
#include "model/checkpoint.h"
#include "quant/plan.h"

namespace lanner::quant {

struct AwqOptions : Options {
  bool search_scale = false;  // scale_search.h, with the first few windows
};

/// The plan is one of Method::kAwq.
Result<Outcome> quantize_awq(const model::Checkpoint& checkpoint, const Plan& plan, const AwqOptions& options);

}  // namespace lanner::quant
