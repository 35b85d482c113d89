#include "model/torch_file.h"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "core/checked.h"
#include "model/json_reader.h"
#include "model/pickle.h"
#include "model/tensor_view.h"
#include "model/zip_archive.h"

namespace lanner::model {
namespace {

// How a file of before PyTorch 1.6 begins: a pickle of a number.
constexpr std::array<unsigned char, 14> kOldMagic{0x80, 2,    0x8A, 10,   0x6C, 0xFC, 0x9C,
                                                  0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19};

Status not_a_zip(std::span<const std::byte> file, std::string_view path) {
  if (file.size() >= kOldMagic.size() && std::memcmp(file.data(), kOldMagic.data(), kOldMagic.size()) == 0) {
    return unsupported(
        fmt::format("{}: is in PyTorch's format of before version 1.6; write it anew, best as safetensors: "
                    "safetensors.torch.save_file(torch.load(FILE, weights_only=True), \"model.safetensors\")",
                    path));
  }
  return corrupt(fmt::format("{}: is not a file of torch.save", path));
}

/// What is named DIRECTORY/rest in the archive, whose entries all share one directory.
class Archive {
 public:
  static Result<Archive> open(std::span<const std::byte> file, std::string_view path) {
    if (file.size() < 4 || std::memcmp(file.data(), "PK\3\4", 4) != 0) return not_a_zip(file, path);
    Archive archive;
    LANNER_ASSIGN_OR_RETURN(archive.entries_, read_stored_zip(file, path));
    if (archive.entries_.empty()) return corrupt(fmt::format("{}: is an empty archive", path));
    const std::string& first = archive.entries_.begin()->first;
    archive.directory_ = first.substr(0, first.find('/') + 1);
    return archive;
  }

  std::optional<std::span<const std::byte>> find(std::string_view name) const {
    const auto found = entries_.find(directory_ + std::string(name));
    if (found == entries_.end()) return std::nullopt;
    return found->second;
  }

 private:
  ZipEntries entries_;
  std::string directory_;  // with its '/'; empty where the first name has none
};

bool is_row_major(const PickledTensor& tensor) {
  std::int64_t step = 1;
  for (std::size_t i = tensor.shape.size(); i-- > 0;) {
    if (tensor.shape[i] != 1 && tensor.strides[i] != step) return false;
    step *= tensor.shape[i];  // fits: the caller has multiplied the sizes
  }
  return true;
}

Result<std::span<const std::byte>> storage_bytes(const Archive& archive, const PickledStorage& storage,
                                                 const std::string& where) {
  const auto bytes = archive.find("data/" + std::string(storage.key));
  if (!bytes) return corrupt(fmt::format("{}: the archive has no data/{}", where, printable(storage.key)));
  const std::int64_t element = storage.dtype.empty() ? 1 : *dtype_bytes(storage.dtype);
  const auto size = checked_multiply(storage.count, element);
  if (!size || static_cast<std::size_t>(*size) != bytes->size()) {
    return corrupt(fmt::format("{}: {} elements of {} bytes do not make the {} bytes of data/{}", where, storage.count,
                               element, bytes->size(), printable(storage.key)));
  }
  return *bytes;
}

Result<StoredTensor> place_tensor(const Archive& archive, const PickledTensor& pickled, const std::string& where) {
  StoredTensor tensor;
  tensor.name = pickled.name;
  tensor.dtype = pickled.dtype;
  tensor.shape = pickled.shape;
  LANNER_ASSIGN_OR_RETURN(const auto storage, storage_bytes(archive, pickled.storage, where));
  const std::int64_t element = *dtype_bytes(pickled.dtype);
  const auto bytes = bytes_of_shape(tensor.shape, element);
  const auto begin = checked_multiply(pickled.first, element);
  if (!bytes || !begin) return corrupt(fmt::format("{}: {} is too large", where, shape_text(tensor.shape)));
  if (*bytes == 0) return tensor;  // nowhere
  if (!is_row_major(pickled)) {
    return unsupported(fmt::format("{}: its strides {} are not those of row-major order; save it contiguous", where,
                                   shape_text(pickled.strides)));
  }
  const auto end = checked_add(*begin, *bytes);
  if (!end || static_cast<std::size_t>(*end) > storage.size()) {
    return corrupt(fmt::format("{}: {} elements from {} on reach past the {} bytes of its storage", where,
                               *bytes / element, pickled.first, storage.size()));
  }
  tensor.bytes = storage.subspan(static_cast<std::size_t>(*begin), static_cast<std::size_t>(*bytes));
  return tensor;
}

}  // namespace

Result<std::vector<StoredTensor>> parse_torch_file(std::span<const std::byte> file,
                                                   const std::shared_ptr<const void>& owner, std::string_view path) {
  LANNER_ASSIGN_OR_RETURN(const Archive archive, Archive::open(file, path));
  const auto order = archive.find("byteorder");
  if (order && std::string_view(reinterpret_cast<const char*>(order->data()), order->size()) != "little") {
    return unsupported(fmt::format("{}: byteorder: is not 'little'", path));
  }
  const auto pickle = archive.find("data.pkl");
  if (!pickle) return corrupt(fmt::format("{}: the archive has no data.pkl", path));
  LANNER_ASSIGN_OR_RETURN(const auto pickled, read_tensor_pickle(*pickle, fmt::format("{}: data.pkl", path)));
  std::vector<StoredTensor> tensors;
  for (const PickledTensor& entry : pickled) {
    LANNER_ASSIGN_OR_RETURN(auto tensor,
                            place_tensor(archive, entry, fmt::format("{}: {}", path, printable(entry.name))));
    tensor.owner = owner;
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

}  // namespace lanner::model
