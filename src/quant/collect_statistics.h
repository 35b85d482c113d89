#pragma once
// `lanner lite calibrate`: the files that LMDeploy's step of that name leaves behind, as torch.save writes them.
//
//   inputs_stats.pth   {"max", "min", "mean", "absmax", "absmean": {LINEAR: (input channels)}}, and of a search for
//                      scales "ratios": {LINEAR: a number, or None where nothing is smoothed}
//   outputs_stats.pth  the same of the products, bias included: {LINEAR: (output channels)}, and of norms: those in
//                      front of attention and MLP, and the last one: {NORM: (hidden)}
//   key_stats.pth, value_stats.pth  {"max", "min", "absmax": {LAYER: (KV heads, head_dim)}}, of keys after their
//                      rotation. LMDeploy's up to 0.3
//
// Names are those of the modules in Hugging Face's model, such as model.layers.0.mlp.up_proj. Numbers are fp16, or fp32
// where one of a tensor does not fit. They are of all tokens of all samples, computed by the engine's own decoder;
// means are not rounded on the way, as LMDeploy's are.

#include "lanner/status.h"
#include "model/checkpoint.h"
#include "model/decoder_spec.h"
#include "quant/smoothing_run.h"

namespace lanner::quant {

/// The destination then holds these four files. `spec`: of read_plain_spec(). kInvalidArgument where there are no
/// windows.
Status collect_statistics(const model::Checkpoint& checkpoint, const model::DecoderSpec& spec,
                          const SmoothingOptions& options);

}  // namespace lanner::quant
