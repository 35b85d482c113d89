#include "quant/quantized_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>
#include <system_error>
#include <utility>

#include "core/float16.h"
#include "core/mapped_file.h"
#include "model/copy_texts.h"
#include "model/group_quantization.h"
#include "model/tensor_view.h"
#include "quant/int8_matrix.h"
#include "quant/packed_matrix.h"

namespace lanner::quant {
namespace {

namespace fs = std::filesystem;
using model::Json;
using model::StoredTensor;
using model::TensorHeader;

constexpr std::int64_t kPieceElements = 1 << 18;  // of a tensor that is converted

Result<OutputTensor> rounded(const StoredTensor& tensor, const LinearTensor& linear, const Plan& plan) {
  const std::string module(model::module_of(tensor.name));
  if (module.empty()) {
    return unsupported(fmt::format("{}: {} has no name for it", tensor.name, method_name(plan.method)));
  }
  OutputTensor output{.source = &tensor, .kind = OutputTensor::Kind::kRounded};
  output.headers = plan.method == Method::kSmoothQuant
                       ? int8_headers(module, linear.rows, linear.cols)
                       : packed_headers(plan.method, module, linear.rows, linear.cols, plan.grouping.size);
  return output;
}

OutputTensor whole(const StoredTensor& tensor) {
  // Frequencies that older checkpoints keep are made in fp32.
  const bool half = model::dense_format(tensor.dtype).has_value() && !tensor.name.ends_with("inv_freq");
  OutputTensor output{.source = &tensor, .kind = half ? OutputTensor::Kind::kHalf : OutputTensor::Kind::kCopied};
  output.headers = {tensor_header(tensor.name, half ? "F16" : tensor.dtype, tensor.shape)};
  return output;
}

void name_shards(std::vector<OutputShard>& shards) {
  for (std::size_t i = 0; i < shards.size(); ++i) {
    shards[i].file = shards.size() == 1 ? "model.safetensors"
                                        : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
  }
}

template <typename T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

/// Writes the tensors of one shard.
class ShardWriter {
 public:
  ShardWriter(const model::Checkpoint& checkpoint, const Plan& plan, const FolderContents& contents,
              model::SafetensorsWriter& writer)
      : checkpoint_(checkpoint), plan_(plan), contents_(contents), writer_(writer) {}

  Status write(const OutputTensor& tensor) {
    const auto found = contents_.factors.find(tensor.source->name);
    const TensorFactors& factors = found == contents_.factors.end() ? none_ : found->second;
    switch (tensor.kind) {
      case OutputTensor::Kind::kCopied: return writer_.append(tensor.source->bytes);
      case OutputTensor::Kind::kHalf: return write_half(tensor, factors);
      case OutputTensor::Kind::kRounded: return contents_.write_rounded(tensor, factors, writer_);
    }
    return {};
  }

 private:
  std::string where(const OutputTensor& tensor) const {
    return fmt::format("{}: {}", checkpoint_.path(), tensor.source->name);
  }

  Status write_half(const OutputTensor& tensor, const TensorFactors& factors) {
    const auto format = *model::dense_format(tensor.source->dtype);
    const std::int64_t element = *model::dtype_bytes(tensor.source->dtype);
    const std::int64_t count = elements_of(tensor);
    const float offset = tensor.is_norm ? static_cast<float>(plan_.spec.norm_gain_offset) : 0.0F;
    std::vector<float> values;
    std::vector<std::uint16_t> halves;
    for (std::int64_t begin = 0; begin < count; begin += kPieceElements) {
      values.resize(static_cast<std::size_t>(std::min(kPieceElements, count - begin)));
      LANNER_RETURN_IF_ERROR(
          model::widen_into(where(tensor), format, tensor.source->bytes.data() + begin * element, values));
      halves.resize(values.size());
      for (std::size_t i = 0; i < values.size(); ++i) {
        float value = values[i];
        if (!factors.divide_rows.empty()) {
          value = (value + offset) / factors.divide_rows[static_cast<std::size_t>(begin) + i] - offset;
        }
        const Half half = to_half(value);
        if (!std::isfinite(to_float(half))) {
          return corrupt(fmt::format("{}: holds {}, which fp16 does not", where(tensor), value));
        }
        halves[i] = half.bits;
      }
      LANNER_RETURN_IF_ERROR(writer_.append(bytes_of(halves)));
    }
    return {};
  }

  const model::Checkpoint& checkpoint_;
  const Plan& plan_;
  const FolderContents& contents_;
  model::SafetensorsWriter& writer_;
  const TensorFactors none_;
};

Status write_index(const std::vector<OutputShard>& shards, const std::string& folder) {
  Json map = Json::object();
  for (const OutputShard& shard : shards) {
    for (const OutputTensor& tensor : shard.tensors) {
      for (const TensorHeader& one : tensor.headers) map[one.name] = shard.file;
    }
  }
  const Json index = {{"metadata", {{"total_size", shard_bytes(shards)}}}, {"weight_map", std::move(map)}};
  return write_file_atomically((fs::path(folder) / "model.safetensors.index.json").string(), index.dump(2) + "\n");
}

Json quantization_config(const Plan& plan) {
  Json config = {{"quant_method", method_name(plan.method)}};
  if (plan.method == Method::kSmoothQuant) {
    config["quant_dtype"] = "int8";
    return config;
  }
  if (plan.method == Method::kAwq) {
    config.update(Json{{"version", "gemm"}, {"bits", 4}, {"group_size", plan.grouping.size}, {"zero_point", true}});
  } else {
    config.update(Json{{"bits", 4},
                       {"group_size", plan.grouping.size},
                       {"damp_percent", kDamping},
                       {"desc_act", false},
                       {"static_groups", false},
                       {"sym", true},
                       {"lm_head", false},
                       {"true_sequential", false},
                       {"checkpoint_format", "gptq"}});
  }
  return config;
}

Json quantized_config(const model::Checkpoint& checkpoint, const Plan& plan) {
  Json config = checkpoint.config();
  config["torch_dtype"] = "float16";
  if (config.contains("dtype")) config["dtype"] = "float16";  // Transformers 5 calls it so
  config["quantization_config"] = quantization_config(plan);
  return config;
}

}  // namespace

std::int64_t elements_of(const OutputTensor& tensor) {
  std::int64_t count = 1;
  for (const std::int64_t size : tensor.source->shape) count *= size;
  return count;
}

std::int64_t output_bytes(const OutputTensor& tensor) {
  std::int64_t bytes = 0;
  for (const TensorHeader& one : tensor.headers) bytes += one.bytes;
  return bytes;
}

LinearTensor linear_of(const OutputTensor& tensor) {
  const std::vector<std::int64_t>& shape = tensor.source->shape;
  return {.name = tensor.source->name, .rows = shape[0], .cols = shape[1]};
}

std::int64_t shard_bytes(const std::vector<OutputShard>& shards) {
  std::int64_t bytes = 0;
  for (const OutputShard& shard : shards) {
    for (const OutputTensor& tensor : shard.tensors) bytes += output_bytes(tensor);
  }
  return bytes;
}

Result<std::vector<OutputShard>> plan_shards(const model::TensorMap& tensors, const Plan& plan) {
  std::map<std::string, LinearTensor, std::less<>> linears;
  std::set<std::string, std::less<>> norms{plan.spec.final_norm.weight};
  for (const model::LayerSpec& layer : plan.spec.layers) {
    for (LinearTensor& linear : linear_tensors(layer)) linears.emplace(linear.name, linear);
    norms.insert({layer.attention_norm.weight, layer.mlp_norm.weight});
  }
  std::vector<OutputShard> shards(1);
  std::int64_t bytes = 0;
  for (const auto& [name, tensor] : tensors) {
    const auto linear = linears.find(name);
    OutputTensor output = whole(tensor);
    if (linear != linears.end()) {
      LANNER_ASSIGN_OR_RETURN(output, rounded(tensor, linear->second, plan));
    }
    output.is_norm = norms.contains(name);
    if (bytes > 0 && bytes + output_bytes(output) > plan.most_shard_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    bytes += output_bytes(output);
    shards.back().tensors.push_back(std::move(output));
  }
  name_shards(shards);
  return shards;
}

Status write_shards(const model::Checkpoint& checkpoint, const Plan& plan, const std::vector<OutputShard>& shards,
                    const FolderContents& contents, const std::string& folder,
                    const std::function<void(std::int64_t)>& on_tensor) {
  for (const OutputShard& shard : shards) {
    const std::string path = (fs::path(folder) / shard.file).string();
    std::error_code error;
    const bool done = fs::exists(path, error);  // renamed when it was whole
    std::unique_ptr<model::SafetensorsWriter> writer;
    if (!done) {
      std::vector<TensorHeader> headers;
      for (const OutputTensor& tensor : shard.tensors) {
        headers.insert(headers.end(), tensor.headers.begin(), tensor.headers.end());
      }
      LANNER_ASSIGN_OR_RETURN(writer, model::SafetensorsWriter::create(path, headers));
    }
    for (const OutputTensor& tensor : shard.tensors) {
      if (writer) {
        ShardWriter shard_writer(checkpoint, plan, contents, *writer);
        LANNER_RETURN_IF_ERROR(shard_writer.write(tensor));
      }
      on_tensor(elements_of(tensor));
    }
    if (writer) LANNER_RETURN_IF_ERROR(writer->finish());
  }
  return {};
}

Status write_texts(const model::Checkpoint& checkpoint, const Plan& plan, const std::vector<OutputShard>& shards,
                   const std::string& folder) {
  LANNER_RETURN_IF_ERROR(model::copy_texts(checkpoint.path(), folder));
  if (shards.size() > 1) LANNER_RETURN_IF_ERROR(write_index(shards, folder));
  const std::string config = (fs::path(folder) / "config.json").string();
  return write_file_atomically(config, quantized_config(checkpoint, plan).dump(2) + "\n");
}

}  // namespace lanner::quant
