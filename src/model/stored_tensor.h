#pragma once
// A named tensor as it lies in a mapped file of a model folder, whatever the container: safetensors, or PyTorch's zip.
//
// Its bytes are those of its shape and dtype: whoever makes one has checked that. They stay valid as long as any copy
// of `owner` lives.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ops/weight_source.h"

namespace lanner::model {

struct StoredTensor {
  std::string name;
  std::string dtype;  // as safetensors spells it, such as BF16
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner;
};

using TensorMap = std::map<std::string, StoredTensor, std::less<>>;

/// The most tensors of one file.
inline constexpr std::int64_t kMaxTensors = 200'000;
inline constexpr std::size_t kMaxDimensions = 8;

/// Bytes of one element; nothing for an unknown dtype.
std::optional<std::int64_t> dtype_bytes(std::string_view dtype);

/// The dense format of a dtype that can be computed with: F32, F16, BF16.
std::optional<ops::WeightFormat> dense_format(std::string_view dtype);

/// Bytes of a tensor of non-negative sizes; nothing where they do not fit 64 bits.
std::optional<std::int64_t> bytes_of_shape(std::span<const std::int64_t> shape, std::int64_t element_bytes);

}  // namespace lanner::model
