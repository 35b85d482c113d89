#pragma once
// The GGUF container, versions 2 and 3, little-endian: typed metadata, a table of tensors, their bytes.
//
// parse_gguf() accepts a file only when every count, length, offset and extent in it fits the file and no two
// tensors share a byte. Strings, arrays and tensors are views into the file: they live as long as its bytes.
//
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "lanner/status.h"

namespace lanner::model {

/// Numbered as in the file.
enum class GgufType : std::uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

/// An array as it lies in the file: `count` elements of `element`, checked to be inside `bytes`.
struct GgufArray {
  GgufType element = GgufType::kU8;
  std::int64_t count = 0;
  std::span<const std::byte> bytes;
};

struct GgufValue {
  GgufType type = GgufType::kU8;
  // unsigned kinds, signed kinds, F32 and F64, Bool, String, Array
  std::variant<std::uint64_t, std::int64_t, double, bool, std::string_view, GgufArray> value;
};

/// A tensor type of ggml and the blocks that a row is cut into.
struct GgmlType {
  std::uint32_t id = 0;  // as in the file
  std::string_view name;
  std::int64_t block_elements = 1;
  std::int64_t block_bytes = 0;
};

struct GgufTensor {
  GgmlType type;
  std::vector<std::int64_t> shape;  // outermost first, as in safetensors; in the file it is the other way round
  std::span<const std::byte> bytes;
};

struct Gguf {
  std::string path;
  std::uint32_t version = 0;
  std::map<std::string, GgufValue, std::less<>> metadata;
  std::span<const std::byte> metadata_bytes;  // all of it as it lies in the file
  std::map<std::string, GgufTensor, std::less<>> tensors;
};

Result<Gguf> parse_gguf(std::span<const std::byte> file, std::string_view path);

/// The value of a key when it is there and of this kind, else null.
template <typename T>
const T* metadata_value(const Gguf& gguf, std::string_view key) {
  const auto found = gguf.metadata.find(key);
  return found == gguf.metadata.end() ? nullptr : std::get_if<T>(&found->second.value);
}

/// The elements of an array of strings, or of integers that fit 64 bits; kCorrupt for another kind of array.
Result<std::vector<std::string_view>> gguf_strings(const GgufArray& array, std::string_view where);
Result<std::vector<std::int64_t>> gguf_integers(const GgufArray& array, std::string_view where);

/// The numbers of types that this build can compute with.
namespace ggml {
inline constexpr std::uint32_t kF32 = 0, kF16 = 1, kQ4_0 = 2, kQ4_1 = 3, kQ5_0 = 6, kQ5_1 = 7, kQ8_0 = 8, kQ4_K = 12,
                               kQ5_K = 13, kQ6_K = 14, kBF16 = 30;
}  // namespace ggml

}  // namespace lanner::model
