#include "model/row_quantization.h"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <vector>

#include "model/group_quantization.h"
#include "model/tensor_view.h"

namespace lanner::model {

bool is_row_quantized(const TensorMap& tensors, std::string_view name) {
  const auto found = tensors.find(name);
  return !module_of(name).empty() && found != tensors.end() && found->second.dtype == "I8";
}

Result<RowQuantizedTensors> find_row_quantized(const TensorMap& tensors, std::string_view name, std::int64_t rows,
                                               std::int64_t cols, const std::string& folder) {
  const auto where = [&](std::string_view tensor) { return fmt::format("{}: {}", folder, tensor); };
  const auto codes = tensors.find(name);
  if (codes == tensors.end()) return not_found(where(name) + ": is missing");
  if (codes->second.dtype != "I8") return unsupported(where(name) + ": dtype " + codes->second.dtype + ", not I8");
  const std::string scale = fmt::format("{}.scale", module_of(name));
  const auto scales = tensors.find(scale);
  if (scales == tensors.end()) return not_found(where(scale) + ": is missing");
  LANNER_RETURN_IF_ERROR(check_shape(where(name), codes->second.shape, std::array{rows, cols}));
  LANNER_RETURN_IF_ERROR(check_shape(where(scale), scales->second.shape, std::array{rows, std::int64_t{1}}));
  if (!dense_format(scales->second.dtype)) return unsupported(where(scale) + ": dtype " + scales->second.dtype);
  if (cols % kSmallestGroup != 0) {
    return unsupported(
        fmt::format("{}: {} columns; multiples of {} can be computed with", where(name), cols, kSmallestGroup));
  }
  return RowQuantizedTensors{.codes = &codes->second, .scales = &scales->second, .rows = rows, .cols = cols};
}

Result<ops::WeightSource> unpack_row_quantized(const RowQuantizedTensors& tensors, const std::string& folder) {
  ops::WeightSource source;
  source.format = ops::WeightFormat::kInt8;
  source.rows = tensors.rows;
  source.cols = tensors.cols;
  source.group = usable_group(tensors.cols);
  const std::string where = fmt::format("{}: {}", folder, tensors.scales->name);
  LANNER_ASSIGN_OR_RETURN(const std::vector<float> scales, widen(where, *dense_format(tensors.scales->dtype),
                                                                 tensors.scales->bytes.data(), tensors.rows));
  const auto groups = static_cast<std::size_t>(tensors.cols / source.group);
  source.scales.reserve(scales.size() * groups);
  for (const float scale : scales) source.scales.insert(source.scales.end(), groups, scale);
  source.codes.resize(tensors.codes->bytes.size());
  std::memcpy(source.codes.data(), tensors.codes->bytes.data(), source.codes.size());
  return source;
}

}  // namespace lanner::model
