#include "model/stored_tensor.h"

#include <algorithm>
#include <array>

#include "core/checked.h"

namespace lanner::model {
namespace {

struct DtypeSize {
  std::string_view name;
  std::int64_t bytes;
};

constexpr std::array<DtypeSize, 16> kDtypes{{{"F64", 8},
                                             {"F32", 4},
                                             {"F16", 2},
                                             {"BF16", 2},
                                             {"I64", 8},
                                             {"I32", 4},
                                             {"I16", 2},
                                             {"I8", 1},
                                             {"U64", 8},
                                             {"U32", 4},
                                             {"U16", 2},
                                             {"U8", 1},
                                             {"BOOL", 1},
                                             {"F8_E4M3", 1},
                                             {"F8_E5M2", 1},
                                             {"F8_E8M0", 1}}};

}  // namespace

std::optional<std::int64_t> dtype_bytes(std::string_view dtype) {
  const auto* found = std::ranges::find(kDtypes, dtype, &DtypeSize::name);
  if (found == kDtypes.end()) return std::nullopt;
  return found->bytes;
}

std::optional<ops::WeightFormat> dense_format(std::string_view dtype) {
  if (dtype == "F32") return ops::WeightFormat::kF32;
  if (dtype == "F16") return ops::WeightFormat::kF16;
  if (dtype == "BF16") return ops::WeightFormat::kBF16;
  return std::nullopt;
}

std::optional<std::int64_t> bytes_of_shape(std::span<const std::int64_t> shape, std::int64_t element_bytes) {
  std::optional<std::int64_t> bytes = element_bytes;
  // Zeros last: (2^62, 2^62, 0) has no elements, but a later product of its first two sizes would wrap.
  for (const std::int64_t size : shape) {
    if (bytes && size != 0) bytes = checked_multiply(*bytes, size);
  }
  if (!bytes) return std::nullopt;
  return std::ranges::find(shape, 0) != shape.end() ? 0 : *bytes;
}

}  // namespace lanner::model
