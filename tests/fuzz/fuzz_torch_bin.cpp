// Any bytes as a PyTorch file, and as the pickle in one: refused, or every tensor lies inside the file and can be read.

#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

#include "model/pickle.h"
#include "model/tensor_view.h"
#include "model/torch_file.h"

using namespace lanner::model;

namespace {

void check_message(const lanner::Status& status) {
  if (status.message().find('\n') != std::string::npos) std::abort();  // errors are one line
}

void read_tensor(const StoredTensor& tensor, std::span<const std::byte> file) {
  const auto element = dtype_bytes(tensor.dtype);
  if (!element || bytes_of_shape(tensor.shape, *element) != static_cast<std::int64_t>(tensor.bytes.size())) {
    std::abort();
  }
  if (tensor.bytes.empty()) return;
  if (tensor.bytes.data() < file.data() || tensor.bytes.data() + tensor.bytes.size() > file.data() + file.size()) {
    std::abort();
  }
  const auto format = dense_format(tensor.dtype);
  const auto count = static_cast<std::int64_t>(tensor.bytes.size()) / *element;
  // Many tensors may share a storage, which only costs time here.
  if (format && count < 4096) (void)widen("fuzz", *format, tensor.bytes.data(), count).ok();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
  const auto tensors = parse_torch_file(file, nullptr, "fuzz");
  if (tensors.ok()) {
    for (const StoredTensor& tensor : *tensors) read_tensor(tensor, file);
  } else {
    check_message(tensors.status());
  }
  // A mutated archive seldom reaches the pickle, so the same bytes are tried as one.
  check_message(read_tensor_pickle(file, "fuzz").status());
  return 0;
}
