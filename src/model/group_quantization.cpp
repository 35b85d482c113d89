#include "model/group_quantization.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "core/ascii.h"
#include "core/checked.h"
#include "model/tensor_view.h"

namespace lanner::model {
namespace {

constexpr std::int64_t kWordBits = 32;
constexpr std::int64_t kMaxGroup = 1 << 24;
constexpr std::array<std::int64_t, 8> kAwqOrder{0, 2, 4, 6, 1, 3, 5, 7};  // the row that each nibble holds
constexpr std::string_view kWeight = ".weight";

/// Integers with sign, packed words without.
bool is_words(const StoredTensor& tensor) { return tensor.dtype == "I32" || tensor.dtype == "U32"; }

std::uint32_t word(const StoredTensor& tensor, std::int64_t index) {
  std::uint32_t value = 0;
  std::memcpy(&value, tensor.bytes.data() + 4 * index, sizeof(value));
  return value;
}

/// A field that older files spell in another way.
std::string_view either(const JsonFields& fields, std::string_view name, std::string_view old_name) {
  return fields.has(name) || !fields.has(old_name) ? name : old_name;
}

Status check_names(const JsonFields& fields, std::string_view key) {
  const Json* names = fields.find(key);
  if (names == nullptr) return {};
  const bool all = names->is_array() && std::ranges::all_of(*names, [](const Json& name) { return name.is_string(); });
  return all ? Status() : fields.wrong(key, "is not a list of names");
}

/// Bits and group, which both methods have.
Result<GroupQuantization> read_common(const JsonFields& fields, ModelFormat format) {
  GroupQuantization result;
  result.format = format;
  LANNER_ASSIGN_OR_RETURN(result.bits, fields.integer_or(either(fields, "bits", "w_bit"), 1, 64, 4));
  const bool wide = result.bits == 8 && format == ModelFormat::kGptq;
  if (result.bits != 4 && !wide) {
    return fields.not_supported(either(fields, "bits", "w_bit"),
                                fmt::format("{} bits; AWQ with 4 and GPTQ with 4 or 8 can be read", result.bits));
  }
  LANNER_ASSIGN_OR_RETURN(result.group,
                          fields.integer_or(either(fields, "group_size", "q_group_size"), -1, kMaxGroup, 0));
  return result;
}

Result<GroupQuantization> read_awq(const JsonFields& fields) {
  LANNER_ASSIGN_OR_RETURN(GroupQuantization result, read_common(fields, ModelFormat::kAwq));
  LANNER_ASSIGN_OR_RETURN(const std::string layout, fields.text_or("version", "gemm"));
  if (lower_case(layout) != "gemm") {
    return fields.not_supported("version", fmt::format("'{}'; of AWQ only 'gemm' can be read", printable(layout)));
  }
  LANNER_ASSIGN_OR_RETURN(result.has_zeros, fields.boolean_or("zero_point", true));
  LANNER_RETURN_IF_ERROR(check_names(fields, "modules_to_not_convert"));
  result.zeros_less_one = false;
  return result;
}

Result<GroupQuantization> read_gptq(const JsonFields& fields) {
  LANNER_ASSIGN_OR_RETURN(GroupQuantization result, read_common(fields, ModelFormat::kGptq));
  const std::string_view key = either(fields, "checkpoint_format", "format");
  LANNER_ASSIGN_OR_RETURN(const std::string layout, fields.text_or(key, "gptq"));
  if (layout != "gptq" && layout != "gptq_v2") {
    return fields.not_supported(key, fmt::format("'{}'; gptq and gptq_v2 can be read", printable(layout)));
  }
  LANNER_ASSIGN_OR_RETURN(const bool marlin, fields.boolean_or("is_marlin_format", false));
  if (marlin) return fields.not_supported("is_marlin_format", "can not be read; gptq and gptq_v2 can");
  LANNER_ASSIGN_OR_RETURN(const std::string words, fields.text_or("pack_dtype", "int32"));
  if (words != "int32") return fields.not_supported("pack_dtype", fmt::format("'{}', not int32", printable(words)));
  LANNER_RETURN_IF_ERROR(check_names(fields, "modules_to_not_convert"));
  result.zeros_less_one = layout == "gptq";
  return result;
}

Result<GroupQuantization> read_smooth_quant(const JsonFields& fields) {
  LANNER_ASSIGN_OR_RETURN(const std::string dtype, fields.text_or("quant_dtype", "int8"));
  if (dtype != "int8") {
    return fields.not_supported("quant_dtype",
                                fmt::format("'{}'; of smooth_quant only int8 can be read", printable(dtype)));
  }
  GroupQuantization result;
  result.has_int8_rows = true;
  return result;
}

Result<GroupQuantization> read_method(const JsonFields& fields, ModelFormat format) {
  if (format == ModelFormat::kAwq) return read_awq(fields);
  if (format == ModelFormat::kGptq) return read_gptq(fields);
  return GroupQuantization{};
}

Status missing(const std::string& folder, std::string_view module, std::string_view part) {
  return not_found(fmt::format("{}: {}.{}: is missing", folder, module, part));
}

/// Fills columns of codes (rows, cols) out of words; blocks of columns keep reads and writes in the cache.
constexpr std::int64_t kBlock = 64;

void unpack_awq(const StoredTensor& packed, std::int64_t rows, std::int64_t cols, std::uint8_t* codes) {
  const std::int64_t words = rows / 8;
  for (std::int64_t begin = 0; begin < cols; begin += kBlock) {
    const std::int64_t end = std::min(cols, begin + kBlock);
    for (std::int64_t w = 0; w < words; ++w) {
      for (std::int64_t column = begin; column < end; ++column) {
        std::uint32_t bits = word(packed, column * words + w);
        for (const std::int64_t row : kAwqOrder) {
          codes[(8 * w + row) * cols + column] = static_cast<std::uint8_t>(bits & 15U);
          bits >>= 4U;
        }
      }
    }
  }
}

void unpack_gptq(const StoredTensor& packed, std::int64_t rows, std::int64_t cols, std::int64_t bits,
                 std::uint8_t* codes) {
  const std::int64_t in_word = kWordBits / bits;
  const std::uint32_t mask = (1U << static_cast<unsigned>(bits)) - 1U;
  // int8 codes are signed; zeros are brought down by 128 in their place.
  const std::uint8_t flip = bits == 8 ? 0x80 : 0;
  for (std::int64_t begin = 0; begin < cols; begin += kBlock) {
    const std::int64_t end = std::min(cols, begin + kBlock);
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t column = begin; column < end; column += in_word) {
        std::uint32_t rest = word(packed, column / in_word * rows + row);
        for (std::int64_t i = 0; i < in_word; ++i) {
          codes[row * cols + column + i] = static_cast<std::uint8_t>((rest & mask) ^ flip);
          rest >>= static_cast<unsigned>(bits);
        }
      }
    }
  }
}

/// (groups, rows), each the number that codes are counted from.
std::vector<std::int32_t> read_zeros(const QuantizedTensors& tensors, const GroupQuantization& quantization) {
  const std::int64_t in_word = kWordBits / quantization.bits;
  const auto half = static_cast<std::int32_t>(1U << static_cast<unsigned>(quantization.bits - 1));
  std::vector<std::int32_t> zeros(static_cast<std::size_t>(tensors.groups * tensors.rows), half);
  const std::int32_t lift = quantization.bits == 8 ? 128 : 0;
  if (tensors.zeros != nullptr) {
    const std::uint32_t mask = (1U << static_cast<unsigned>(quantization.bits)) - 1U;
    const std::uint32_t one_each = quantization.bits == 8 ? 0x01010101U : 0x11111111U;
    for (std::int64_t w = 0; w < tensors.groups * tensors.rows / in_word; ++w) {
      std::uint32_t rest = word(*tensors.zeros, w);
      if (quantization.zeros_less_one) rest += one_each;
      for (std::int64_t i = 0; i < in_word; ++i) {
        const std::int64_t row = quantization.format == ModelFormat::kAwq ? kAwqOrder[static_cast<std::size_t>(i)] : i;
        zeros[static_cast<std::size_t>(w * in_word + row)] = static_cast<std::int32_t>(rest & mask);
        rest >>= static_cast<unsigned>(quantization.bits);
      }
    }
  }
  for (std::int32_t& zero : zeros) zero -= lift;
  return zeros;
}

/// Scales and offsets, (rows, groups) after (groups, rows), and repeated for the parts of large groups.
Status fill_scales(const QuantizedTensors& tensors, const GroupQuantization& quantization, const std::string& where,
                   ops::WeightSource& source) {
  const StoredTensor& stored = *tensors.scales;
  LANNER_ASSIGN_OR_RETURN(const std::vector<float> scales, widen(where, *dense_format(stored.dtype),
                                                                 stored.bytes.data(), tensors.groups * tensors.rows));
  const std::vector<std::int32_t> zeros = read_zeros(tensors, quantization);
  const std::int64_t parts = tensors.cols / tensors.groups / source.group;
  const auto count = static_cast<std::size_t>(tensors.rows * tensors.groups * parts);
  source.scales.resize(count);
  source.offsets.resize(count);
  bool any = false;
  std::size_t out = 0;
  for (std::int64_t row = 0; row < tensors.rows; ++row) {
    for (std::int64_t group = 0; group < tensors.groups; ++group) {
      const auto in = static_cast<std::size_t>(group * tensors.rows + row);
      const float offset = -scales[in] * static_cast<float>(zeros[in]);
      any = any || offset != 0.0F;
      for (std::int64_t part = 0; part < parts; ++part, ++out) {
        source.scales[out] = scales[in];
        source.offsets[out] = offset;
      }
    }
  }
  if (!any) source.offsets.clear();
  return {};
}

/// The columns in the order of their groups; empty when that is the order in which they are. Every group has as many
/// columns as the others.
Result<std::vector<std::int32_t>> column_order(const QuantizedTensors& tensors, const std::string& where) {
  std::vector<std::int32_t> order;
  if (tensors.group_index == nullptr) return order;
  const std::int64_t group_cols = tensors.cols / tensors.groups;
  std::vector<std::int64_t> filled(static_cast<std::size_t>(tensors.groups));
  order.resize(static_cast<std::size_t>(tensors.cols));
  bool plain = true;
  for (std::int64_t column = 0; column < tensors.cols; ++column) {
    const std::uint32_t group = word(*tensors.group_index, column);
    if (group >= static_cast<std::uint64_t>(tensors.groups)) {
      return corrupt(fmt::format("{}: column {} is of group {} of {}", where, column, group, tensors.groups));
    }
    std::int64_t& place = filled[group];
    if (place == group_cols) {
      return corrupt(fmt::format("{}: group {} has more than {} columns", where, group, group_cols));
    }
    order[static_cast<std::size_t>(group * group_cols + place)] = static_cast<std::int32_t>(column);
    ++place;
    plain = plain && group == static_cast<std::uint64_t>(column / group_cols);
  }
  if (plain) order.clear();
  return order;
}

void sort_columns(std::int64_t cols, const std::vector<std::int32_t>& order, std::vector<std::uint8_t>& codes) {
  std::vector<std::uint8_t> row(static_cast<std::size_t>(cols));
  for (std::size_t begin = 0; begin < codes.size(); begin += row.size()) {
    std::copy_n(codes.begin() + static_cast<std::ptrdiff_t>(begin), row.size(), row.begin());
    for (std::size_t i = 0; i < row.size(); ++i) codes[begin + i] = row[static_cast<std::size_t>(order[i])];
  }
}

}  // namespace

std::int64_t usable_group(std::int64_t group) {
  for (const std::int64_t usable : {128, 64}) {
    if (group % usable == 0) return usable;
  }
  return kSmallestGroup;
}

std::string_view module_of(std::string_view weight) {
  return weight.ends_with(kWeight) ? weight.substr(0, weight.size() - kWeight.size()) : std::string_view();
}

std::string_view legacy_config_name(ModelFormat format) {
  switch (format) {
    case ModelFormat::kAwq: return "quant_config.json";
    case ModelFormat::kGptq: return "quantize_config.json";
    case ModelFormat::kPlain: break;
  }
  return {};
}

Result<GroupQuantization> read_group_quantization(const Json& config, const Json& legacy, ModelFormat asked,
                                                  const std::string& folder) {
  const JsonFields top(config, folder + "/config.json");
  LANNER_ASSIGN_OR_RETURN(const auto fields, top.object("quantization_config"));
  if (!fields) return read_method(JsonFields(legacy, fmt::format("{}/{}", folder, legacy_config_name(asked))), asked);
  LANNER_ASSIGN_OR_RETURN(const std::string method, fields->text("quant_method"));
  if (method != "awq" && method != "gptq" && method != "smooth_quant") {
    return fields->not_supported("quant_method",
                                 fmt::format("'{}'; awq, gptq and smooth_quant can be read", printable(method)));
  }
  const ModelFormat format = method == "awq"    ? ModelFormat::kAwq
                             : method == "gptq" ? ModelFormat::kGptq
                                                : ModelFormat::kPlain;
  if (asked != ModelFormat::kPlain && asked != format) {
    return invalid_argument(fmt::format("{}/config.json: quantization_config says {}, the model format asked for is {}",
                                        folder, method, asked == ModelFormat::kAwq ? "awq" : "gptq"));
  }
  if (format == ModelFormat::kPlain) return read_smooth_quant(*fields);
  return read_method(*fields, format);
}

Result<QuantizedTensors> find_quantized(const TensorMap& tensors, std::string_view module, std::int64_t rows,
                                        std::int64_t cols, const GroupQuantization& quantization,
                                        const std::string& folder) {
  const auto find = [&](std::string_view part) -> const StoredTensor* {
    const auto found = tensors.find(fmt::format("{}.{}", module, part));
    return found == tensors.end() ? nullptr : &found->second;
  };
  const auto check = [&](const StoredTensor& tensor, std::initializer_list<std::int64_t> shape) {
    return check_shape(fmt::format("{}: {}", folder, tensor.name), tensor.shape, shape);
  };
  const auto refuse = [&](const StoredTensor& tensor, std::string_view why) {
    return unsupported(fmt::format("{}: {}: {}", folder, tensor.name, why));
  };
  const bool awq = quantization.format == ModelFormat::kAwq;
  const std::int64_t in_word = kWordBits / quantization.bits;
  QuantizedTensors found{find("qweight"), find("scales"), find("qzeros"), find("g_idx"), rows, cols, 0};
  if (found.codes == nullptr) return missing(folder, module, "qweight");
  if (found.scales == nullptr) return missing(folder, module, "scales");
  if (found.zeros == nullptr && quantization.has_zeros) return missing(folder, module, "qzeros");
  if (awq) found.group_index = nullptr;
  if (rows % in_word != 0 || cols % in_word != 0) {
    return refuse(*found.codes, fmt::format("{} rows and {} columns do not fill words of {}", rows, cols, in_word));
  }
  for (const StoredTensor* words : {found.codes, found.zeros, found.group_index}) {
    if (words != nullptr && !is_words(*words)) return refuse(*words, "dtype " + words->dtype + ", not I32");
  }
  LANNER_RETURN_IF_ERROR(awq ? check(*found.codes, {cols, rows / in_word})
                             : check(*found.codes, {cols / in_word, rows}));
  if (!dense_format(found.scales->dtype)) return refuse(*found.scales, "dtype " + found.scales->dtype);
  found.groups = found.scales->shape.empty() ? 0 : found.scales->shape[0];
  LANNER_RETURN_IF_ERROR(check(*found.scales, {found.groups, rows}));
  const std::int64_t wanted = quantization.group > 0 ? std::min(quantization.group, cols) : cols;
  if (found.groups == 0 || cols % found.groups != 0 || (quantization.group != 0 && cols / found.groups != wanted)) {
    return corrupt(fmt::format("{}: {}: {} groups for {} columns, group_size is {}", folder, found.scales->name,
                               found.groups, cols, quantization.group));
  }
  if (cols / found.groups % kSmallestGroup != 0) {
    return refuse(*found.scales, fmt::format("groups of {} columns; multiples of {} can be computed with",
                                             cols / found.groups, kSmallestGroup));
  }
  if (found.zeros != nullptr) LANNER_RETURN_IF_ERROR(check(*found.zeros, {found.groups, rows / in_word}));
  if (found.group_index != nullptr) LANNER_RETURN_IF_ERROR(check(*found.group_index, {cols}));
  return found;
}

Result<ops::WeightSource> unpack_quantized(const QuantizedTensors& tensors, const GroupQuantization& quantization,
                                           const std::string& folder) {
  const auto where = [&](const StoredTensor& tensor) { return fmt::format("{}: {}", folder, tensor.name); };
  ops::WeightSource source;
  source.format = quantization.bits == 8 ? ops::WeightFormat::kInt8 : ops::WeightFormat::kInt4;
  source.rows = tensors.rows;
  source.cols = tensors.cols;
  source.group = usable_group(tensors.cols / tensors.groups);
  LANNER_RETURN_IF_ERROR(fill_scales(tensors, quantization, where(*tensors.scales), source));
  if (tensors.group_index != nullptr) {
    LANNER_ASSIGN_OR_RETURN(source.input_order, column_order(tensors, where(*tensors.group_index)));
  }
  source.codes.resize(static_cast<std::size_t>(tensors.rows * tensors.cols));
  if (quantization.format == ModelFormat::kAwq) {
    unpack_awq(*tensors.codes, tensors.rows, tensors.cols, source.codes.data());
  } else {
    unpack_gptq(*tensors.codes, tensors.rows, tensors.cols, quantization.bits, source.codes.data());
  }
  if (!source.input_order.empty()) sort_columns(tensors.cols, source.input_order, source.codes);
  return source;
}

}  // namespace lanner::model
