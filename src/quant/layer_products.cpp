#include "quant/layer_products.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <utility>

#include "core/check.h"
#include "model/weight_loader.h"

namespace lanner::quant {
namespace {

/// That of the first projection that lies in a tensor.
std::string bias_of(const model::LayerSpec& layer, const std::string& name) {
  for (const model::ProjectionSpec* one :
       {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
    if (one->rows > 0 && one->weight == name) return one->bias;
  }
  return {};
}

/// A tensor as a projection of all of its rows.
model::ProjectionSpec whole(const model::LayerSpec& layer, const LinearTensor& tensor) {
  return {.weight = tensor.name, .bias = bias_of(layer, tensor.name), .rows = tensor.rows, .cols = tensor.cols};
}

}  // namespace

LinearInput input_of(const model::LayerSpec& layer, const std::string& name) {
  for (const LinearInput input : {LinearInput::kAttention, LinearInput::kAttentionOut, LinearInput::kMlp}) {
    const auto is_it = [&](const LinearTensor& one) { return one.name == name; };
    if (std::ranges::any_of(linear_tensors(layer, input), is_it)) return input;
  }
  return LinearInput::kDown;
}

LayerProducts::LayerProducts(std::unique_ptr<ops::Backend> backend, std::int64_t rows)
    : backend_(std::move(backend)), rows_(rows), every_row_(static_cast<std::size_t>(rows)) {
  std::iota(every_row_.begin(), every_row_.end(), 0);
}

Status LayerProducts::reserve(std::int64_t most_cols) {
  LANNER_RETURN_IF_ERROR(backend_->reserve({.rows = rows_, .max_cols = most_cols}));
  const std::int64_t bytes = rows_ * most_cols * static_cast<std::int64_t>(sizeof(float));
  LANNER_ASSIGN_OR_RETURN(std::byte * input, backend_->allocate(bytes, "calibration"));
  LANNER_ASSIGN_OR_RETURN(std::byte * output, backend_->allocate(bytes, "calibration"));
  input_ = reinterpret_cast<float*>(input);
  output_ = reinterpret_cast<float*>(output);
  return {};
}

Result<std::unique_ptr<LayerProducts>> LayerProducts::load(const model::Checkpoint& checkpoint,
                                                           const model::DecoderSpec& spec, std::size_t layer,
                                                           const LayerRunnerOptions& options) {
  LANNER_ASSIGN_OR_RETURN(auto backend, ops::make_cpu_backend({.threads = options.threads}));
  std::unique_ptr<LayerProducts> products(new LayerProducts(std::move(backend), options.rows));
  const std::function<void(double)> nobody;
  model::WeightLoader loader(checkpoint, spec, *products->backend_, ops::Arithmetic::kFast, nobody);
  std::int64_t most_cols = spec.hidden;
  for (const LinearTensor& tensor : linear_tensors(spec.layers[layer])) {
    const model::ProjectionSpec projection = whole(spec.layers[layer], tensor);
    LANNER_ASSIGN_OR_RETURN(ops::Linear linear, loader.linear({}, {&projection}));
    products->linears_.push_back(std::move(linear));
    most_cols = std::max({most_cols, tensor.rows, tensor.cols});
  }
  LANNER_ASSIGN_OR_RETURN(products->final_norm_, loader.norm(spec.final_norm, spec.hidden));
  LANNER_RETURN_IF_ERROR(products->reserve(most_cols));
  return products;
}

std::span<const float> LayerProducts::product(std::size_t linear, std::span<const float> input) {
  const ops::Linear& one = linears_.at(linear);
  LANNER_CHECK(static_cast<std::int64_t>(input.size()) == rows_ * one.cols());
  result_.assign(static_cast<std::size_t>(rows_ * one.rows()), 0.0F);
  const auto count = static_cast<std::int64_t>(result_.size());
  backend_->write(input.data(), static_cast<std::int64_t>(input.size()), input_);
  backend_->write(result_.data(), count, output_);  // zeros, to which the product is added
  backend_->linear_add(one, input_, rows_, output_);
  backend_->read(output_, count, result_.data());
  return result_;
}

std::span<const float> LayerProducts::final_norm(std::span<const float> hidden) {
  const auto count = static_cast<std::int64_t>(hidden.size());
  LANNER_CHECK(final_norm_ && count % rows_ == 0);
  result_.resize(hidden.size());
  backend_->write(hidden.data(), count, input_);
  backend_->norm_rows(final_norm_, input_, count / rows_, every_row_, output_);
  backend_->read(output_, count, result_.data());
  return result_;
}

}  // namespace lanner::quant
