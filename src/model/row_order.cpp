#include "model/row_order.h"

#include <cstring>
#include <memory>
#include <utility>

#include "core/check.h"

namespace lanner::model {
namespace {

std::int64_t dense_row_bytes(const ops::WeightSource& source) {
  return source.cols * (source.format == ops::WeightFormat::kF32 ? 4 : 2);
}

bool are_neighbours(std::span<const std::int64_t> rows) {
  for (std::size_t i = 1; i < rows.size(); ++i) {
    if (rows[i] != rows[i - 1] + 1) return false;
  }
  return true;
}

void copy_rows(const std::byte* in, std::byte* out, std::span<const std::int64_t> rows, std::int64_t row_bytes) {
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(out + static_cast<std::int64_t>(i) * row_bytes, in + rows[i] * row_bytes,
                static_cast<std::size_t>(row_bytes));
  }
}

/// Of a tensor whose `tensor_rows` rows have the same number of values each.
template <typename T>
std::vector<T> gathered(const std::vector<T>& values, std::int64_t tensor_rows, std::span<const std::int64_t> rows) {
  const auto width = static_cast<std::int64_t>(values.size()) / tensor_rows;
  std::vector<T> result(rows.size() * static_cast<std::size_t>(width));
  if (result.empty()) return result;
  copy_rows(reinterpret_cast<const std::byte*>(values.data()), reinterpret_cast<std::byte*>(result.data()), rows,
            width * static_cast<std::int64_t>(sizeof(T)));
  return result;
}

}  // namespace

std::int64_t tensor_rows(const ProjectionSpec& projection) {
  return projection.slice ? projection.slice->tensor_rows : projection.rows;
}

std::vector<std::int64_t> rows_in_tensor(const ProjectionSpec& projection) {
  const bool pairwise = projection.row_order == RowOrder::kPairwiseRope;
  const std::int64_t head_dim = pairwise ? projection.rows / projection.heads : projection.rows;
  const std::int64_t middle = pairwise ? projection.rotary_dim / 2 : 0;
  std::vector<std::int64_t> rows;
  rows.reserve(static_cast<std::size_t>(projection.rows));
  for (std::int64_t row = 0; row < projection.rows; ++row) {
    const std::int64_t in_head = row % head_dim;
    std::int64_t from = row;
    if (in_head < 2 * middle) from += 2 * (in_head % middle) + in_head / middle - in_head;
    if (const auto& slice = projection.slice) {
      from = slice->first + from / slice->block_rows * slice->stride + from % slice->block_rows;
    }
    rows.push_back(from);
  }
  return rows;
}

ops::WeightSource gather_rows(const ops::WeightSource& tensor, std::span<const std::int64_t> rows) {
  LANNER_CHECK(!rows.empty());
  ops::WeightSource result;
  result.format = tensor.format;
  result.rows = static_cast<std::int64_t>(rows.size());
  result.cols = tensor.cols;
  result.input_order = tensor.input_order;
  if (ops::is_quantized(tensor.format)) {
    result.group = tensor.group;
    result.codes = gathered(tensor.codes, tensor.rows, rows);
    result.scales = gathered(tensor.scales, tensor.rows, rows);
    result.offsets = gathered(tensor.offsets, tensor.rows, rows);
    return result;
  }
  const std::int64_t row_bytes = dense_row_bytes(tensor);
  if (are_neighbours(rows)) {
    result.dense = tensor.dense + rows.front() * row_bytes;
    result.owner = tensor.owner;
    return result;
  }
  auto copy = std::make_shared<std::vector<std::byte>>(rows.size() * static_cast<std::size_t>(row_bytes));
  copy_rows(tensor.dense, copy->data(), rows, row_bytes);
  result.dense = copy->data();
  result.owner = std::move(copy);
  return result;
}

std::vector<float> gather_rows(const std::vector<float>& bias, std::span<const std::int64_t> rows) {
  return gathered(bias, static_cast<std::int64_t>(bias.size()), rows);
}

}  // namespace lanner::model
