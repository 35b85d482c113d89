// Any bytes as a safetensors file: refused, or every tensor lies inside the file and can be read.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "model/safetensors.h"
#include "model/tensor_view.h"

using namespace lanner::model;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
  const auto tensors = parse_safetensors(file, nullptr, "fuzz");
  if (!tensors.ok()) {
    if (tensors.status().message().find('\n') != std::string::npos) std::abort();  // errors are one line
    return 0;
  }
  std::size_t covered = 0;
  for (const StoredTensor& tensor : *tensors) {
    covered += tensor.bytes.size();
    const auto format = dense_format(tensor.dtype);
    if (!format) continue;
    const bool empty = std::ranges::find(tensor.shape, 0) != tensor.shape.end();
    std::int64_t count = empty ? 0 : 1;
    if (!empty) {
      for (const std::int64_t dimension : tensor.shape) count *= dimension;
    }
    const auto element = *format == lanner::ops::WeightFormat::kF32 ? 4 : 2;
    if (count * element != static_cast<std::int64_t>(tensor.bytes.size())) std::abort();
    (void)widen("fuzz", *format, tensor.bytes.data(), count).ok();
  }
  if (covered > size) std::abort();
  return 0;
}
