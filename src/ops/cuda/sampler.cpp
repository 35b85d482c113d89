#include "ops/cuda/sampler.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/check.h"
#include "ops/cuda/cuda_error.h"

namespace lanner::ops::cuda {
namespace {

constexpr std::int64_t kAlignment = 256;
// Bytes that reserve() takes at most, of a buffer on the device and of one that is pinned, which is slow to come by.
constexpr std::int64_t kMostReserved = std::int64_t{256} << 20;
constexpr std::int64_t kMostPinned = std::int64_t{4} << 20;
constexpr std::int64_t kExtraInts = 1 << 16;  // tokens that are banned or have a bias, of all rows

std::int64_t aligned(std::int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

/// Rows of logits that lie one behind the other and of which the best are wanted: nothing else need be said of them.
bool are_plain(std::span<const SampleRow> rows) {
  const float* place = rows.front().logits.data();
  for (const SampleRow& row : rows) {
    const bool plain =
        row.logits.data() == place && is_greedy(*row.params) && !is_edited(row) && row.params->logprobs < 0;
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
  task.allowed = {static_cast<std::int32_t>(ints.size()), static_cast<std::int32_t>(row.allowed_tokens.size())};
  for (const std::uint32_t word : row.allowed_tokens) ints.push_back(std::bit_cast<std::int32_t>(word));
  task.biased.first = static_cast<std::int32_t>(ints.size());
  task.biased.count = static_cast<std::int32_t>(row.logit_bias.size());
  for (const LogitBias& bias : row.logit_bias) ints.push_back(bias.token);
  for (const LogitBias& bias : row.logit_bias) ints.push_back(std::bit_cast<std::int32_t>(bias.bias));
  return task;
}

/// Room for `bytes`; to free what was there is to wait for whoever uses it.
template <typename Buffer>
Status grow(Buffer& buffer, std::int64_t bytes, const char* what) {
  if (buffer.bytes() >= bytes) return {};
  LANNER_ASSIGN_OR_RETURN(buffer, Buffer::allocate(bytes, what));
  return {};
}

bool is_edited(const SamplingTask& task) {
  return task.history.count > 0 || task.banned.count > 0 || task.allowed.count > 0 || task.biased.count > 0;
}

std::int64_t scan_bytes(std::int64_t rows, std::int64_t vocab) {
  const std::int64_t chunks = (vocab + kScanChunk - 1) / kScanChunk;
  return rows * chunks * static_cast<std::int64_t>(sizeof(ScanResult));
}

/// What reserve() takes of each buffer.
struct Sizes {
  std::int64_t scans;
  std::int64_t raw;
  std::int64_t reports;  // pinned, for each slot
  std::int64_t lists;
};

Sizes sizes_for(const StepRoom& room) {
  const std::int64_t rows = room.sampled;
  const std::int64_t reports = rows * (1 + kMostLogprobs) * static_cast<std::int64_t>(sizeof(TokenReport));
  const auto row_bytes = static_cast<std::int64_t>(sizeof(SamplingTask) + 2 * sizeof(std::int32_t));
  const std::int64_t lists = rows * row_bytes + (room.history + kExtraInts) * 4 + 4 * kAlignment;
  return {.scans = scan_bytes(rows, room.vocab),
          .raw = std::min(rows * room.vocab * 4, kMostReserved),
          .reports = std::min(reports, kMostPinned),
          .lists = rows == 0 ? 0 : std::min(lists, kMostPinned)};
}

}  // namespace

Status Sampler::set_up() {
  constexpr auto kTokenBytes = static_cast<std::int64_t>(sizeof(std::int32_t));
  LANNER_ASSIGN_OR_RETURN(sampled_, DeviceBuffer::allocate(kMaxRows * kTokenBytes, "sampled tokens"));
  for (Slot& slot : slots_) {
    LANNER_ASSIGN_OR_RETURN(slot.results, PinnedBuffer::allocate(kMaxRows * 2 * kTokenBytes, "sampled tokens"));
    LANNER_ASSIGN_OR_RETURN(slot.done, DeviceEvent::create());
  }
  return {};
}

Status Sampler::reserve(const StepRoom& room) {
  const Sizes sizes = sizes_for(room);
  LANNER_RETURN_IF_ERROR(grow(scans_, sizes.scans, "scans of logits"));
  LANNER_RETURN_IF_ERROR(grow(raw_, sizes.raw, "logits before penalties"));
  for (Slot& slot : slots_) LANNER_RETURN_IF_ERROR(grow(slot.reports, sizes.reports, "log-probabilities"));
  return upload_.reserve(sizes.lists);
}

std::int64_t Sampler::reserve_bytes(const StepRoom& room) {
  const Sizes sizes = sizes_for(room);
  return sizes.scans + sizes.raw + MirroredBuffer::device_bytes(sizes.lists);
}

Status Sampler::describe(std::span<const SampleRow> rows, cudaStream_t stream, Slot& slot, SamplingCall* call) {
  tasks_.clear();
  ints_.clear();
  edited_.clear();
  reported_.clear();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    tasks_.push_back(task_of(rows[i], ints_));
    if (is_edited(tasks_.back())) edited_.push_back(static_cast<std::int32_t>(i));
    if (rows[i].params->logprobs >= 0) reported_.push_back(static_cast<std::int32_t>(i));
  }
  if (!reported_.empty()) LANNER_RETURN_IF_ERROR(give_room(rows, slot, call));
  return upload(stream, call);
}

/// For log-probabilities.
Status Sampler::give_room(std::span<const SampleRow> rows, Slot& slot, SamplingCall* call) {
  const auto vocab = static_cast<std::int64_t>(rows.front().logits.size());
  std::int64_t copies = 0;
  std::int32_t reports = 0;
  for (const std::int32_t row : reported_) {
    SamplingTask& task = tasks_[static_cast<std::size_t>(row)];
    const std::int64_t wanted = rows[static_cast<std::size_t>(row)].params->logprobs;
    task.best_count = static_cast<std::int32_t>(std::min({wanted, vocab, std::int64_t{kMostLogprobs}}));
    task.first_report = reports;
    slot.reported.push_back({row, reports, task.best_count});
    reports += 1 + task.best_count;
    if (is_edited(task)) ++copies;
  }
  const auto report_bytes = reports * static_cast<std::int64_t>(sizeof(TokenReport));
  LANNER_RETURN_IF_ERROR(grow(raw_, copies * vocab * 4, "logits before penalties"));
  LANNER_RETURN_IF_ERROR(grow(slot.reports, report_bytes, "log-probabilities"));
  call->reports = reinterpret_cast<TokenReport*>(slot.reports.data());
  auto* copy = raw_.as<float>();
  for (const std::int32_t row : reported_) {
    SamplingTask& task = tasks_[static_cast<std::size_t>(row)];
    if (!is_edited(task)) continue;
    task.raw = copy;
    copy += vocab;
  }
  return {};
}

Status Sampler::upload(cudaStream_t stream, SamplingCall* call) {
  const auto place = [](const auto& list, std::int64_t* bytes) {
    const std::int64_t offset = *bytes;
    *bytes += aligned(static_cast<std::int64_t>(std::span(list).size_bytes()));
    return offset;
  };
  std::int64_t bytes = 0;
  const std::int64_t tasks_at = place(tasks_, &bytes);
  const std::int64_t ints_at = place(ints_, &bytes);
  const std::int64_t edited_at = place(edited_, &bytes);
  const std::int64_t reported_at = place(reported_, &bytes);
  LANNER_ASSIGN_OR_RETURN(std::byte* const host, upload_.open(bytes));
  const auto write = [&](const auto& list, std::int64_t at) {
    if (!list.empty()) std::memcpy(host + at, list.data(), std::span(list).size_bytes());
  };
  write(tasks_, tasks_at);
  write(ints_, ints_at);
  write(edited_, edited_at);
  write(reported_, reported_at);
  LANNER_RETURN_IF_ERROR(cuda_status(upload_.send(bytes, stream), "what is told of sampling"));
  const std::byte* device = upload_.device();
  call->tasks = reinterpret_cast<const SamplingTask*>(device + tasks_at);
  call->ints = reinterpret_cast<const std::int32_t*>(device + ints_at);
  call->edited = reinterpret_cast<const std::int32_t*>(device + edited_at);
  call->edited_count = static_cast<std::int32_t>(edited_.size());
  call->reported = reinterpret_cast<const std::int32_t*>(device + reported_at);
  call->reported_count = static_cast<std::int32_t>(reported_.size());
  return {};
}

Status Sampler::start(const KernelContext& context, std::span<const SampleRow> rows) {
  LANNER_CHECK(under_way_ < kMostUncollected && static_cast<std::int64_t>(rows.size()) <= kMaxRows);
  Slot& slot = slots_[next_];
  slot.reported.clear();
  const auto vocab = static_cast<std::int64_t>(rows.front().logits.size());
  LANNER_CHECK(vocab <= kCudaMaxVocabulary);
  SamplingCall call;
  call.rows = static_cast<std::int32_t>(rows.size());
  call.vocab = static_cast<std::int32_t>(vocab);
  if (are_plain(rows)) {
    call.logits = const_cast<float*>(rows.front().logits.data());
  } else {
    LANNER_RETURN_IF_ERROR(describe(rows, context.stream, slot, &call));
  }
  LANNER_RETURN_IF_ERROR(grow(scans_, scan_bytes(call.rows, vocab), "scans of logits"));
  call.scans = scans_.as<ScanResult>();
  call.sampled = sampled_.as<std::int32_t>();
  call.results = reinterpret_cast<int2*>(slot.results.data());
  LANNER_RETURN_IF_ERROR(cuda_status(sample_rows(context, call), "sampling"));
  LANNER_RETURN_IF_ERROR(cuda_status(slot.done.record(context.stream), "sampling"));
  next_ = (next_ + 1) % kMostUncollected;
  ++under_way_;
  return {};
}

Status Sampler::collect(std::span<SampledToken> tokens) {
  LANNER_CHECK(under_way_ > 0);
  const Slot& slot = slots_[(next_ - under_way_ + kMostUncollected) % kMostUncollected];
  --under_way_;
  LANNER_RETURN_IF_ERROR(cuda_status(slot.done.wait(), "a step"));
  const auto* results = reinterpret_cast<const int2*>(slot.results.data());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens[i].finite = results[i].y != 0;
    tokens[i].token = results[i].x;
  }
  const auto* reports = reinterpret_cast<const TokenReport*>(slot.reports.data());
  for (const Report& report : slot.reported) {
    SampledToken& token = tokens[static_cast<std::size_t>(report.row)];
    if (!token.finite) continue;
    token.logprob = reports[report.first].logprob;
    for (const TokenReport& best : std::span(reports + report.first + 1, static_cast<std::size_t>(report.best))) {
      token.top.push_back({best.token, best.logprob});
    }
  }
  return {};
}

}  // namespace lanner::ops::cuda
