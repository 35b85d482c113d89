// Sampling: two to four launches for a step's rows.
//
//   edit_logits     a block a row that has penalties, biases, bans or a mask; writes into the row. A bitmap of the
//                   vocabulary, in shared memory, tells which thread is the first to meet a token
//   scan_logits     a block a chunk of 4,096 logits: the best, the least, and whether all are finite
//   choose_tokens   a block a row: the best of its chunks; for a draw, the walk of draw.cuh
//   report_logprobs a block a row that wants log-probabilities, of the logits before they were edited
//
// Bound: reading the logits, once for greedy rows, three to six times for a draw, from the second-level cache then.

#include "ops/cuda/sampling.h"

#include <cfloat>

#include "ops/cuda/device.cuh"
#include "ops/cuda/draw.cuh"

namespace lanner::ops::cuda {
namespace {

constexpr int kEditThreads = 512;
constexpr int kScanThreads = 256;
constexpr float kBannedLogit = -FLT_MAX;  // where the host writes -infinity: finite, and of no weight
constexpr float kLeastCounted = -1e38F;

// --- penalties, biases, bans ----------------------------------------------------------------------------------------

struct Lists {
  const std::int32_t* ints;
  const std::int32_t* sampled;

  __device__ std::int32_t token(const IntRange& range, int i) const {
    const std::int32_t token = load_fresh(ints + range.first + i);
    return token >= 0 ? token : load_fresh(sampled + (-1 - token));  // see sampled_token()
  }
};

/// What is not finite must show, whatever is done to it.
__device__ void edit(float* place, float value) {
  if (fabsf(load_fresh(place)) <= FLT_MAX) *place = value;
}

__device__ bool first_to_mark(unsigned* bitmap, std::int32_t token) {
  const unsigned bit = 1U << (token % 32);
  return (atomicOr(bitmap + token / 32, bit) & bit) == 0;
}

__device__ void clear(unsigned* bitmap, int vocab) {
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i * 32 < vocab; i += kEditThreads) bitmap[i] = 0;
  __syncthreads();
}

__device__ void penalize_output(const SamplingTask& task, const Lists& lists, unsigned* bitmap) {
  const IntRange output = {task.history.first + task.prompt_count, task.history.count - task.prompt_count};
  for (int i = static_cast<int>(threadIdx.x); i < output.count; i += kEditThreads) {
    const std::int32_t token = lists.token(output, i);
    if (!first_to_mark(bitmap, token)) continue;
    int count = 0;
    for (int j = 0; j < output.count; ++j) count += lists.token(output, j) == token ? 1 : 0;
    const float penalty =
        __fadd_rn(task.presence_penalty, __fmul_rn(task.frequency_penalty, static_cast<float>(count)));
    edit(task.logits + token, __fadd_rn(load_fresh(task.logits + token), -penalty));
  }
}

/// A token may be there several times: its first entry adds all, in order.
__device__ void add_biases(const SamplingTask& task, const Lists& lists) {
  const std::int32_t* tokens = lists.ints + task.biased.first;
  const auto* biases = reinterpret_cast<const float*>(tokens + task.biased.count);
  for (int i = static_cast<int>(threadIdx.x); i < task.biased.count; i += kEditThreads) {
    const std::int32_t token = load_fresh(tokens + i);
    bool first = true;
    for (int j = 0; j < i && first; ++j) first = load_fresh(tokens + j) != token;
    if (!first) continue;
    float logit = load_fresh(task.logits + token);
    for (int j = i; j < task.biased.count; ++j) {
      if (load_fresh(tokens + j) == token) logit = __fadd_rn(logit, load_fresh(biases + j));
    }
    edit(task.logits + token, logit);
  }
}

__global__ void __launch_bounds__(kEditThreads) edit_logits(const __grid_constant__ SamplingCall call) {
  extern __shared__ unsigned bitmap[];  // (vocab) bits
  wait_for_previous();
  let_next_start();
  const SamplingTask task = call.tasks[load_fresh(call.edited + blockIdx.x)];
  const Lists lists = {call.ints, call.sampled};
  if (task.raw != nullptr) {  // a place of its own, since the row is edited
    for (int i = static_cast<int>(threadIdx.x); i < call.vocab; i += kEditThreads) {
      task.raw[i] = load_fresh(task.logits + i);
    }
    __syncthreads();
  }
  if (task.repetition_penalty != 1.0F) {
    clear(bitmap, call.vocab);
    for (int i = static_cast<int>(threadIdx.x); i < task.history.count; i += kEditThreads) {
      const std::int32_t token = lists.token(task.history, i);
      if (!first_to_mark(bitmap, token)) continue;
      const float raw = load_fresh(task.logits + token);
      edit(task.logits + token,
           raw < 0 ? __fmul_rn(raw, task.repetition_penalty) : __fdiv_rn(raw, task.repetition_penalty));
    }
  }
  if (task.presence_penalty != 0.0F || task.frequency_penalty != 0.0F) {
    clear(bitmap, call.vocab);
    penalize_output(task, lists, bitmap);
  }
  __syncthreads();
  add_biases(task, lists);
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < task.banned.count; i += kEditThreads) {
    edit(task.logits + load_fresh(call.ints + task.banned.first + i), kBannedLogit);
  }
  if (task.allowed.count == 0) return;
  for (int token = static_cast<int>(threadIdx.x); token < call.vocab; token += kEditThreads) {
    const auto word = static_cast<unsigned>(load_fresh(call.ints + task.allowed.first + token / 32));
    if ((word >> (token % 32) & 1U) == 0) edit(task.logits + token, kBannedLogit);
  }
}

// --- the best of each row -------------------------------------------------------------------------------------------

__device__ __forceinline__ void take_better(ScanResult& mine, const ScanResult& other) {
  const bool better = other.best > mine.best || (other.best == mine.best && other.token < mine.token);
  if (better) mine.best = other.best;
  if (better) mine.token = other.token;
  mine.least = fminf(mine.least, other.least);
  mine.finite &= other.finite;
}

__device__ ScanResult warp_best(ScanResult mine) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const ScanResult other = {
        __shfl_xor_sync(kAllLanes, mine.best, offset), __shfl_xor_sync(kAllLanes, mine.least, offset),
        __shfl_xor_sync(kAllLanes, mine.token, offset), __shfl_xor_sync(kAllLanes, mine.finite, offset)};
    take_better(mine, other);
  }
  return mine;
}

__device__ constexpr ScanResult nothing_seen() { return {-INFINITY, INFINITY, INT32_MAX, 1}; }

__device__ const float* logits_of(const SamplingCall& call, int row) {
  if (call.tasks != nullptr) return call.tasks[row].logits;
  return call.logits + static_cast<std::int64_t>(row) * call.vocab;
}

/// Grid: (chunks, rows).
__global__ void __launch_bounds__(kScanThreads) scan_logits(const __grid_constant__ SamplingCall call) {
  __shared__ ScanResult room[kScanThreads / kWarp];
  wait_for_previous();
  let_next_start();
  const int row = static_cast<int>(blockIdx.y);
  const float* logits = logits_of(call, row);
  constexpr int kEach = static_cast<int>(kScanChunk) / kScanThreads;
  const int first = static_cast<int>(blockIdx.x * kScanChunk + threadIdx.x);
  float values[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int token = first + i * kScanThreads;
    values[i] = token < call.vocab ? load_fresh(logits + token) : -FLT_MAX;  // which changes nothing
  }
  ScanResult mine = nothing_seen();
  float probe = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const float value = values[i];
    const int token = first + i * kScanThreads;
    const bool better = value > mine.best && token < call.vocab;  // tokens ascend: among equals the first stays
    mine.best = better ? value : mine.best;
    mine.token = better ? token : mine.token;
    mine.least = fminf(mine.least, value > kLeastCounted ? value : INFINITY);
    probe = fmaf(value, 0.0F, probe);  // NaN and infinity times 0 are NaN
  }
  mine.finite = probe == 0.0F ? 1 : 0;
  mine = warp_best(mine);
  if (threadIdx.x % kWarp == 0) room[threadIdx.x / kWarp] = mine;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int warp = 1; warp < kScanThreads / kWarp; ++warp) take_better(mine, room[warp]);
  call.scans[static_cast<std::int64_t>(row) * gridDim.x + blockIdx.x] = mine;
}

// --- the choice -----------------------------------------------------------------------------------------------------

/// Grid: (rows).
__global__ void __launch_bounds__(kChooseThreads) choose_tokens(const __grid_constant__ SamplingCall call, int chunks) {
  __shared__ ChooseRoom room;
  wait_for_previous();
  let_next_start();
  const int row = static_cast<int>(blockIdx.x);
  const float* logits = logits_of(call, row);
  if (threadIdx.x < kWarp) {
    ScanResult mine = nothing_seen();
    for (int chunk = static_cast<int>(threadIdx.x); chunk < chunks; chunk += kWarp) {
      const auto* place = reinterpret_cast<const int4*>(call.scans + static_cast<std::int64_t>(row) * chunks + chunk);
      const int4 bits = load_fresh(place);
      take_better(mine, {__int_as_float(bits.x), __int_as_float(bits.y), bits.z, bits.w});
    }
    mine = warp_best(mine);
    if (threadIdx.x == 0) room.scan = mine;
  }
  __syncthreads();
  const ScanResult scan = room.scan;
  std::int32_t token = scan.finite != 0 ? scan.token : 0;
  const bool drawn = call.tasks != nullptr && call.tasks[row].inverse_temperature > 0;
  if (drawn && scan.finite != 0 && scan.best > kBannedLogit) {
    const SamplingTask task = call.tasks[row];
    const DrawRow line = draw_row(logits, call.vocab, scan.best, scan.least, task.inverse_temperature);
    token = draw(task, line, room);
  }
  if (threadIdx.x == 0) {
    call.sampled[row] = token;
    call.results[row] = make_int2(token, scan.finite);
  }
}

// --- log-probabilities ----------------------------------------------------------------------------------------------

/// A ScanResult of the whole row in every thread, and log(sum(exp(logit))).
__device__ double log_sum_exp(const float* logits, int vocab, ChooseRoom& room, ScanResult* scan) {
  const int thread = static_cast<int>(threadIdx.x);
  ScanResult mine = nothing_seen();
#pragma unroll 4
  for (int token = thread; token < vocab; token += kChooseThreads) {
    const float value = load_fresh(logits + token);
    take_better(mine, {value, value, token, fabsf(value) <= FLT_MAX ? 1 : 0});
  }
  mine = warp_best(mine);
  if (thread % kWarp == 0) room.warp_scans[thread / kWarp] = mine;
  __syncthreads();
  mine = room.warp_scans[0];
  for (int warp = 1; warp < kChooseThreads / kWarp; ++warp) take_better(mine, room.warp_scans[warp]);
  double sum = 0;
#pragma unroll 4
  for (int token = thread; token < vocab; token += kChooseThreads) {
    sum += exp(static_cast<double>(load_fresh(logits + token)) - static_cast<double>(mine.best));
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(kAllLanes, sum, offset);
  if (thread % kWarp == 0) room.warp_sums[thread / kWarp] = sum;
  __syncthreads();
  sum = 0;
  for (const double part : room.warp_sums) sum += part;
  __syncthreads();
  *scan = mine;
  return static_cast<double>(mine.best) + log(sum);
}

/// Gathers the first `count` candidates, in any order.
__device__ void gather_best(const DrawRow& row, int count, ChooseRoom& room) {
  Weight last = ~Weight{0};
  if (count < row.vocab) {
    count_bins(row, room);
    const std::int32_t token = find(row, true, static_cast<Weight>(count - 1), room).token;
    last = place_of(load_fresh(row.logits + token), token);
  }
  if (threadIdx.x == 0) room.gathered = 0;
  __syncthreads();
  for (int token = static_cast<int>(threadIdx.x); token < row.vocab; token += kChooseThreads) {
    const float logit = load_fresh(row.logits + token);
    if (place_of(logit, token) <= last) room.candidates[atomicAdd(&room.gathered, 1U)] = {logit, token};
  }
  __syncthreads();
}

/// Grid: (rows that want them).
__global__ void __launch_bounds__(kChooseThreads) report_logprobs(const __grid_constant__ SamplingCall call) {
  __shared__ ChooseRoom room;
  wait_for_previous();
  let_next_start();
  const int row = load_fresh(call.reported + blockIdx.x);
  const SamplingTask task = call.tasks[row];
  const float* logits = task.raw != nullptr ? task.raw : task.logits;
  ScanResult scan;
  const double total = log_sum_exp(logits, call.vocab, room, &scan);
  if (scan.finite == 0) return;
  const auto logprob = [&](float logit) { return static_cast<float>(static_cast<double>(logit) - total); };
  TokenReport* const out = call.reports + task.first_report;
  const std::int32_t token = load_fresh(call.sampled + row);
  if (threadIdx.x == 0) out[0] = {token, logprob(load_fresh(logits + token))};
  if (task.best_count == 0) return;
  gather_best(draw_row(logits, call.vocab, scan.best, scan.least, 1.0), task.best_count, room);
  for (int i = static_cast<int>(threadIdx.x); i < task.best_count; i += kChooseThreads) {
    const Candidate mine = room.candidates[i];
    int rank = 0;
    for (int j = 0; j < task.best_count; ++j) {
      const Candidate other = room.candidates[j];
      if (place_of(other.logit, other.token) < place_of(mine.logit, mine.token)) ++rank;
    }
    out[1 + rank] = {mine.token, logprob(mine.logit)};
  }
}

std::size_t bitmap_bytes(std::int64_t vocab) { return static_cast<std::size_t>(ceil_div(vocab, 32) * 4); }

}  // namespace

cudaError_t prepare_sampling() {
  return cudaFuncSetAttribute(edit_logits, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(bitmap_bytes(kCudaMaxVocabulary)));
}

cudaError_t sample_rows(const KernelContext& context, const SamplingCall& call) {
  if (call.rows == 0) return cudaSuccess;
  const auto grid_of = [](std::int64_t blocks) { return dim3(static_cast<unsigned>(blocks)); };
  if (call.edited_count > 0) {
    LANNER_RETURN_IF_CUDA_ERROR(
        launch(context, edit_logits, grid_of(call.edited_count), kEditThreads, bitmap_bytes(call.vocab), call));
  }
  const auto chunks = static_cast<unsigned>(ceil_div(call.vocab, kScanChunk));
  LANNER_RETURN_IF_CUDA_ERROR(
      launch(context, scan_logits, dim3(chunks, static_cast<unsigned>(call.rows)), kScanThreads, 0, call));
  LANNER_RETURN_IF_CUDA_ERROR(
      launch(context, choose_tokens, grid_of(call.rows), kChooseThreads, 0, call, static_cast<int>(chunks)));
  if (call.reported_count == 0) return cudaSuccess;
  return launch(context, report_logprobs, grid_of(call.reported_count), kChooseThreads, 0, call);
}

}  // namespace lanner::ops::cuda
