#include "quant/dense_rows.h"

#include <fmt/format.h>

#include <utility>

#include "core/check.h"
#include "model/tensor_view.h"
#include "quant/smoothing.h"

namespace lanner::quant {

Result<DenseRows> DenseRows::open(const model::Checkpoint& checkpoint, const LinearTensor& tensor) {
  LANNER_ASSIGN_OR_RETURN(ops::WeightSource source, checkpoint.matrix(tensor.name, tensor.rows, tensor.cols));
  std::string where = fmt::format("{}: {}", checkpoint.path(), tensor.name);
  if (source.dense == nullptr) return unsupported(fmt::format("{}: is quantized already", where));
  return DenseRows(std::move(where), std::move(source));
}

Status DenseRows::read(std::int64_t row, std::span<float> values) const {
  LANNER_CHECK(row >= 0 && row < source_.rows && static_cast<std::int64_t>(values.size()) == source_.cols);
  const std::int64_t element = source_.format == ops::WeightFormat::kF32 ? 4 : 2;
  return model::widen_into(where_, source_.format, source_.dense + row * source_.cols * element, values);
}

}  // namespace lanner::quant
