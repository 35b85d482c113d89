#include "ops/cuda/sampler.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/check.h"
#include "ops/cuda/cuda_error.h"

namespace lanner::ops::cuda {
namespace {

constexpr std::int64_t kAlignment = 256;

std::int64_t aligned(std::int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

bool is_greedy(const SamplingParams& params) { return params.temperature <= 0.0F || params.top_k == 1; }

bool is_penalized(const SamplingParams& params) {
  return params.repetition_penalty != 1.0F || params.presence_penalty != 0.0F || params.frequency_penalty != 0.0F;
}

/// Rows of logits that lie one behind the other and of which the best are wanted: nothing else need be said of them.
bool are_plain(std::span<const SampleRow> rows) {
  const float* place = rows.front().logits.data();
  for (const SampleRow& row : rows) {
    const bool plain = row.logits.data() == place && Sampler::takes(row) && is_greedy(*row.params) &&
                       !is_penalized(*row.params) && row.banned_tokens.empty() && row.logit_bias.empty();
    if (!plain) return false;
    place += row.logits.size();
  }
  return true;
}

IntRange append(std::span<const std::int32_t> values, std::vector<std::int32_t>& ints) {
  const IntRange range = {static_cast<std::int32_t>(ints.size()), static_cast<std::int32_t>(values.size())};
  ints.insert(ints.end(), values.begin(), values.end());
  return range;
}

SamplingTask task_of(const SampleRow& row, std::vector<std::int32_t>& ints) {
  const SamplingParams& params = *row.params;
  SamplingTask task;
  // The backend's own memory, which is written by norm_head: constant for whoever reads it, and edited here.
  task.logits = const_cast<float*>(row.logits.data());
  if (!is_greedy(params)) {
    task.inverse_temperature = 1.0 / (static_cast<double>(params.temperature) + 1e-6);
    task.uniform = uniform_at(params.seed, row.output_tokens.size());
    task.top_k = params.top_k;
    task.top_p = params.top_p;
    task.min_p = params.min_p;
  }
  if (is_penalized(params)) {
    task.repetition_penalty = params.repetition_penalty;
    task.presence_penalty = params.presence_penalty;
    task.frequency_penalty = params.frequency_penalty;
    task.history = append(row.prompt_tokens, ints);
    task.prompt_count = task.history.count;
    task.history.count += append(row.output_tokens, ints).count;
  }
  task.banned = append(row.banned_tokens, ints);
  task.biased.first = static_cast<std::int32_t>(ints.size());
  task.biased.count = static_cast<std::int32_t>(row.logit_bias.size());
  for (const LogitBias& bias : row.logit_bias) ints.push_back(bias.token);
  for (const LogitBias& bias : row.logit_bias) ints.push_back(std::bit_cast<std::int32_t>(bias.bias));
  return task;
}

bool is_edited(const SamplingTask& task) {
  return task.history.count > 0 || task.banned.count > 0 || task.biased.count > 0;
}

}  // namespace

Status Sampler::set_up() {
  constexpr auto kTokenBytes = static_cast<std::int64_t>(sizeof(std::int32_t));
  LANNER_ASSIGN_OR_RETURN(sampled_, DeviceBuffer::allocate(kMaxRows * kTokenBytes, "sampled tokens"));
  for (Slot& slot : slots_) {
    LANNER_ASSIGN_OR_RETURN(slot.results, PinnedBuffer::allocate(kMaxRows * 2 * kTokenBytes, "sampled tokens"));
  }
  return {};
}

bool Sampler::takes(const SampleRow& row) {
  return row.params->logprobs < 0 && static_cast<std::int64_t>(row.logits.size()) <= kMaxSampledVocabulary;
}

void Sampler::describe(std::span<const SampleRow> rows, cudaStream_t stream, SamplingCall* call) {
  tasks_.clear();
  ints_.clear();
  edited_.clear();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    tasks_.push_back(takes(rows[i]) ? task_of(rows[i], ints_) : SamplingTask{});
    if (is_edited(tasks_.back())) edited_.push_back(static_cast<std::int32_t>(i));
  }
  const auto task_bytes = static_cast<std::int64_t>(tasks_.size() * sizeof(SamplingTask));
  const auto int_bytes = static_cast<std::int64_t>(ints_.size() * sizeof(std::int32_t));
  const auto edited_bytes = static_cast<std::int64_t>(edited_.size() * sizeof(std::int32_t));
  const std::int64_t ints_at = aligned(task_bytes);
  const std::int64_t edited_at = ints_at + aligned(int_bytes);
  const std::int64_t bytes = edited_at + aligned(edited_bytes);
  auto host = upload_.open(bytes);
  LANNER_CHECK(host.ok());
  std::memcpy(*host, tasks_.data(), static_cast<std::size_t>(task_bytes));
  if (int_bytes > 0) std::memcpy(*host + ints_at, ints_.data(), static_cast<std::size_t>(int_bytes));
  if (edited_bytes > 0) std::memcpy(*host + edited_at, edited_.data(), static_cast<std::size_t>(edited_bytes));
  upload_.send(bytes, stream);
  const std::byte* device = upload_.device();
  call->tasks = reinterpret_cast<const SamplingTask*>(device);
  call->ints = reinterpret_cast<const std::int32_t*>(device + ints_at);
  call->edited = reinterpret_cast<const std::int32_t*>(device + edited_at);
  call->edited_count = static_cast<std::int32_t>(edited_.size());
}

void Sampler::start(const KernelContext& context, std::span<const SampleRow> rows) {
  LANNER_CHECK(under_way_ < kMostUncollected && static_cast<std::int64_t>(rows.size()) <= kMaxRows);
  Slot& slot = slots_[next_];
  next_ = (next_ + 1) % kMostUncollected;
  ++under_way_;
  const auto vocab = static_cast<std::int64_t>(rows.front().logits.size());
  SamplingCall call;
  call.rows = static_cast<std::int32_t>(rows.size());
  call.vocab = static_cast<std::int32_t>(vocab);
  if (are_plain(rows)) {
    call.logits = const_cast<float*>(rows.front().logits.data());
  } else {
    describe(rows, context.stream, &call);
  }
  const std::int64_t chunks = (vocab + kScanChunk - 1) / kScanChunk;
  const std::int64_t scan_bytes = call.rows * chunks * static_cast<std::int64_t>(sizeof(ScanResult));
  if (scans_.bytes() < scan_bytes) {
    auto buffer = DeviceBuffer::allocate(std::max(scan_bytes, 2 * scans_.bytes()), "scans of logits");
    LANNER_CHECK(buffer.ok());
    scans_ = *std::move(buffer);
  }
  call.scans = scans_.as<ScanResult>();
  call.sampled = sampled_.as<std::int32_t>();
  call.results = reinterpret_cast<int2*>(slot.results.data());
  LANNER_CUDA_CHECK(sample_rows(context, call));
  slot.done.record(context.stream);
}

void Sampler::collect(std::span<SampledToken> tokens) {
  LANNER_CHECK(under_way_ > 0);
  wait_and_read(slot(under_way_), tokens);
  --under_way_;
}

void Sampler::collect_newest(std::span<SampledToken> tokens) {
  LANNER_CHECK(under_way_ > 0);
  wait_and_read(slot(1), tokens);
  --under_way_;
  next_ = (next_ + kMostUncollected - 1) % kMostUncollected;
}

std::int32_t Sampler::newest_token(std::int32_t row) const {
  slot(1).done.wait();
  return reinterpret_cast<const int2*>(slot(1).results.data())[row].x;
}

void Sampler::wait_and_read(const Slot& slot, std::span<SampledToken> tokens) {
  slot.done.wait();
  const auto* results = reinterpret_cast<const int2*>(slot.results.data());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens[i].finite = results[i].y != 0;
    tokens[i].token = results[i].x;
  }
}

}  // namespace lanner::ops::cuda
