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

/// Copies rows of `row_bytes` from `in` to `out` in the plain order.
void reorder_rows(const std::byte* in, std::byte* out, std::int64_t rows, std::int64_t heads, std::int64_t row_bytes) {
  LANNER_CHECK(heads > 0 && rows % heads == 0 && (rows / heads) % 2 == 0);
  const std::int64_t head_dim = rows / heads;
  const std::int64_t middle = head_dim / 2;
  for (std::int64_t head = 0; head < heads; ++head) {
    for (std::int64_t half = 0; half < 2; ++half) {
      for (std::int64_t i = 0; i < middle; ++i) {
        const std::int64_t to = head * head_dim + half * middle + i;
        const std::int64_t from = head * head_dim + 2 * i + half;
        std::memcpy(out + to * row_bytes, in + from * row_bytes, static_cast<std::size_t>(row_bytes));
      }
    }
  }
}

template <typename T>
std::vector<T> reordered(const std::vector<T>& values, std::int64_t rows, std::int64_t heads) {
  std::vector<T> result(values.size());
  if (values.empty()) return result;
  const auto row_bytes = static_cast<std::int64_t>(values.size() * sizeof(T)) / rows;
  reorder_rows(reinterpret_cast<const std::byte*>(values.data()), reinterpret_cast<std::byte*>(result.data()), rows,
               heads, row_bytes);
  return result;
}

}  // namespace

ops::WeightSource undo_pairwise_rope(ops::WeightSource source, std::int64_t heads) {
  if (ops::is_quantized(source.format)) {
    source.codes = reordered(source.codes, source.rows, heads);
    source.scales = reordered(source.scales, source.rows, heads);
    source.offsets = reordered(source.offsets, source.rows, heads);
    return source;
  }
  const std::int64_t row_bytes = dense_row_bytes(source);
  auto copy = std::make_shared<std::vector<std::byte>>(static_cast<std::size_t>(source.rows * row_bytes));
  reorder_rows(source.dense, copy->data(), source.rows, heads, row_bytes);
  source.dense = copy->data();
  source.owner = std::move(copy);
  return source;
}

std::vector<float> undo_pairwise_rope(const std::vector<float>& bias, std::int64_t heads) {
  return reordered(bias, static_cast<std::int64_t>(bias.size()), heads);
}

}  // namespace lanner::model
