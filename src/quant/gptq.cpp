#include "quant/gptq.h"

#include <fmt/format.h>

#include <array>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "core/check.h"
#include "quant/calibration.h"
#include "quant/gptq_matrix.h"
#include "quant/hessian.h"
#include "quant/quantize_run.h"
#include "quant/rounded_layer.h"
#include "quant/smoothing.h"

namespace lanner::quant {
namespace {

namespace fs = std::filesystem;

// What rounding costs, as if a weight were multiplied with so many tokens for each input channel of its matrix.
constexpr double kTokensOfChannel = 1;

/// One run of quantize_gptq().
class GptqRun final : public QuantizeRun {
 public:
  using QuantizeRun::QuantizeRun;

 private:
  std::string layer_file(std::size_t layer) const override { return fmt::format("layer-{:05}.rounded", layer); }
  std::string unfinished_file(std::size_t layer) const { return layer_file(layer) + ".new"; }
  std::int64_t layer_file_bytes(const std::vector<OutputShard>& shards) const override {
    std::int64_t bytes = 0;
    for (const OutputShard& shard : shards) {
      for (const OutputTensor& tensor : shard.tensors) {
        if (tensor.kind == OutputTensor::Kind::kRounded) bytes += output_bytes(tensor);
      }
    }
    return bytes;
  }
  int passes(std::size_t layer) const override { return layer + 1 < plan().spec.layers.size() ? 2 : 1; }
  /// Of the first pass, the Hessians, shared out among all.
  double extra_work_of_token(std::size_t layer) const override {
    double work = 0;
    for (std::size_t i = 0; i < kLinearInputs; ++i) {
      const auto channels = static_cast<double>(input_cols(plan().spec.layers[layer], static_cast<LinearInput>(i)));
      work += channels * channels / 2;
    }
    return work / passes(layer);
  }
  double work_behind(std::size_t layer) const override {
    double work = 0;
    for (const LinearTensor& linear : linear_tensors(plan().spec.layers[layer])) work += work_of(linear);
    return work;
  }
  static double work_of(const LinearTensor& linear) {
    const auto cols = static_cast<double>(linear.cols);
    return static_cast<double>(linear.rows) * cols * cols * kTokensOfChannel;
  }

  Status prepare(std::size_t first, CalibrationOptions& calibration) override {
    calibration.observe = [this](LinearInput which, std::span<const float> values) {
      hessians_.at(static_cast<std::size_t>(which)).add(values, pool());
    };
    calibration.round_layer = [this](std::size_t layer) { return round_layer(layer); };
    calibration.on_layer = [this](std::size_t layer, const ReadInput& /*read_input*/) { return finish_layer(layer); };
    return make_hessians(first);
  }

  Status make_hessians(std::size_t layer) {
    for (std::size_t i = 0; i < kLinearInputs; ++i) {
      const std::int64_t channels = input_cols(plan().spec.layers[layer], static_cast<LinearInput>(i));
      LANNER_ASSIGN_OR_RETURN(hessians_.at(i), Hessian::make(channels));
    }
    return {};
  }

  /// Into a file that becomes layer_file() when all samples have gone through what it holds.
  Result<std::unique_ptr<const model::Checkpoint>> round_layer(std::size_t layer) {
    for (const Hessian& hessian : hessians_) {
      if (!hessian.finite()) return not_finite(checkpoint(), layer);
    }
    const model::LayerSpec& spec = plan().spec.layers[layer];
    std::vector<model::TensorHeader> headers;
    for (std::size_t i = 0; i < kLinearInputs; ++i) {
      for (const LinearTensor& linear : linear_tensors(spec, static_cast<LinearInput>(i))) {
        for (model::TensorHeader& header : headers_of(linear)) headers.push_back(std::move(header));
      }
    }
    const std::string path = folder().scratch_file(unfinished_file(layer));
    LANNER_ASSIGN_OR_RETURN(const auto writer, model::SafetensorsWriter::create(path, headers));
    for (std::size_t i = 0; i < kLinearInputs; ++i) {
      Hessian hessian = std::exchange(hessians_.at(i), Hessian());
      hessian.factor(kDamping, pool());
      for (const LinearTensor& linear : linear_tensors(spec, static_cast<LinearInput>(i))) {
        LANNER_ASSIGN_OR_RETURN(const PackedMatrix matrix, round(linear, &hessian.triangle()));
        LANNER_RETURN_IF_ERROR(append_packed(matrix, *writer));
        progress().add(work_of(linear));
      }
    }
    LANNER_RETURN_IF_ERROR(writer->finish());
    LANNER_ASSIGN_OR_RETURN(model::TensorMap tensors, open_rounded_layer(path));
    const model::GroupQuantization quantization{.format = model::ModelFormat::kGptq, .group = plan().grouping.size};
    std::unique_ptr<const model::Checkpoint> rounded =
        std::make_unique<const RoundedCheckpoint>(checkpoint(), std::move(tensors), quantization);
    return rounded;
  }

  Status finish_layer(std::size_t layer) {
    const std::string path = folder().scratch_file(layer_file(layer));
    std::error_code error;
    fs::rename(folder().scratch_file(unfinished_file(layer)), path, error);
    if (error) return io_error(fmt::format("{}: {}", path, error.message()));
    return layer + 1 < plan().spec.layers.size() ? make_hessians(layer + 1) : Status();
  }

  std::vector<model::TensorHeader> headers_of(const LinearTensor& linear) const {
    return packed_headers(Method::kGptq, std::string(model::module_of(linear.name)), linear.rows, linear.cols,
                          plan().grouping.size);
  }

  Result<PackedMatrix> round(const LinearTensor& linear, const UpperTriangle* factor) {
    LANNER_ASSIGN_OR_RETURN(const DenseRows rows, DenseRows::open(checkpoint(), linear));
    return round_gptq(rows, factor, plan().grouping.size, pool());
  }

  Result<FolderContents> contents() override {
    if (!options().windows.empty()) {
      for (std::size_t layer = 0; layer < plan().spec.layers.size(); ++layer) {
        LANNER_ASSIGN_OR_RETURN(model::TensorMap tensors, open_rounded_layer(folder().scratch_file(layer_file(layer))));
        rounded_.merge(std::move(tensors));
      }
    }
    FolderContents contents;
    contents.write_rounded = [this](const OutputTensor& tensor, const TensorFactors& /*factors*/,
                                    model::SafetensorsWriter& writer) { return write_rounded(tensor, writer); };
    return contents;
  }

  Status write_rounded(const OutputTensor& tensor, model::SafetensorsWriter& writer) {
    if (options().windows.empty()) {
      LANNER_ASSIGN_OR_RETURN(const PackedMatrix matrix, round(linear_of(tensor), nullptr));
      return append_packed(matrix, writer);
    }
    for (const model::TensorHeader& header : tensor.headers) {
      const auto found = rounded_.find(header.name);
      if (found == rounded_.end() || static_cast<std::int64_t>(found->second.bytes.size()) != header.bytes) {
        return corrupt(fmt::format("{}: lacks {}; remove it to begin anew", folder().path(), header.name));
      }
      LANNER_RETURN_IF_ERROR(writer.append(found->second.bytes));
    }
    return {};
  }

  std::array<Hessian, kLinearInputs> hessians_;  // of the layer that samples go through
  model::TensorMap rounded_;                     // of all layers
};

}  // namespace

Result<Outcome> quantize_gptq(const model::Checkpoint& checkpoint, const Plan& plan, const Options& options) {
  LANNER_CHECK(plan.method == Method::kGptq && plan.grouping.symmetric);
  LANNER_ASSIGN_OR_RETURN(
      WorkFolder folder, WorkFolder::open(options.destination, settings_of(checkpoint, plan, options), options.resume));
  return GptqRun(checkpoint, plan, options, folder).run();
}

}  // namespace lanner::quant
