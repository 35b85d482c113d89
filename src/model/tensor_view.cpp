#include "model/tensor_view.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "core/check.h"
#include "core/float16.h"

namespace lanner::model {
namespace {

/// memcpy, because a file may place elements at any address.
template <typename T>
void widen_elements(const std::byte* data, std::span<float> out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    T element{};
    std::memcpy(&element, data + i * sizeof(T), sizeof(T));
    out[i] = to_float(element);
  }
}

}  // namespace

std::string shape_text(std::span<const std::int64_t> shape) { return fmt::format("({})", fmt::join(shape, ", ")); }

Status check_shape(std::string_view where, std::span<const std::int64_t> shape, std::span<const std::int64_t> wanted) {
  if (std::ranges::equal(shape, wanted)) return {};
  return corrupt(
      fmt::format("{}: has shape {}, the configuration asks for {}", where, shape_text(shape), shape_text(wanted)));
}

Status widen_into(std::string_view where, ops::WeightFormat format, const std::byte* data, std::span<float> out) {
  switch (format) {
    case ops::WeightFormat::kF32: widen_elements<float>(data, out); break;
    case ops::WeightFormat::kF16: widen_elements<Half>(data, out); break;
    case ops::WeightFormat::kBF16: widen_elements<BFloat16>(data, out); break;
    case ops::WeightFormat::kInt8:
    case ops::WeightFormat::kInt4: LANNER_CHECK(false);
  }
  if (!std::ranges::all_of(out, [](float value) { return std::isfinite(value); })) {
    return corrupt(fmt::format("{}: holds a value that is not finite", where));
  }
  return {};
}

Result<std::vector<float>> widen(std::string_view where, ops::WeightFormat format, const std::byte* data,
                                 std::int64_t count) {
  std::vector<float> out(static_cast<std::size_t>(count));
  LANNER_RETURN_IF_ERROR(widen_into(where, format, data, out));
  return out;
}

ops::WeightSource dense_matrix(ops::WeightFormat format, const std::byte* data, std::int64_t rows, std::int64_t cols,
                               std::shared_ptr<const void> owner) {
  ops::WeightSource source;
  source.format = format;
  source.rows = rows;
  source.cols = cols;
  source.dense = data;
  source.owner = std::move(owner);
  return source;
}

}  // namespace lanner::model
