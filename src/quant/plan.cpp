#include "quant/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <string_view>

#include "model/decoder_config.h"
#include "model/group_quantization.h"
#include "quant/smoothing.h"

namespace lanner::quant {

std::int64_t largest_group_size(const model::DecoderSpec& spec, std::int64_t most) {
  const auto fits = [&](std::int64_t group) {
    return group <= most && std::ranges::all_of(spec.layers, [&](const model::LayerSpec& layer) {
             return std::ranges::all_of(linear_tensors(layer),
                                        [&](const LinearTensor& linear) { return linear.cols % group == 0; });
           });
  };
  const auto* found = std::ranges::find_if(kGroupSizes, fits);
  return found == std::end(kGroupSizes) ? 0 : *found;
}

Result<model::DecoderSpec> read_plain_spec(const model::Checkpoint& checkpoint) {
  const std::string& path = checkpoint.path();
  if (checkpoint.kind() != model::CheckpointKind::kFolder || checkpoint.is_packed()) {
    return unsupported(fmt::format("{}: only a Hugging Face folder can be calibrated or quantized", path));
  }
  // A quantized matrix has no tensor of its name, and unpacking it would take long.
  if (checkpoint.config().contains("quantization_config")) {
    return unsupported(fmt::format("{}: is quantized already", path));
  }
  return model::read_decoder_spec(checkpoint);
}

Result<Plan> make_plan(const model::Checkpoint& checkpoint, Method method, const Grouping& grouping) {
  Plan plan{.method = method, .grouping = grouping};
  LANNER_ASSIGN_OR_RETURN(plan.spec, read_plain_spec(checkpoint));
  for (const model::LayerSpec& layer : plan.spec.layers) {
    for (const LinearTensor& linear : linear_tensors(layer)) {
      const auto wrong = [&](std::string_view why) {
        return fmt::format("{}: {}: {}", checkpoint.path(), linear.name, why);
      };
      if (method == Method::kSmoothQuant) {
        if (linear.cols % model::kSmallestGroup == 0) continue;
        return unsupported(wrong(
            fmt::format("{} columns; weights of 8 bits need a multiple of {}", linear.cols, model::kSmallestGroup)));
      }
      if (linear.rows % kCodesOfWord != 0) {
        return unsupported(wrong(fmt::format("{} rows; 4 bits need a multiple of {}", linear.rows, kCodesOfWord)));
      }
      if (linear.cols % grouping.size != 0) {
        return invalid_argument(
            wrong(fmt::format("groups of {} do not fit its {} columns", grouping.size, linear.cols)));
      }
    }
  }
  return plan;
}

}  // namespace lanner::quant
