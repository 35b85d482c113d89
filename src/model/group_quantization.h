#pragma once
// Weights of AWQ and GPTQ folders: integers of 4 bits (GPTQ also 8) in groups of input columns with a scale and a zero.
//
// A matrix X.weight of (rows, cols) = (output, input) features is kept as
//
//   X.qweight  I32  AWQ (cols, rows / 8): eight rows of a column in a word, in the order 0 2 4 6 1 3 5 7
//                   GPTQ (cols / n, rows): n columns of a row in a word, in order; n = 32 / bits
//   X.scales   F16 (or BF16, F32)  (groups, rows)
//   X.qzeros   I32  (groups, rows / n), in the same order within a word as AWQ's and GPTQ's qweight
//   X.g_idx    I32  (cols), GPTQ: the group of each column; not there: column / group size
//
// and means  weight = scale * (code - zero).  GPTQ's first format ("gptq") keeps whole words of zeros less one
// in each place, borrows between places included; "gptq_v2" and AWQ keep zeros as they are.
//
// What is made of it: codes as they are with offset = -scale * zero. With scales in fp16 or bf16 that product is exact
// in fp32, so nothing is lost. Groups of more than 128 columns become several of 128, 64 or 32 with the same scale.
// With g_idx out of order the columns are sorted by group (WeightSource::input_order).

#include <cstdint>
#include <string>
#include <string_view>

#include "lanner/status.h"
#include "model/checkpoint.h"
#include "model/json_reader.h"
#include "model/stored_tensor.h"
#include "ops/weight_source.h"

namespace lanner::model {

struct GroupQuantization {
  ModelFormat format = ModelFormat::kPlain;
  std::int64_t bits = 4;
  std::int64_t group = 0;      // input columns that share a scale; 0: as the tensors say; -1: all
  bool has_zeros = true;       // false: zeros are 8 and X.qzeros may be missing (AWQ without zero_point)
  bool zeros_less_one = true;  // GPTQ's first format
  bool has_int8_rows = false;  // smooth_quant, of which row_quantization.h says how it is; `format` is then kPlain
};

/// The file that said the same before config.json had a quantization_config; empty for kPlain.
std::string_view legacy_config_name(ModelFormat format);

/// What config.json's quantization_config says, or for older folders `legacy`, which is what the file called
/// legacy_config_name(asked) holds (an empty object where there is none). kInvalidArgument when `asked` contradicts
/// config.json; kUnsupported for other methods and layouts.
Result<GroupQuantization> read_group_quantization(const Json& config, const Json& legacy, ModelFormat asked,
                                                  const std::string& folder);

/// The tensors of one matrix, checked against its shape.
struct QuantizedTensors {
  const StoredTensor* codes = nullptr;
  const StoredTensor* scales = nullptr;
  const StoredTensor* zeros = nullptr;        // may be null where has_zeros is false
  const StoredTensor* group_index = nullptr;  // may be null
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t groups = 0;  // divides cols
};

/// The fewest columns that share a scale where the engine computes with codes.
inline constexpr std::int64_t kSmallestGroup = 32;
/// The largest group that every device takes and that divides `group`, a multiple of the smallest.
std::int64_t usable_group(std::int64_t group);

/// The name of the module when `weight` is the name of a matrix, such as model.layers.0.mlp.up_proj of
/// model.layers.0.mlp.up_proj.weight; else empty.
std::string_view module_of(std::string_view weight);

/// Finds and checks without reading elements. kNotFound where there is no MODULE.qweight.
Result<QuantizedTensors> find_quantized(const TensorMap& tensors, std::string_view module, std::int64_t rows,
                                        std::int64_t cols, const GroupQuantization& quantization,
                                        const std::string& folder);

Result<ops::WeightSource> unpack_quantized(const QuantizedTensors& tensors, const GroupQuantization& quantization,
                                           const std::string& folder);

}  // namespace lanner::model
