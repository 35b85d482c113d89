#pragma once
// Writes files as torch.save does (torch_file.h has the format): a dict of dicts of tensors and numbers, which
// torch.load reads with weights_only=True.
//
//   TorchTable table;
//   table.push_back({"max", {{"model.layers.0.mlp.up_proj", torch_tensor(values, {576})}}});
//   LANNER_RETURN_IF_ERROR(write_torch_file(path, table));

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "lanner/status.h"

namespace lanner::model {

struct TorchTensor {
  bool is_half = true;  // fp16, else fp32
  std::vector<std::int64_t> shape;
  std::string bytes;  // row major, of that type and shape
};

/// None, a number or a tensor.
using TorchValue = std::variant<std::monostate, double, TorchTensor>;
using TorchDict = std::vector<std::pair<std::string, TorchValue>>;
using TorchTable = std::vector<std::pair<std::string, TorchDict>>;

/// In fp16, or in fp32 where one of the numbers is too large for it.
TorchTensor torch_tensor(std::span<const float> values, std::vector<std::int64_t> shape);

/// All of it lies in memory twice meanwhile. kUnsupported for more tensors or bytes than a plain zip file holds.
Status write_torch_file(const std::string& path, const TorchTable& table);

}  // namespace lanner::model
