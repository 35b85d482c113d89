#pragma once
// A rounded matrix in the words of AWQ's "gemm" version or of GPTQ's first format (model/group_quantization.h has
// both).

#include <cstdint>
#include <string>
#include <vector>

#include "lanner/status.h"
#include "model/safetensors_writer.h"
#include "quant/dense_rows.h"
#include "quant/group_rounding.h"

namespace lanner::quant {

inline constexpr std::int64_t kCodesOfWord = 8;

/// The methods by which a model is quantized, each with a form of its own.
enum class Method : std::uint8_t { kAwq, kGptq, kSmoothQuant };

/// "awq", "gptq" or "smooth_quant", as config.json calls it.
const char* method_name(Method method);

struct PackedMatrix {
  std::vector<std::uint32_t> codes;        // AWQ (cols, rows / 8), GPTQ (cols / 8, rows)
  std::vector<std::uint32_t> zeros;        // (cols / group, rows / 8)
  std::vector<std::uint16_t> scales;       // (cols / group, rows) fp16
  std::vector<std::uint32_t> group_index;  // GPTQ (cols), else empty
};

/// The tensors that hold such a matrix (rows, cols), in the order in which append_packed() writes them.
std::vector<model::TensorHeader> packed_headers(Method method, const std::string& module, std::int64_t rows,
                                                std::int64_t cols, std::int64_t group_size);

/// A tensor of that name, type and shape.
model::TensorHeader tensor_header(std::string name, std::string_view dtype, std::vector<std::int64_t> shape);

Status append_packed(const PackedMatrix& matrix, model::SafetensorsWriter& writer);

/// kCorrupt for a matrix of which a group has no scale in fp16.
Status too_large(const DenseRows& matrix);

}  // namespace lanner::quant
