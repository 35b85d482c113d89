#include "quant/rounded_layer.h"

#include <utility>
#include <vector>

#include "core/mapped_file.h"
#include "model/safetensors.h"

namespace lanner::quant {

Result<model::TensorMap> open_rounded_layer(const std::string& path) {
  LANNER_ASSIGN_OR_RETURN(const auto file, MappedFile::open(path));
  LANNER_ASSIGN_OR_RETURN(std::vector<model::StoredTensor> tensors,
                          model::parse_safetensors(file->bytes(), file, path));
  model::TensorMap map;
  for (model::StoredTensor& tensor : tensors) map.emplace(tensor.name, std::move(tensor));
  return map;
}

Result<ops::WeightSource> RoundedCheckpoint::matrix(std::string_view name, std::int64_t rows, std::int64_t cols) const {
  const std::string_view module = model::module_of(name);
  if (!tensors_.contains(std::string(module) + ".qweight")) return ForwardingCheckpoint::matrix(name, rows, cols);
  LANNER_ASSIGN_OR_RETURN(const model::QuantizedTensors found,
                          model::find_quantized(tensors_, module, rows, cols, quantization_, path()));
  return model::unpack_quantized(found, quantization_, path());
}

}  // namespace lanner::quant
