#include "quant/packed_matrix.h"

#include <fmt/format.h>

#include <span>
#include <string_view>
#include <utility>

#include "model/stored_tensor.h"

namespace lanner::quant {

const char* method_name(Method method) {
  switch (method) {
    case Method::kAwq: return "awq";
    case Method::kGptq: return "gptq";
    case Method::kSmoothQuant: return "smooth_quant";
  }
  return "";
}

model::TensorHeader tensor_header(std::string name, std::string_view dtype, std::vector<std::int64_t> shape) {
  std::int64_t bytes = *model::dtype_bytes(dtype);
  for (const std::int64_t size : shape) bytes *= size;
  return {.name = std::move(name), .dtype = std::string(dtype), .shape = std::move(shape), .bytes = bytes};
}

std::vector<model::TensorHeader> packed_headers(Method method, const std::string& module, std::int64_t rows,
                                                std::int64_t cols, std::int64_t group_size) {
  const std::int64_t groups = cols / group_size;
  const bool awq = method == Method::kAwq;
  std::vector<model::TensorHeader> headers;
  headers.push_back(awq ? tensor_header(module + ".qweight", "I32", {cols, rows / kCodesOfWord})
                        : tensor_header(module + ".qweight", "I32", {cols / kCodesOfWord, rows}));
  headers.push_back(tensor_header(module + ".qzeros", "I32", {groups, rows / kCodesOfWord}));
  headers.push_back(tensor_header(module + ".scales", "F16", {groups, rows}));
  if (!awq) headers.push_back(tensor_header(module + ".g_idx", "I32", {cols}));
  return headers;
}

Status append_packed(const PackedMatrix& matrix, model::SafetensorsWriter& writer) {
  LANNER_RETURN_IF_ERROR(writer.append(std::as_bytes(std::span(matrix.codes))));
  LANNER_RETURN_IF_ERROR(writer.append(std::as_bytes(std::span(matrix.zeros))));
  LANNER_RETURN_IF_ERROR(writer.append(std::as_bytes(std::span(matrix.scales))));
  if (matrix.group_index.empty()) return {};
  return writer.append(std::as_bytes(std::span(matrix.group_index)));
}

Status too_large(const DenseRows& matrix) {
  return corrupt(fmt::format("{}: weights are too large for fp16", matrix.where()));
}

}  // namespace lanner::quant
