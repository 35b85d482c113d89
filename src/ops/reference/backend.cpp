// The oracle: every operation in plain fp32 loops, in the order of its formula, one thread, no tricks. Tests hold
// each device against it; nothing is ever served by it. Its cache keeps keys and values as (64, head_dim) each.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/cpu_info.h"
#include "core/float16.h"
#include "ops/backend.h"
#include "ops/check_arguments.h"

namespace lanner::ops {
namespace {

class ReferenceWeight final : public PackedWeight {
 public:
  explicit ReferenceWeight(const WeightSource& source)
      : rows_(source.rows), cols_(source.cols), format_(source.format) {
    values_.resize(static_cast<std::size_t>(rows_ * cols_));
    for (std::int64_t row = 0; row < rows_; ++row) {
      for (std::int64_t col = 0; col < cols_; ++col) {
        values_[static_cast<std::size_t>(row * cols_ + col)] = element(source, row, col);
      }
    }
  }
  std::int64_t rows() const override { return rows_; }
  std::int64_t cols() const override { return cols_; }
  WeightFormat format() const override { return format_; }
  std::int64_t bytes() const override { return rows_ * cols_ * 4; }
  const float* row(std::int64_t index) const { return values_.data() + index * cols_; }

 private:
  static float element(const WeightSource& source, std::int64_t row, std::int64_t col) {
    const auto index = static_cast<std::size_t>(row * source.cols + col);
    if (is_quantized(source.format)) {
      const auto group = static_cast<std::size_t>(row * (source.cols / source.group) + col / source.group);
      const std::uint8_t code = source.codes[index];
      const int number = source.format == WeightFormat::kInt4 ? code : static_cast<std::int8_t>(code);
      return source.scales[group] * static_cast<float>(number) +
             (source.offsets.empty() ? 0.0F : source.offsets[group]);
    }
    if (source.format == WeightFormat::kF32) {
      float value = 0;
      std::memcpy(&value, source.dense + index * 4, sizeof(value));
      return value;
    }
    std::uint16_t bits = 0;
    std::memcpy(&bits, source.dense + index * 2, sizeof(bits));
    return source.format == WeightFormat::kF16 ? to_float(Half{bits}) : to_float(BFloat16{bits});
  }

  std::int64_t rows_;
  std::int64_t cols_;
  WeightFormat format_;
  std::vector<float> values_;
};

class ReferenceVector final : public DeviceVector {
 public:
  explicit ReferenceVector(std::span<const float> values) : values_(values.begin(), values.end()) {}
  std::int64_t size() const override { return static_cast<std::int64_t>(values_.size()); }
  const float* data() const override { return values_.data(); }

 private:
  std::vector<float> values_;
};

void store_element(DType dtype, std::byte* base, std::int64_t index, float value) {
  if (dtype == DType::kF32) {
    std::memcpy(base + index * 4, &value, sizeof(value));
    return;
  }
  const std::uint16_t bits = dtype == DType::kF16 ? to_half(value).bits : to_bfloat16(value).bits;
  std::memcpy(base + index * 2, &bits, sizeof(bits));
}

float load_element(DType dtype, const std::byte* base, std::int64_t index) {
  if (dtype == DType::kF32) {
    float value = 0;
    std::memcpy(&value, base + index * 4, sizeof(value));
    return value;
  }
  std::uint16_t bits = 0;
  std::memcpy(&bits, base + index * 2, sizeof(bits));
  return dtype == DType::kF16 ? to_float(Half{bits}) : to_float(BFloat16{bits});
}

/// The numbers of a block's head: keys (64, head_dim), then values; of codes of 4 bits two neighbours share a byte, the
/// even one in the low nibble. Scales and mins as KvLayout says.
class ReferenceHead {
 public:
  ReferenceHead(const KvLayout& layout, std::byte* data) : layout_(layout), data_(data) {}

  void store_key(std::int64_t slot, const float* x) { store(slot, 0, x); }
  void store_value(std::int64_t slot, const float* x) { store(slot, 1, x); }
  float key(std::int64_t slot, std::int64_t d) const { return load(slot, 0, d); }
  float value(std::int64_t slot, std::int64_t d) const { return load(slot, 1, d); }

 private:
  /// `part` is 0 for the keys and 1 for the values.
  void store(std::int64_t slot, std::int64_t part, const float* x) {
    const std::int64_t first = (part * kKvBlockTokens + slot) * layout_.head_dim;
    if (layout_.codes == KvCodes::kNone) {
      for (std::int64_t d = 0; d < layout_.head_dim; ++d) store_element(layout_.dtype, data_, first + d, x[d]);
      return;
    }
    const float levels = layout_.codes == KvCodes::kInt8 ? 255.0F : 15.0F;
    const auto [smallest, largest] = std::minmax_element(x, x + layout_.head_dim);
    const bool finite = std::all_of(x, x + layout_.head_dim, [](float number) { return std::isfinite(number); });
    const float step = finite ? (*largest - *smallest) / levels : std::numeric_limits<float>::quiet_NaN();
    store_element(DType::kF16, data_, scale_place(slot, part), step);
    store_element(DType::kF16, data_, scale_place(slot, part) + kKvBlockTokens, *smallest);
    const float scale = load_element(DType::kF16, data_, scale_place(slot, part));
    const float min = load_element(DType::kF16, data_, scale_place(slot, part) + kKvBlockTokens);
    for (std::int64_t d = 0; d < layout_.head_dim; ++d) {
      const float count = scale > 0 ? std::nearbyint((x[d] - min) / scale) : 0.0F;
      store_code(first + d, static_cast<unsigned>(std::clamp(count, 0.0F, levels)));
    }
  }
  float load(std::int64_t slot, std::int64_t part, std::int64_t d) const {
    const std::int64_t index = (part * kKvBlockTokens + slot) * layout_.head_dim + d;
    if (layout_.codes == KvCodes::kNone) return load_element(layout_.dtype, data_, index);
    const float scale = load_element(DType::kF16, data_, scale_place(slot, part));
    const float min = load_element(DType::kF16, data_, scale_place(slot, part) + kKvBlockTokens);
    return static_cast<float>(code(index)) * scale + min;
  }
  /// Counted in elements of 16 bits.
  std::int64_t scale_place(std::int64_t slot, std::int64_t part) const {
    return layout_.numbers_bytes() + part * 2 * kKvBlockTokens + slot;
  }
  unsigned code(std::int64_t index) const {
    if (layout_.codes == KvCodes::kInt8) return std::to_integer<unsigned>(data_[index]);
    return std::to_integer<unsigned>(data_[index / 2]) >> (index % 2 * 4) & 15U;
  }
  void store_code(std::int64_t index, unsigned code) {
    if (layout_.codes == KvCodes::kInt8) {
      data_[index] = static_cast<std::byte>(code);
      return;
    }
    const unsigned other = std::to_integer<unsigned>(data_[index / 2]) & (index % 2 == 0 ? 0xF0U : 0x0FU);
    data_[index / 2] = static_cast<std::byte>(other | code << (index % 2 * 4));
  }

  const KvLayout& layout_;
  std::byte* data_;
};

float gated(Gate gate, float x) {
  switch (gate) {
    case Gate::kSilu: return x / (1.0F + std::exp(-x));
    case Gate::kGelu: return 0.5F * x * (1.0F + std::erf(x / std::sqrt(2.0F)));
    case Gate::kGeluTanh:
      return 0.5F * x * (1.0F + std::tanh(std::sqrt(2.0F / 3.14159265F) * (x + 0.044715F * x * x * x)));
  }
  return 0;
}

class ReferenceBackend final : public Backend {
 public:
  std::string description() const override { return "reference"; }
  std::int64_t available_bytes() const override { return available_memory_bytes(); }

  Result<std::shared_ptr<const PackedWeight>> pack(WeightSource source, Arithmetic) override {
    if (source.packed != nullptr) return unsupported("weights packed for the CPU, on the reference");
    return std::shared_ptr<const PackedWeight>(std::make_shared<ReferenceWeight>(source));
  }
  Result<std::shared_ptr<const DeviceVector>> upload(std::span<const float> values) override {
    return std::shared_ptr<const DeviceVector>(std::make_shared<ReferenceVector>(values));
  }
  Result<std::byte*> allocate(std::int64_t bytes, const char*) override {
    allocations_.push_back(std::make_unique<std::byte[]>(static_cast<std::size_t>(bytes)));
    return allocations_.back().get();
  }
  Status reserve(const StepRoom&) override { return {}; }
  std::int64_t reserve_bytes(const StepRoom&) const override { return 0; }

  void embed(const PackedWeight& table, const Batch& batch, float scale, float* x) override {
    check_batch(batch);
    const auto& weight = static_cast<const ReferenceWeight&>(table);
    for (std::int32_t row = 0; row < batch.rows; ++row) {
      const float* values = weight.row(batch.tokens[static_cast<std::size_t>(row)]);
      for (std::int64_t i = 0; i < weight.cols(); ++i) x[row * weight.cols() + i] = scale * values[i];
    }
  }

  void rope_angles(const Rope& rope, const Batch& batch, float* angles) override {
    const std::int64_t half = rope.inverse_frequencies->size();
    for (std::int32_t row = 0; row < batch.rows; ++row) {
      for (std::int64_t i = 0; i < half; ++i) {
        const float angle =
            static_cast<float>(batch.positions[static_cast<std::size_t>(row)]) * rope.inverse_frequencies->data()[i];
        angles[row * 2 * half + i] = std::cos(angle) * rope.scale;
        angles[row * 2 * half + half + i] = std::sin(angle) * rope.scale;
      }
    }
  }

  void norm_qkv(const NormQkvArgs& args, const Batch& batch, const KvCacheView& cache) override {
    check_norm_qkv(args, batch, cache);
    const std::int64_t head_dim = cache.layout.head_dim;
    const std::int64_t q_width = args.heads * head_dim;
    const std::int64_t kv_width = cache.layout.kv_heads * head_dim;
    const std::vector<float> product = multiply(*args.linear, args.x, batch.rows);
    for (const SequenceSlice& slice : batch.slices) {
      for (std::int32_t i = 0; i < slice.rows; ++i) {
        const std::int64_t row = slice.first_row + i;
        std::vector<float> values(product.begin() + row * (q_width + 2 * kv_width),
                                  product.begin() + (row + 1) * (q_width + 2 * kv_width));
        for (std::int64_t h = 0; h < args.heads + cache.layout.kv_heads; ++h) {
          float* head = values.data() + h * head_dim;
          const std::vector<float> normed = normalize(h < args.heads ? args.q_norm : args.k_norm, head, head_dim);
          std::copy(normed.begin(), normed.end(), head);
          rotate(head, args.rope_angles + row * args.rotary_dim, args.rotary_dim);
        }
        std::copy_n(values.data(), q_width, args.q + row * q_width);
        const std::int64_t position = slice.first_position + i;
        const std::int32_t block = slice.blocks[static_cast<std::size_t>(position / kKvBlockTokens)];
        for (std::int64_t h = 0; h < cache.layout.kv_heads; ++h) {
          ReferenceHead head(cache.layout, cache.head(block, args.layer, h));
          const float* key = values.data() + q_width + h * head_dim;
          head.store_key(position % kKvBlockTokens, key);
          head.store_value(position % kKvBlockTokens, key + kv_width);
        }
      }
    }
  }

  void attention(const AttentionArgs& args, const Batch& batch, const KvCacheView& cache) override {
    check_attention(args, batch, cache);
    const std::int64_t head_dim = cache.layout.head_dim;
    for (const SequenceSlice& slice : batch.slices) {
      for (std::int32_t i = 0; i < slice.rows; ++i) {
        for (std::int64_t h = 0; h < args.heads; ++h) {
          const std::int64_t offset = ((slice.first_row + i) * args.heads + h) * head_dim;
          attend(slice, slice.first_position + i + 1, args, cache, h, args.q + offset, args.out + offset);
        }
      }
    }
  }

  void linear_add(const Linear& linear, const float* input, std::int64_t rows, float* x) override {
    check_linear_add(linear);
    const std::int64_t width = linear.rows();
    std::vector<float> product = multiply(linear, input, rows);
    for (float& value : product) value *= linear.epilogue.scale;
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::vector<float> added = normalize(linear.epilogue.post_norm, product.data() + row * width, width);
      for (std::int64_t i = 0; i < width; ++i) x[row * width + i] += added[static_cast<std::size_t>(i)];
    }
  }

  void norm_gated_up(const Linear& linear, Gate gate, const float* x, std::int64_t rows, float* h,
                     const Linear* /*reader*/) override {
    check_norm_gated_up(linear);
    const std::vector<float> product = multiply(linear, x, rows);
    const std::int64_t width = linear.parts[0].weight->rows();
    const bool with_up = linear.parts.size() == 2;
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t i = 0; i < width; ++i) {
        const auto g = static_cast<std::size_t>(row * linear.rows() + i);
        h[row * width + i] = gated(gate, product[g]);
        if (with_up) h[row * width + i] *= product[g + static_cast<std::size_t>(width)];
      }
    }
  }

  void norm_head(const Linear& linear, const float* x, std::span<const std::int32_t> wanted, float* logits) override {
    check_norm_head(linear);
    const Epilogue& epilogue = linear.epilogue;
    for (const std::int32_t row : wanted) {
      for (const float value : multiply(linear, x + row * linear.cols(), 1)) {
        const float scaled = value * epilogue.scale;
        *logits++ = epilogue.soft_cap == 0 ? scaled : epilogue.soft_cap * std::tanh(scaled / epilogue.soft_cap);
      }
    }
  }

  void norm_rows(const Norm& norm, const float* x, std::int64_t cols, std::span<const std::int32_t> wanted,
                 float* out) override {
    check_norm_rows(norm, cols);
    for (const std::int32_t row : wanted) {
      const std::vector<float> normed = normalize(norm, x + row * cols, cols);
      out = std::copy(normed.begin(), normed.end(), out);
    }
  }

  bool sample(std::span<const SampleRow> rows, std::span<SampledToken> tokens) override {
    std::vector<TokenLogprob> scratch;
    for (std::size_t i = 0; i < rows.size(); ++i) tokens[i] = sample_row(rows[i], scratch);
    return true;
  }

  void read(const float* from, std::int64_t count, float* to) override { std::copy_n(from, count, to); }
  void write(const float* from, std::int64_t count, float* to) override { std::copy_n(from, count, to); }

  void read_kv(const KvCacheView& cache, std::int64_t block, std::int64_t layer, std::int64_t kv_head, float* keys,
               float* values) override {
    const std::int64_t head_dim = cache.layout.head_dim;
    const ReferenceHead head(cache.layout, cache.head(block, layer, kv_head));
    for (std::int64_t i = 0; i < kKvBlockTokens * head_dim; ++i) {
      keys[i] = head.key(i / head_dim, i % head_dim);
      values[i] = head.value(i / head_dim, i % head_dim);
    }
  }

 private:
  static void rotate(float* head, const float* angles, std::int64_t rotary_dim) {
    const std::int64_t half = rotary_dim / 2;
    for (std::int64_t i = 0; i < half; ++i) {
      const float a = head[i];
      const float b = head[i + half];
      head[i] = a * angles[i] - b * angles[half + i];
      head[i + half] = b * angles[i] + a * angles[half + i];
    }
  }

  /// x * gain / rms(x); or (x - mean) * gain / standard deviation + bias; or x itself without a norm.
  static std::vector<float> normalize(const Norm& norm, const float* x, std::int64_t cols) {
    std::vector<float> result(x, x + cols);
    if (!norm) return result;
    double mean = 0;
    if (norm.kind == NormKind::kLayer) {
      for (const float value : result) mean += static_cast<double>(value) / static_cast<double>(cols);
    }
    double squares = 0;
    for (const float value : result)
      squares += (static_cast<double>(value) - mean) * (static_cast<double>(value) - mean);
    const double scale = 1.0 / std::sqrt(squares / static_cast<double>(cols) + static_cast<double>(norm.eps));
    for (std::int64_t i = 0; i < cols; ++i) {
      float& value = result[static_cast<std::size_t>(i)];
      value = norm.gain->data()[i] * static_cast<float>((static_cast<double>(value) - mean) * scale);
      if (norm.bias != nullptr) value += norm.bias->data()[i];
    }
    return result;
  }

  /// (rows, linear.rows()) of order(norm(x)) · Wᵀ + bias, sums in double.
  static std::vector<float> multiply(const Linear& linear, const float* x, std::int64_t rows) {
    const std::int64_t cols = linear.cols();
    std::vector<float> product;
    for (std::int64_t row = 0; row < rows; ++row) {
      std::vector<float> input = normalize(linear.norm, x + row * cols, cols);
      if (!linear.input_order.empty()) {
        const std::vector<float> plain = input;
        for (std::size_t i = 0; i < input.size(); ++i) {
          input[i] = plain[static_cast<std::size_t>(linear.input_order[i])];
        }
      }
      for (const LinearPart& part : linear.parts) {
        const auto& weight = static_cast<const ReferenceWeight&>(*part.weight);
        for (std::int64_t out = 0; out < weight.rows(); ++out) {
          double sum = part.bias == nullptr ? 0.0 : static_cast<double>(part.bias->data()[out]);
          const float* w = weight.row(out);
          for (std::int64_t i = 0; i < cols; ++i) {
            sum += static_cast<double>(w[i]) * static_cast<double>(input[static_cast<std::size_t>(i)]);
          }
          product.push_back(static_cast<float>(sum));
        }
      }
    }
    return product;
  }

  /// One query of one head that stands behind `tokens` - 1 cached tokens: out = softmax(scores) · V.
  static void attend(const SequenceSlice& slice, std::int64_t tokens, const AttentionArgs& args,
                     const KvCacheView& cache, std::int64_t head, const float* q, float* out) {
    const std::int64_t head_dim = cache.layout.head_dim;
    const std::int64_t kv_head = head / (args.heads / cache.layout.kv_heads);
    const auto head_of = [&](std::int64_t t) {
      const std::int32_t block = slice.blocks[static_cast<std::size_t>(t / kKvBlockTokens)];
      return ReferenceHead(cache.layout, cache.head(block, args.layer, kv_head));
    };
    const std::int64_t first = args.window == 0 ? 0 : std::max<std::int64_t>(0, tokens - args.window);
    std::vector<double> scores;  // of tokens first..tokens - 1
    for (std::int64_t t = first; t < tokens; ++t) {
      double score = 0;
      for (std::int64_t d = 0; d < head_dim; ++d) {
        score += static_cast<double>(q[d]) * static_cast<double>(head_of(t).key(t % kKvBlockTokens, d));
      }
      score *= static_cast<double>(args.scale);
      const auto cap = static_cast<double>(args.soft_cap);
      if (cap != 0) score = cap * std::tanh(score / cap);
      if (args.alibi_slopes != nullptr) {
        score += static_cast<double>(args.alibi_slopes->data()[head]) * static_cast<double>(t - (tokens - 1));
      }
      scores.push_back(score);
    }
    const double largest = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (double& score : scores) sum += score = std::exp(score - largest);
    for (std::int64_t d = 0; d < head_dim; ++d) {
      double value = 0;
      for (std::int64_t t = first; t < tokens; ++t) {
        value +=
            scores[static_cast<std::size_t>(t - first)] * static_cast<double>(head_of(t).value(t % kKvBlockTokens, d));
      }
      out[d] = static_cast<float>(value / sum);
    }
  }

  std::vector<std::unique_ptr<std::byte[]>> allocations_;
};

}  // namespace

std::unique_ptr<Backend> make_reference_backend() { return std::make_unique<ReferenceBackend>(); }

}  // namespace lanner::ops
