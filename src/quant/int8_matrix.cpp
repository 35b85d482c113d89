#include "quant/int8_matrix.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "quant/packed_matrix.h"
#include "quant/share_out.h"

namespace lanner::quant {
namespace {

constexpr float kMostInt8 = 127.0F;

float scale_of(std::span<const float> row) {
  float most = 0;
  for (const float value : row) most = std::max(most, std::fabs(value));
  const float scale = most / kMostInt8;
  return scale == 0 ? 1.0F : scale;
}

float int8_code(float value, float scale) { return std::clamp(std::nearbyint(value / scale), -kMostInt8, kMostInt8); }

/// Row `row` after smoothing, whose scale is returned.
Result<float> read_row(const DenseRows& matrix, const TensorFactors& factors, std::int64_t row,
                       std::span<float> values) {
  LANNER_RETURN_IF_ERROR(read_smoothed(matrix, factors, row, values));
  const float scale = scale_of(values);
  if (!std::isfinite(scale)) return corrupt(fmt::format("{}: weights are too large for fp32", matrix.where()));
  return scale;
}

}  // namespace

Result<Int8Matrix> round_int8(const DenseRows& matrix, const TensorFactors& factors, ThreadPool& pool) {
  const auto cols = static_cast<std::size_t>(matrix.cols());
  Int8Matrix result;
  result.codes.resize(static_cast<std::size_t>(matrix.rows()) * cols);
  result.scales.resize(static_cast<std::size_t>(matrix.rows()));
  const auto round = [&](std::int64_t row, std::span<float> values) -> Status {
    LANNER_ASSIGN_OR_RETURN(const float scale, read_row(matrix, factors, row, values));
    result.scales[static_cast<std::size_t>(row)] = scale;
    std::int8_t* codes = result.codes.data() + static_cast<std::size_t>(row) * cols;
    for (std::size_t i = 0; i < cols; ++i) codes[i] = static_cast<std::int8_t>(int8_code(values[i], scale));
    return {};
  };
  const Status status = share_out(pool, matrix.rows(), [&](std::int64_t begin, std::int64_t end) -> Status {
    std::vector<float> values(cols);
    for (std::int64_t row = begin; row < end; ++row) LANNER_RETURN_IF_ERROR(round(row, values));
    return {};
  });
  if (!status.ok()) return status;
  return result;
}

Result<std::vector<float>> int8_weights(const DenseRows& matrix, std::span<const float> scales, ThreadPool& pool) {
  const auto cols = static_cast<std::size_t>(matrix.cols());
  const TensorFactors factors{.multiply_columns = {scales.begin(), scales.end()}, .divide_rows = {}};
  std::vector<float> result(static_cast<std::size_t>(matrix.rows()) * cols);
  const Status status = share_out_rows(pool, matrix.rows(), [&](std::int64_t r) -> Status {
    const std::span<float> row(result.data() + static_cast<std::size_t>(r) * cols, cols);
    LANNER_ASSIGN_OR_RETURN(const float scale, read_row(matrix, factors, r, row));
    for (std::size_t i = 0; i < cols; ++i) row[i] = int8_code(row[i], scale) * scale / scales[i];
    return {};
  });
  if (!status.ok()) return status;
  return result;
}

std::vector<model::TensorHeader> int8_headers(const std::string& module, std::int64_t rows, std::int64_t cols) {
  return {tensor_header(module + ".weight", "I8", {rows, cols}), tensor_header(module + ".scale", "F32", {rows, 1})};
}

Status append_int8(const Int8Matrix& matrix, model::SafetensorsWriter& writer) {
  LANNER_RETURN_IF_ERROR(writer.append(std::as_bytes(std::span(matrix.codes))));
  return writer.append(std::as_bytes(std::span(matrix.scales)));
}

}  // namespace lanner::quant
