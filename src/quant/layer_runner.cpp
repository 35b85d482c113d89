#include "quant/layer_runner.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "core/check.h"
#include "model/forwarding_checkpoint.h"
#include "model/tensor_view.h"
#include "ops/forwarding_backend.h"

namespace lanner::quant {
namespace {

constexpr const char* kNoEmbedding = "the embedding of a layer by itself";
constexpr std::int64_t kNoVocabulary = 16;

/// The checkpoint, and in it an embedding of zeros for the layer by itself.
class LayerCheckpoint final : public model::ForwardingCheckpoint {
 public:
  using ForwardingCheckpoint::ForwardingCheckpoint;

  Result<ops::WeightSource> matrix(std::string_view name, std::int64_t rows, std::int64_t cols) const override {
    if (name != kNoEmbedding) return ForwardingCheckpoint::matrix(name, rows, cols);
    const auto zeros = std::make_shared<const std::vector<float>>(static_cast<std::size_t>(rows * cols));
    return model::dense_matrix(ops::WeightFormat::kF32, reinterpret_cast<const std::byte*>(zeros->data()), rows, cols,
                               zeros);
  }
};

model::DecoderSpec spec_of_layer(const model::DecoderSpec& spec, std::size_t layer) {
  model::DecoderSpec one = spec;
  one.layers = {spec.layers[layer]};
  one.vocab = kNoVocabulary;
  one.embedding = kNoEmbedding;
  one.head = kNoEmbedding;
  one.head_bias.clear();
  one.final_norm = {};
  one.normalize_head = false;
  return one;
}

}  // namespace

std::int64_t input_cols(const model::LayerSpec& layer, LinearInput input) {
  switch (input) {
    case LinearInput::kAttention: return layer.q.cols;
    case LinearInput::kAttentionOut: return layer.o.cols;
    case LinearInput::kMlp: return layer.up.cols;
    case LinearInput::kDown: return layer.down.cols;
  }
  return 0;
}

/// Puts hidden states in and takes them out, and tells of the inputs of products.
class LayerRunner::Probe final : public ops::ForwardingBackend {
 public:
  Probe(std::unique_ptr<ops::Backend> inner, std::int64_t rows) : ForwardingBackend(std::move(inner)), rows_(rows) {
    every_row_.resize(static_cast<std::size_t>(rows));
    std::iota(every_row_.begin(), every_row_.end(), 0);
  }

  /// Where the normed inputs are computed: (rows, hidden).
  Status reserve_normed(std::int64_t hidden) {
    LANNER_ASSIGN_OR_RETURN(std::byte * bytes, inner().allocate(rows_ * hidden * 4, "calibration"));
    normed_ = reinterpret_cast<float*>(bytes);
    return {};
  }

  void begin(std::span<float> hidden, const ObserveInput& observe, LayerPart part) {
    hidden_ = hidden;
    observe_ = &observe;
    part_ = part;
  }

  void embed(const ops::PackedWeight& /*table*/, const ops::Batch& /*batch*/, float /*scale*/, float* x) override {
    x_ = x;
    inner().write(hidden_.data(), static_cast<std::int64_t>(hidden_.size()), x);
  }
  bool end_step() override {
    inner().read(x_, static_cast<std::int64_t>(hidden_.size()), hidden_.data());
    return inner().end_step();
  }
  void norm_qkv(const ops::NormQkvArgs& args, const ops::Batch& batch, const ops::KvCacheView& cache) override {
    if (part_ == LayerPart::kMlp) return;
    tell_normed(LinearInput::kAttention, *args.linear, args.x);
    inner().norm_qkv(args, batch, cache);
  }
  // What is handed over has no form that others could read, so that nothing is.
  void attention(const ops::AttentionArgs& args, const ops::Batch& batch, const ops::KvCacheView& cache) override {
    attention_out_ = args.reader;
    if (part_ == LayerPart::kMlp) return;
    ops::AttentionArgs plain = args;
    plain.reader = nullptr;
    inner().attention(plain, batch, cache);
  }
  void norm_gated_up(const ops::Linear& linear, ops::Gate gate, const float* x, std::int64_t rows, float* h,
                     const ops::Linear* /*reader*/) override {
    if (part_ == LayerPart::kAttention) return;
    tell_normed(LinearInput::kMlp, linear, x);
    inner().norm_gated_up(linear, gate, x, rows, h, nullptr);
  }
  void handed_linear_add(const ops::Linear& linear, const float* input, std::int64_t rows, float* x) override {
    const bool is_attention = &linear == attention_out_;
    if (part_ == (is_attention ? LayerPart::kMlp : LayerPart::kAttention)) return;
    tell(is_attention ? LinearInput::kAttentionOut : LinearInput::kDown, input, linear.cols());
    inner().linear_add(linear, input, rows, x);
  }

 private:
  void tell(LinearInput which, const float* input, std::int64_t cols) {
    if (!*observe_) return;
    values_.resize(static_cast<std::size_t>(rows_ * cols));
    inner().read(input, rows_ * cols, values_.data());
    (*observe_)(which, values_);
  }
  void tell_normed(LinearInput which, const ops::Linear& linear, const float* x) {
    if (!*observe_) return;
    if (!linear.norm) return tell(which, x, linear.cols());
    inner().norm_rows(linear.norm, x, linear.cols(), every_row_, normed_);
    tell(which, normed_, linear.cols());
  }

  std::int64_t rows_;
  std::vector<std::int32_t> every_row_;
  float* x_ = nullptr;
  float* normed_ = nullptr;
  const ops::Linear* attention_out_ = nullptr;
  std::vector<float> values_;
  std::span<float> hidden_;
  const ObserveInput* observe_ = nullptr;
  LayerPart part_ = LayerPart::kWhole;
};

LayerRunner::LayerRunner(std::unique_ptr<Probe> probe, std::int64_t rows)
    : probe_(std::move(probe)), tokens_(static_cast<std::size_t>(rows)), positions_(static_cast<std::size_t>(rows)) {
  std::iota(positions_.begin(), positions_.end(), 0);
  blocks_.resize(static_cast<std::size_t>((rows + ops::kKvBlockTokens - 1) / ops::kKvBlockTokens));
  std::iota(blocks_.begin(), blocks_.end(), 0);
}

LayerRunner::~LayerRunner() = default;

Result<std::unique_ptr<LayerRunner>> LayerRunner::load(const model::Checkpoint& checkpoint,
                                                       const model::DecoderSpec& spec, std::size_t layer,
                                                       const LayerRunnerOptions& options) {
  LANNER_CHECK(layer < spec.layers.size());
  LANNER_ASSIGN_OR_RETURN(auto backend, ops::make_cpu_backend({.threads = options.threads}));
  std::unique_ptr<LayerRunner> runner(
      new LayerRunner(std::make_unique<Probe>(std::move(backend), options.rows), options.rows));
  const LayerCheckpoint one(checkpoint);
  LANNER_ASSIGN_OR_RETURN(runner->decoder_, model::Decoder::load(one, spec_of_layer(spec, layer), *runner->probe_,
                                                                 {.session_len = options.rows}));
  const auto blocks = static_cast<std::int64_t>(runner->blocks_.size());
  LANNER_RETURN_IF_ERROR(runner->decoder_->reserve({.rows = options.rows, .sequences = 1, .blocks = blocks}));
  LANNER_RETURN_IF_ERROR(runner->probe_->reserve_normed(spec.hidden));
  const ops::KvLayout layout = runner->decoder_->kv_layout(DType::kF16);
  LANNER_ASSIGN_OR_RETURN(std::byte * memory, runner->probe_->allocate(blocks * layout.block_bytes(), "the KV cache"));
  runner->cache_ = {.layout = layout, .data = memory, .blocks = blocks};
  return runner;
}

Status LayerRunner::run(std::span<float> hidden, const ObserveInput& observe, LayerPart part) {
  const auto rows = static_cast<std::int32_t>(positions_.size());
  LANNER_CHECK(static_cast<std::int64_t>(hidden.size()) == rows * decoder_->spec().hidden);
  LANNER_CHECK(part == LayerPart::kWhole || !decoder_->spec().parallel_layers);
  probe_->begin(hidden, observe, part);
  const ops::SequenceSlice slice{.first_row = 0, .rows = rows, .first_position = 0, .blocks = blocks_};
  const ops::Batch batch{.rows = rows, .tokens = tokens_, .positions = positions_, .slices = {&slice, 1}};
  decoder_->forward(batch, cache_, {});
  return probe_->take_failure();
}

void LayerRunner::read_keys_and_values(std::vector<float>& keys, std::vector<float>& values) const {
  const auto heads = static_cast<std::size_t>(cache_.layout.kv_heads);
  const auto size = static_cast<std::size_t>(cache_.layout.head_dim);
  const std::size_t rows = positions_.size();
  keys.resize(rows * heads * size);
  values.resize(rows * heads * size);
  constexpr auto kTokens = static_cast<std::size_t>(ops::kKvBlockTokens);
  std::vector<float> head_keys(kTokens * size);
  std::vector<float> head_values(kTokens * size);
  for (const std::int32_t block : blocks_) {
    const std::size_t first = static_cast<std::size_t>(block) * kTokens;
    for (std::size_t head = 0; head < heads; ++head) {
      probe_->read_kv(cache_, block, 0, static_cast<std::int64_t>(head), head_keys.data(), head_values.data());
      for (std::size_t token = 0; token < kTokens && first + token < rows; ++token) {
        const auto from = static_cast<std::ptrdiff_t>(token * size);
        const auto to = static_cast<std::ptrdiff_t>(((first + token) * heads + head) * size);
        std::copy_n(head_keys.begin() + from, size, keys.begin() + to);
        std::copy_n(head_values.begin() + from, size, values.begin() + to);
      }
    }
  }
}

}  // namespace lanner::quant
