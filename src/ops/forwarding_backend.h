#pragma once
// A backend that hands everything on to another, to be derived from by those that look at something on its way, or
// change it: calibration, and tests.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ops/backend.h"

namespace lanner::ops {

class ForwardingBackend : public Backend {
 public:
  explicit ForwardingBackend(std::unique_ptr<Backend> inner) : inner_(std::move(inner)) {}

  std::string description() const override { return inner_->description(); }
  std::int64_t available_bytes() const override { return inner_->available_bytes(); }
  std::int64_t copy_bytes() const override { return inner_->copy_bytes(); }
  void enter_thread() override { inner_->enter_thread(); }
  Result<std::shared_ptr<const PackedWeight>> pack(WeightSource source, Arithmetic arithmetic) override {
    return inner_->pack(std::move(source), arithmetic);
  }
  Result<std::shared_ptr<const DeviceVector>> upload(std::span<const float> values) override {
    return inner_->upload(values);
  }
  Result<std::byte*> allocate(std::int64_t bytes, const char* what) override { return inner_->allocate(bytes, what); }
  Status reserve(const StepRoom& room) override { return inner_->reserve(room); }
  std::int64_t reserve_bytes(const StepRoom& room) const override { return inner_->reserve_bytes(room); }
  Status prepare_linear(const Linear& linear) override { return inner_->prepare_linear(linear); }

  bool begin_step(const StepPlan& plan) override { return inner_->begin_step(plan); }
  bool end_step() override { return inner_->end_step(); }
  Status take_failure() override { return inner_->take_failure(); }
  std::vector<std::string> take_notes() override { return inner_->take_notes(); }

  void embed(const PackedWeight& table, const Batch& batch, float scale, float* x) override {
    inner_->embed(table, batch, scale, x);
  }
  void rope_angles(const Rope& rope, const Batch& batch, float* angles) override {
    inner_->rope_angles(rope, batch, angles);
  }
  void norm_qkv(const NormQkvArgs& args, const Batch& batch, const KvCacheView& cache) override {
    inner_->norm_qkv(args, batch, cache);
  }
  void attention(const AttentionArgs& args, const Batch& batch, const KvCacheView& cache) override {
    inner_->attention(args, batch, cache);
  }
  void linear_add(const Linear& linear, const float* input, std::int64_t rows, float* x) override {
    inner_->linear_add(linear, input, rows, x);
  }
  void handed_linear_add(const Linear& linear, const float* input, std::int64_t rows, float* x) override {
    inner_->handed_linear_add(linear, input, rows, x);
  }
  void norm_gated_up(const Linear& linear, Gate gate, const float* x, std::int64_t rows, float* h,
                     const Linear* reader) override {
    inner_->norm_gated_up(linear, gate, x, rows, h, reader);
  }
  void norm_head(const Linear& linear, const float* x, std::span<const std::int32_t> wanted, float* logits) override {
    inner_->norm_head(linear, x, wanted, logits);
  }
  void norm_rows(const Norm& norm, const float* x, std::int64_t cols, std::span<const std::int32_t> wanted,
                 float* out) override {
    inner_->norm_rows(norm, x, cols, wanted, out);
  }
  bool sample(std::span<const SampleRow> rows, std::span<SampledToken> tokens) override {
    return inner_->sample(rows, tokens);
  }
  void collect(std::span<SampledToken> tokens) override { inner_->collect(tokens); }

  void read(const float* from, std::int64_t count, float* to) override { inner_->read(from, count, to); }
  void write(const float* from, std::int64_t count, float* to) override { inner_->write(from, count, to); }
  void read_kv(const KvCacheView& cache, std::int64_t block, std::int64_t layer, std::int64_t kv_head, float* keys,
               float* values) override {
    inner_->read_kv(cache, block, layer, kv_head, keys, values);
  }

 protected:
  Backend& inner() const { return *inner_; }

 private:
  std::unique_ptr<Backend> inner_;
};

}  // namespace lanner::ops
