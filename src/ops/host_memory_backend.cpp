#include "ops/host_memory_backend.h"

#include <algorithm>
#include <cstdio>
#include <utility>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/check.h"

namespace lanner::ops::testing {
namespace {

constexpr std::int64_t kFloat = 4;

/// A growing piece of the device's memory. What it outgrows is freed with the device: little, since sizes double.
class Place {
 public:
  float* take(Backend& inner, std::int64_t count) {
    if (count > count_) {
      count_ = std::max(count, 2 * count_);
      auto bytes = inner.allocate(count_ * kFloat, "a test's copy");
      LANNER_CHECK(bytes.ok());
      data_ = reinterpret_cast<float*>(*bytes);
    }
    return data_;
  }
  float* copy(Backend& inner, const float* from, std::int64_t count) {
    if (from == nullptr || count == 0) return nullptr;
    float* to = take(inner, count);
    inner.write(from, count, to);
    return to;
  }

  float* place() const { return data_; }

 private:
  float* data_ = nullptr;
  std::int64_t count_ = 0;
};

std::int64_t rows_up_to(std::span<const std::int32_t> wanted) {
  return wanted.empty() ? 0 : *std::ranges::max_element(wanted) + 1;
}

class HostMemoryBackend final : public Backend {
 public:
  explicit HostMemoryBackend(std::unique_ptr<Backend> inner) : inner_(std::move(inner)) {
    static constexpr float kRow[16] = {};
    WeightSource source;
    source.rows = 1;
    source.cols = 16;
    source.dense = reinterpret_cast<const std::byte*>(kRow);
    auto table = inner_->pack(source, Arithmetic::kExact);
    LANNER_CHECK(table.ok());
    table_ = *table;
  }

  std::string description() const override { return inner_->description(); }
  std::int64_t available_bytes() const override { return inner_->available_bytes(); }
  std::int64_t copy_bytes() const override { return inner_->copy_bytes(); }
  Result<std::shared_ptr<const PackedWeight>> pack(WeightSource source, Arithmetic arithmetic) override {
    return inner_->pack(std::move(source), arithmetic);
  }
  Result<std::shared_ptr<const DeviceVector>> upload(std::span<const float> values) override {
    return inner_->upload(values);
  }
  Result<std::byte*> allocate(std::int64_t bytes, const char* what) override {
    LANNER_ASSIGN_OR_RETURN(auto buffer, AlignedBuffer::allocate(bytes, what));
    allocations_.push_back(std::move(buffer));
    return allocations_.back().data();
  }
  Status reserve(const StepRoom& room) override { return inner_->reserve(room); }
  std::int64_t reserve_bytes(const StepRoom& room) const override { return inner_->reserve_bytes(room); }

  void embed(const PackedWeight& table, const Batch& batch, float scale, float* x) override {
    const std::int64_t count = batch.rows * table.cols();
    float* out = out_.copy(*inner_, x, count);
    inner_->embed(table, batch, scale, out);
    fetch(out, count, x);
  }
  void rope_angles(const Rope& rope, const Batch& batch, float* angles) override {
    begin(batch);
    const std::int64_t count = batch.rows * 2 * rope.inverse_frequencies->size();
    float* out = out_.copy(*inner_, angles, count);
    inner_->rope_angles(rope, batch, out);
    fetch(out, count, angles);
  }
  void norm_qkv(const NormQkvArgs& args, const Batch& batch, const KvCacheView& cache) override {
    begin(batch);
    NormQkvArgs device = args;
    const std::int64_t count = batch.rows * args.heads * cache.layout.head_dim;
    device.x = in_.copy(*inner_, args.x, batch.rows * args.linear->cols());
    device.rope_angles = angles_.copy(*inner_, args.rope_angles, batch.rows * args.rotary_dim);
    device.q = out_.copy(*inner_, args.q, count);
    const KvCacheView copy = copied(cache);
    inner_->norm_qkv(device, batch, copy);
    fetch(device.q, count, args.q);
    fetch(reinterpret_cast<const float*>(copy.data), floats_of(cache), reinterpret_cast<float*>(cache.data));
  }
  void attention(const AttentionArgs& args, const Batch& batch, const KvCacheView& cache) override {
    begin(batch);
    AttentionArgs device = args;
    const std::int64_t count = batch.rows * args.heads * cache.layout.head_dim;
    device.q = in_.copy(*inner_, args.q, count);
    device.out = (args.reader == nullptr ? out_ : handed_).copy(*inner_, args.out, count);
    inner_->attention(device, batch, copied(cache));
    if (args.reader == nullptr) fetch(device.out, count, args.out);
  }
  void linear_add(const Linear& linear, const float* input, std::int64_t rows, float* x) override {
    const float* in = in_.copy(*inner_, input, rows * linear.cols());
    float* out = out_.copy(*inner_, x, rows * linear.rows());
    inner_->linear_add(linear, in, rows, out);
    fetch(out, rows * linear.rows(), x);
  }
  void handed_linear_add(const Linear& linear, const float* /*input*/, std::int64_t rows, float* x) override {
    float* out = out_.copy(*inner_, x, rows * linear.rows());
    inner_->handed_linear_add(linear, handed_.place(), rows, out);
    fetch(out, rows * linear.rows(), x);
  }
  void norm_gated_up(const Linear& linear, Gate gate, const float* x, std::int64_t rows, float* h,
                     const Linear* reader) override {
    const std::int64_t count = rows * linear.parts.front().weight->rows();
    const float* in = in_.copy(*inner_, x, rows * linear.cols());
    float* out = (reader == nullptr ? out_ : handed_).copy(*inner_, h, count);
    inner_->norm_gated_up(linear, gate, in, rows, out, reader);
    if (reader == nullptr) fetch(out, count, h);
  }
  void norm_head(const Linear& linear, const float* x, std::span<const std::int32_t> wanted, float* logits) override {
    const std::int64_t count = static_cast<std::int64_t>(wanted.size()) * linear.rows();
    const float* in = in_.copy(*inner_, x, rows_up_to(wanted) * linear.cols());
    float* out = out_.copy(*inner_, logits, count);
    inner_->norm_head(linear, in, wanted, out);
    fetch(out, count, logits);
  }
  void norm_rows(const Norm& norm, const float* x, std::int64_t cols, std::span<const std::int32_t> wanted,
                 float* out) override {
    const std::int64_t count = static_cast<std::int64_t>(wanted.size()) * cols;
    const float* in = in_.copy(*inner_, x, rows_up_to(wanted) * cols);
    float* result = out_.copy(*inner_, out, count);
    inner_->norm_rows(norm, in, cols, wanted, result);
    fetch(result, count, out);
  }
  bool sample(std::span<const SampleRow> rows, std::span<SampledToken> tokens) override {
    if (rows.empty()) return true;
    const auto width = static_cast<std::int64_t>(rows.front().logits.size());
    float* logits = in_.take(*inner_, static_cast<std::int64_t>(rows.size()) * width);
    std::vector<SampleRow> device(rows.begin(), rows.end());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      float* place = logits + static_cast<std::int64_t>(i) * width;
      inner_->write(rows[i].logits.data(), width, place);
      device[i].logits = {place, rows[i].logits.size()};
    }
    if (!inner_->sample(device, tokens)) inner_->collect(tokens);
    return true;
  }
  void read(const float* from, std::int64_t count, float* to) override { std::copy_n(from, count, to); }
  void write(const float* from, std::int64_t count, float* to) override { std::copy_n(from, count, to); }
  void read_kv(const KvCacheView& cache, std::int64_t block, std::int64_t layer, std::int64_t kv_head, float* keys,
               float* values) override {
    inner_->read_kv(copied(cache), block, layer, kv_head, keys, values);
  }

 private:
  /// read(), of a device that has not failed.
  void fetch(const float* from, std::int64_t count, float* to) {
    inner_->read(from, count, to);
    const Status failure = inner_->take_failure();
    if (!failure.ok()) std::fprintf(stderr, "%s\n", failure.message().c_str());
    LANNER_CHECK(failure.ok());
  }
  /// The operations of a step follow an embed() of its batch. The tests' tokens may be of a larger table than this one.
  void begin(const Batch& batch) {
    const std::vector<std::int32_t> tokens(static_cast<std::size_t>(batch.rows), 0);
    Batch copy = batch;
    copy.tokens = tokens;
    inner_->embed(*table_, copy, 1.0F, embedded_.take(*inner_, batch.rows * table_->cols()));
  }
  static std::int64_t floats_of(const KvCacheView& cache) { return cache.blocks * cache.layout.block_bytes() / kFloat; }
  KvCacheView copied(const KvCacheView& cache) {
    KvCacheView copy = cache;
    float* data = cache_.copy(*inner_, reinterpret_cast<const float*>(cache.data), floats_of(cache));
    copy.data = reinterpret_cast<std::byte*>(data);
    return copy;
  }

  std::unique_ptr<Backend> inner_;
  std::shared_ptr<const PackedWeight> table_;  // (1, 16)
  std::vector<AlignedBuffer> allocations_;
  Place in_;
  Place out_;
  Place handed_;  // what an operation left for the next
  Place angles_;
  Place cache_;
  Place embedded_;
};

}  // namespace

std::unique_ptr<Backend> on_host_memory(std::unique_ptr<Backend> inner) {
  return std::make_unique<HostMemoryBackend>(std::move(inner));
}

}  // namespace lanner::ops::testing
