#include "engine/late_backend.h"

#include <algorithm>
#include <deque>
#include <utility>
#include <vector>

#include "core/check.h"

namespace lanner {
namespace {

using ops::Batch;
using ops::KvCacheView;
using ops::Linear;
using ops::SampledToken;
using ops::SampleRow;

class LateBackend final : public ops::Backend {
 public:
  explicit LateBackend(std::unique_ptr<ops::Backend> inner) : inner_(std::move(inner)) {}

  std::string description() const override { return inner_->description(); }
  std::int64_t available_bytes() const override { return inner_->available_bytes(); }
  Result<std::shared_ptr<const ops::PackedWeight>> pack(ops::WeightSource source, ops::Arithmetic arithmetic) override {
    return inner_->pack(std::move(source), arithmetic);
  }
  Result<std::shared_ptr<const ops::DeviceVector>> upload(std::span<const float> values) override {
    return inner_->upload(values);
  }
  Result<std::byte*> allocate(std::int64_t bytes, const char* what) override { return inner_->allocate(bytes, what); }
  Status reserve(std::int64_t rows, std::int64_t max_cols) override { return inner_->reserve(rows, max_cols); }
  std::int64_t reserve_bytes(std::int64_t rows, std::int64_t max_cols) const override {
    return inner_->reserve_bytes(rows, max_cols);
  }

  void embed(const ops::PackedWeight& table, const Batch& batch, float scale, float* x) override {
    const std::vector<std::int32_t> tokens = named(batch.tokens);
    Batch known = batch;
    known.tokens = tokens;
    inner_->embed(table, known, scale, x);
  }
  void rope_angles(const ops::Rope& rope, const Batch& batch, float* angles) override {
    inner_->rope_angles(rope, batch, angles);
  }
  void norm_qkv(const ops::NormQkvArgs& args, const Batch& batch, const KvCacheView& cache) override {
    inner_->norm_qkv(args, batch, cache);
  }
  void attention(const ops::AttentionArgs& args, const Batch& batch, const KvCacheView& cache) override {
    inner_->attention(args, batch, cache);
  }
  void linear_add(const Linear& linear, const float* input, std::int64_t rows, float* x) override {
    inner_->linear_add(linear, input, rows, x);
  }
  void handed_linear_add(const Linear& linear, const float* input, std::int64_t rows, float* x) override {
    inner_->handed_linear_add(linear, input, rows, x);
  }
  void norm_gated_up(const Linear& linear, ops::Gate gate, const float* x, std::int64_t rows, float* h,
                     const Linear* reader) override {
    inner_->norm_gated_up(linear, gate, x, rows, h, reader);
  }
  void norm_head(const Linear& linear, const float* x, std::span<const std::int32_t> wanted, float* logits) override {
    inner_->norm_head(linear, x, wanted, logits);
  }
  void norm_rows(const ops::Norm& norm, const float* x, std::int64_t cols, std::span<const std::int32_t> wanted,
                 float* out) override {
    inner_->norm_rows(norm, x, cols, wanted, out);
  }

  /// Steps with log-probabilities are answered at once, so that both ways meet in one run.
  bool sample(std::span<const SampleRow> rows, std::span<SampledToken> tokens) override {
    std::vector<std::vector<std::int32_t>> outputs;
    std::vector<SampleRow> known(rows.begin(), rows.end());
    bool late = true;
    for (SampleRow& row : known) {
      row.output_tokens = outputs.emplace_back(named(row.output_tokens));
      late = late && row.params->logprobs < 0;
    }
    std::vector<SampledToken> sampled(rows.size());
    LANNER_CHECK(inner_->sample(known, sampled));
    newest_.clear();
    for (const SampledToken& token : sampled) newest_.push_back(token.token);
    if (!late) {
      std::ranges::move(sampled, tokens.begin());
      return true;
    }
    uncollected_.push_back(std::move(sampled));
    LANNER_CHECK(uncollected_.size() <= ops::kMostUncollected);
    return false;
  }
  void collect(std::span<SampledToken> tokens) override {
    LANNER_CHECK(!uncollected_.empty() && uncollected_.front().size() == tokens.size());
    std::ranges::move(uncollected_.front(), tokens.begin());
    uncollected_.pop_front();
  }

  void read(const float* from, std::int64_t count, float* to) override { inner_->read(from, count, to); }
  void write(const float* from, std::int64_t count, float* to) override { inner_->write(from, count, to); }
  void read_kv(const KvCacheView& cache, std::int64_t block, std::int64_t layer, std::int64_t kv_head, float* keys,
               float* values) override {
    inner_->read_kv(cache, block, layer, kv_head, keys, values);
  }

 private:
  std::vector<std::int32_t> named(std::span<const std::int32_t> tokens) const {
    std::vector<std::int32_t> known(tokens.begin(), tokens.end());
    for (std::int32_t& token : known) {
      if (token < 0) token = newest_.at(static_cast<std::size_t>(ops::sampled_token(token)));
    }
    return known;
  }

  std::unique_ptr<ops::Backend> inner_;
  std::vector<std::int32_t> newest_;                   // tokens of the last sample()
  std::deque<std::vector<SampledToken>> uncollected_;  // oldest first
};

}  // namespace

std::unique_ptr<ops::Backend> answering_late(std::unique_ptr<ops::Backend> inner) {
  return std::make_unique<LateBackend>(std::move(inner));
}

}  // namespace lanner
