#include "engine/late_backend.h"

#include <algorithm>
#include <deque>
#include <utility>
#include <vector>

#include "core/check.h"
#include "ops/forwarding_backend.h"

namespace lanner {
namespace {

using ops::Batch;
using ops::SampledToken;
using ops::SampleRow;

class LateBackend final : public ops::ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;

  void embed(const ops::PackedWeight& table, const Batch& batch, float scale, float* x) override {
    const std::vector<std::int32_t> tokens = named(batch.tokens);
    Batch known = batch;
    known.tokens = tokens;
    inner().embed(table, known, scale, x);
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
    LANNER_CHECK(inner().sample(known, sampled));
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

 private:
  std::vector<std::int32_t> named(std::span<const std::int32_t> tokens) const {
    std::vector<std::int32_t> known(tokens.begin(), tokens.end());
    for (std::int32_t& token : known) {
      if (token < 0) token = newest_.at(static_cast<std::size_t>(ops::sampled_token(token)));
    }
    return known;
  }

  std::vector<std::int32_t> newest_;                   // tokens of the last sample()
  std::deque<std::vector<SampledToken>> uncollected_;  // oldest first
};

}  // namespace

std::unique_ptr<ops::Backend> answering_late(std::unique_ptr<ops::Backend> inner) {
  return std::make_unique<LateBackend>(std::move(inner));
}

}  // namespace lanner
