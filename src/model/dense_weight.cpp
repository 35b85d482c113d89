#include "model/dense_weight.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "core/check.h"
#include "core/float16.h"

namespace lanner::model {
namespace {

/// One row, widened, in the order of its codes.
void read_row(const ops::WeightSource& source, std::int64_t row, std::span<float> out) {
  const auto cols = static_cast<std::size_t>(source.cols);
  const std::size_t first = static_cast<std::size_t>(row) * cols;
  for (std::size_t i = 0; i < cols; ++i) {
    const std::size_t at = first + i;
    if (ops::is_quantized(source.format)) {
      const std::size_t group = at / static_cast<std::size_t>(source.group);
      const int code = source.format == ops::WeightFormat::kInt8 ? static_cast<std::int8_t>(source.codes[at])
                                                                 : static_cast<int>(source.codes[at]);
      const float offset = source.offsets.empty() ? 0.0F : source.offsets[group];
      out[i] = source.scales[group] * static_cast<float>(code) + offset;
    } else if (source.format == ops::WeightFormat::kF32) {
      std::memcpy(&out[i], source.dense + 4 * at, 4);
    } else {
      std::uint16_t bits = 0;
      std::memcpy(&bits, source.dense + 2 * at, 2);
      out[i] = source.format == ops::WeightFormat::kF16 ? to_float(Half{bits}) : to_float(BFloat16{bits});
    }
  }
}

float inverse_norm(std::span<const float> row) {
  double squares = 0.0;
  for (const float value : row) squares += static_cast<double>(value) * static_cast<double>(value);
  return squares > 0.0 ? static_cast<float>(1.0 / std::sqrt(squares)) : 1.0F;
}

template <typename T>
ops::WeightSource dense_source(ops::WeightFormat format, const ops::WeightSource& like, std::vector<T> values) {
  ops::WeightSource result;
  result.format = format;
  result.rows = like.rows;
  result.cols = like.cols;
  auto owner = std::make_shared<const std::vector<T>>(std::move(values));
  result.dense = reinterpret_cast<const std::byte*>(owner->data());
  result.owner = std::move(owner);
  return result;
}

}  // namespace

ops::WeightSource widened(const ops::WeightSource& source) {
  LANNER_CHECK(source.packed == nullptr);
  const auto cols = static_cast<std::size_t>(source.cols);
  std::vector<float> values(static_cast<std::size_t>(source.rows) * cols);
  std::vector<float> row(cols);
  for (std::int64_t r = 0; r < source.rows; ++r) {
    read_row(source, r, row);
    float* const out = values.data() + static_cast<std::size_t>(r) * cols;
    for (std::size_t i = 0; i < cols; ++i) {
      out[source.input_order.empty() ? i : static_cast<std::size_t>(source.input_order[i])] = row[i];
    }
  }
  return dense_source(ops::WeightFormat::kF32, source, std::move(values));
}

ops::WeightSource with_unit_rows(ops::WeightSource source) {
  const auto cols = static_cast<std::size_t>(source.cols);
  const auto rows = static_cast<std::size_t>(source.rows);
  const bool quantized = ops::is_quantized(source.format);
  const bool half = !quantized && source.format != ops::WeightFormat::kF32;
  std::vector<float> row(cols);
  std::vector<float> values(quantized || half ? 0 : rows * cols);
  std::vector<Half> halves(half ? rows * cols : 0);
  for (std::size_t r = 0; r < rows; ++r) {
    read_row(source, static_cast<std::int64_t>(r), row);
    const float factor = inverse_norm(row);
    if (quantized) {
      const std::size_t groups = cols / static_cast<std::size_t>(source.group);
      for (std::size_t g = r * groups; g < (r + 1) * groups; ++g) {
        source.scales[g] *= factor;
        if (!source.offsets.empty()) source.offsets[g] *= factor;
      }
    }
    for (std::size_t i = 0; i < cols && !quantized; ++i) {
      if (half) {
        halves[r * cols + i] = to_half(row[i] * factor);
      } else {
        values[r * cols + i] = row[i] * factor;
      }
    }
  }
  if (quantized) return source;
  if (half) return dense_source(ops::WeightFormat::kF16, source, std::move(halves));
  return dense_source(ops::WeightFormat::kF32, source, std::move(values));
}

}  // namespace lanner::model
