#pragma once
// A tensor as it lies in a mapped file, after its shape and extent have been checked against each other.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lanner/status.h"
#include "ops/weight_source.h"

namespace lanner::model {

/// "(3, 4)", for messages.
std::string shape_text(std::span<const std::int64_t> shape);

/// kCorrupt unless `shape` is `wanted`; `where` names the file and the tensor.
Status check_shape(std::string_view where, std::span<const std::int64_t> shape, std::span<const std::int64_t> wanted);

/// `count` elements of a dense `format`, widened to fp32; kCorrupt when one is not finite.
Result<std::vector<float>> widen(std::string_view where, ops::WeightFormat format, const std::byte* data,
                                 std::int64_t count);

/// The same, of as many elements as `out` holds.
Status widen_into(std::string_view where, ops::WeightFormat format, const std::byte* data, std::span<float> out);

/// A matrix that points at the bytes where they lie.
ops::WeightSource dense_matrix(ops::WeightFormat format, const std::byte* data, std::int64_t rows, std::int64_t cols,
                               std::shared_ptr<const void> owner);

}  // namespace lanner::model
