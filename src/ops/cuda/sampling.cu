// Sampling: two to four launches for a step's rows.
//
//   edit_logits     a block a row that has penalties, biases or bans; writes into the row. A bitmap of the vocabulary
//   in
//                   shared memory tells which thread is the first to meet a token
//   scan_logits     a block a chunk of 4,096 logits: the best, the least, and whether all are finite
//   choose_tokens   a block a row: the best of its chunks; for a draw, the walk below
//   report_logprobs a block a row that wants log-probabilities, of the logits before they were edited
//
// Bound: reading the logits, once for greedy rows, three to six times for a draw, from the second-level cache then.
//
// THE WALK. The candidates in order (higher logit first, lower id first) are a line of weights; top-k, top-p and the
// draw each ask for the candidate at which the count or the weight of all up to it passes a target. One pass puts all
// candidates into 2,048 bins by their distance from the best, which keeps the order; running sums over the bins name
// the bin in which the target lies; a second pass gathers that bin's few candidates, each of which adds up what comes
// before it. A bin of more than kGathered (many equal logits, high temperatures) is halved bit by bit instead, eight
// bits of (logit, id) a pass. So nothing is sorted, and every sum is of integers.

#include "ops/cuda/sampling.h"

#include <cfloat>

#include "ops/cuda/device.cuh"

namespace lanner::ops::cuda {
namespace {

using Weight = unsigned long long;

constexpr int kEditThreads = 512;
constexpr int kScanThreads = 256;
constexpr int kChooseThreads = 1024;
constexpr int kBins = 2048;
constexpr int kBinsPerThread = kBins / kChooseThreads;
constexpr int kGathered = 1024;
static_assert(kGathered >= kMostLogprobs);
constexpr int kDigits = 256;
constexpr double kUnitWeight = 17592186044416.0;  // 2^44, that of the best candidate; a Weight holds 2^20 of them
constexpr float kBannedLogit = -FLT_MAX;          // where the host writes -infinity: finite, and of no weight
constexpr float kLeastCounted = -1e38F;
constexpr float kNoWeight = 32.0F;  // e^-32 is less than half of 2^-44

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

// --- draws ----------------------------------------------------------------------------------------------------------

/// Weights by bin, in two halves that are added to atomically: shared memory has no 64-bit addition.
template <int kCount>
struct Sums {
  unsigned low[kCount];
  unsigned high[kCount];
  unsigned counts[kCount];

  __device__ void add(int bin, Weight weight) {
    const auto part = static_cast<unsigned>(weight);
    const unsigned before = atomicAdd(low + bin, part);
    const unsigned carry = before + part < before ? 1 : 0;
    const unsigned upper = static_cast<unsigned>(weight >> 32U) + carry;
    if (upper != 0) atomicAdd(high + bin, upper);
    atomicAdd(counts + bin, 1U);
  }
  __device__ Weight weight(int bin) const { return static_cast<Weight>(high[bin]) << 32U | low[bin]; }
};

struct Candidate {
  float logit;
  std::int32_t token;
};

/// A candidate on the line, with the weight of all up to and with it.
struct Found {
  std::int32_t token;
  Weight reached;
};

struct ChooseRoom {
  Sums<kBins> bins;  // after count_bins(), of all bins up to and with each
  union {
    struct {
      Candidate candidates[kGathered];
      Weight weights[kGathered];
    };
    Sums<kDigits> digits;
  };
  Weight warp_weights[kChooseThreads / kWarp];
  unsigned warp_counts[kChooseThreads / kWarp];
  ScanResult warp_scans[kChooseThreads / kWarp];
  double warp_sums[kChooseThreads / kWarp];
  ScanResult scan;
  int bin;
  unsigned gathered;
  Found found;
  Weight sum;
  int digit;
  Weight weight_before;
  unsigned count_before;
};

/// The row, and how its logits become weights and bins.
struct DrawRow {
  const float* logits;
  int vocab;
  float best;
  double inverse_temperature;
  float nats_per_logit;  // inverse_temperature in fp32, which only decides what is not worth an exp()
  float bins_per_logit;

  __device__ float share(float logit) const {  // of the best one's weight
    if ((best - logit) * nats_per_logit > kNoWeight) return 0;
    return static_cast<float>(exp((static_cast<double>(logit) - static_cast<double>(best)) * inverse_temperature));
  }
  __device__ Weight weight(float logit) const {
    return __double2ull_rn(static_cast<double>(share(logit)) * kUnitWeight);
  }
  __device__ int bin(float logit) const {
    return static_cast<int>(fminf((best - logit) * bins_per_logit, static_cast<float>(kBins - 1)));
  }
};

/// Smaller is earlier in the order of candidates. Both zeros are equal.
__device__ Weight place_of(float logit, std::int32_t token) {
  const unsigned bits = __float_as_uint(logit + 0.0F);
  const unsigned ascending = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
  return static_cast<Weight>(~ascending) << 32U | static_cast<unsigned>(token);
}

__device__ void count_bins(const DrawRow& row, ChooseRoom& room) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int bin = thread; bin < kBins; bin += kChooseThreads) {
    room.bins.low[bin] = room.bins.high[bin] = room.bins.counts[bin] = 0;
  }
  __syncthreads();
#pragma unroll 4
  for (int token = thread; token < row.vocab; token += kChooseThreads) {
    const float logit = load_fresh(row.logits + token);
    room.bins.add(row.bin(logit), row.weight(logit));
  }
  __syncthreads();
  // Running sums: of the thread's own bins, of its warp's threads, of the warps before.
  Weight weights[kBinsPerThread];
  unsigned counts[kBinsPerThread];
  Weight weight = 0;
  unsigned count = 0;
#pragma unroll
  for (int i = 0; i < kBinsPerThread; ++i) {
    weights[i] = weight += room.bins.weight(thread * kBinsPerThread + i);
    counts[i] = count += room.bins.counts[thread * kBinsPerThread + i];
  }
  const int lane = thread % kWarp;
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const Weight other_weight = __shfl_up_sync(kAllLanes, weight, offset);
    const unsigned other_count = __shfl_up_sync(kAllLanes, count, offset);
    if (lane >= offset) weight += other_weight;
    if (lane >= offset) count += other_count;
  }
  if (lane == kWarp - 1) {
    room.warp_weights[thread / kWarp] = weight;
    room.warp_counts[thread / kWarp] = count;
  }
  __syncthreads();
  Weight before_weight = weight - weights[kBinsPerThread - 1];
  unsigned before_count = count - counts[kBinsPerThread - 1];
  for (int warp = 0; warp < thread / kWarp; ++warp) {
    before_weight += room.warp_weights[warp];
    before_count += room.warp_counts[warp];
  }
#pragma unroll
  for (int i = 0; i < kBinsPerThread; ++i) {
    const Weight total = before_weight + weights[i];
    room.bins.low[thread * kBinsPerThread + i] = static_cast<unsigned>(total);
    room.bins.high[thread * kBinsPerThread + i] = static_cast<unsigned>(total >> 32U);
    room.bins.counts[thread * kBinsPerThread + i] = before_count + counts[i];
  }
  __syncthreads();
}

/// In a bin of many: the digits of a candidate's place one by one. `weight` and `count`: of all before the bin.
__device__ Found find_by_digits(const DrawRow& row, int bin, bool by_count, Weight target, Weight weight,
                                unsigned count, ChooseRoom& room) {
  constexpr int kDigitBits = 8;
  Weight prefix = 0;
  for (int shift = 64 - kDigitBits; shift >= 0; shift -= kDigitBits) {
    __syncthreads();
    for (int digit = static_cast<int>(threadIdx.x); digit < kDigits; digit += kChooseThreads) {
      room.digits.low[digit] = room.digits.high[digit] = room.digits.counts[digit] = 0;
    }
    __syncthreads();
    for (int token = static_cast<int>(threadIdx.x); token < row.vocab; token += kChooseThreads) {
      const float logit = load_fresh(row.logits + token);
      if (row.bin(logit) != bin) continue;
      const Weight place = place_of(logit, token);
      const bool in_prefix = shift == 64 - kDigitBits || place >> (shift + kDigitBits) == prefix;
      if (in_prefix) room.digits.add(static_cast<int>(place >> shift & (kDigits - 1)), row.weight(logit));
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      Weight reached = weight;
      unsigned counted = count;
      int digit = 0;
      for (; digit < kDigits; ++digit) {
        const Weight next = reached + room.digits.weight(digit);
        const unsigned next_count = counted + room.digits.counts[digit];
        if (by_count ? next_count > target : next > target) break;
        reached = next;
        counted = next_count;
      }
      room.digit = digit;
      room.weight_before = reached;
      room.count_before = counted;
      room.found.reached = reached + room.digits.weight(digit < kDigits ? digit : kDigits - 1);
    }
    __syncthreads();
    prefix = prefix << kDigitBits | static_cast<Weight>(room.digit);
    weight = room.weight_before;
    count = room.count_before;
  }
  return {static_cast<std::int32_t>(prefix & 0xFFFFFFFFU), room.found.reached};
}

/// The first candidate at which the count, or the weight, of all up to it is above `target`, which is below the total.
__device__ Found find(const DrawRow& row, bool by_count, Weight target, ChooseRoom& room) {
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int i = 0; i < kBinsPerThread; ++i) {
    const int bin = thread * kBinsPerThread + i;
    const Weight reached = by_count ? room.bins.counts[bin] : room.bins.weight(bin);
    const Weight before = bin == 0 ? 0 : by_count ? room.bins.counts[bin - 1] : room.bins.weight(bin - 1);
    if (reached > target && before <= target) room.bin = bin;
  }
  if (thread == 0) room.gathered = 0;
  __syncthreads();
  const int bin = room.bin;
  const Weight weight = bin == 0 ? 0 : room.bins.weight(bin - 1);
  const unsigned count = bin == 0 ? 0 : room.bins.counts[bin - 1];
  const int inside = static_cast<int>(room.bins.counts[bin] - count);
  if (inside > kGathered) return find_by_digits(row, bin, by_count, target, weight, count, room);
#pragma unroll 4
  for (int token = thread; token < row.vocab; token += kChooseThreads) {
    const float logit = load_fresh(row.logits + token);
    if (row.bin(logit) != bin) continue;
    const unsigned index = atomicAdd(&room.gathered, 1U);
    room.candidates[index] = {logit, token};
    room.weights[index] = row.weight(logit);
  }
  __syncthreads();
  for (int i = thread; i < inside; i += kChooseThreads) {
    const Candidate mine = room.candidates[i];
    const Weight place = place_of(mine.logit, mine.token);
    Weight before = weight;
    unsigned counted = count;
    for (int j = 0; j < inside; ++j) {
      const bool earlier = place_of(room.candidates[j].logit, room.candidates[j].token) < place;
      if (earlier) before += room.weights[j];
      if (earlier) ++counted;
    }
    const Weight reached = before + room.weights[i];
    const bool here = by_count ? counted == target : before <= target && reached > target;
    if (here) room.found = {mine.token, reached};
  }
  __syncthreads();
  const Found found = room.found;
  __syncthreads();  // the next call may write there
  return found;
}

/// The weight of all candidates whose share of the best one's is at least `least`.
__device__ Weight weight_from(const DrawRow& row, float least, ChooseRoom& room) {
  Weight sum = 0;
#pragma unroll 4
  for (int token = static_cast<int>(threadIdx.x); token < row.vocab; token += kChooseThreads) {
    const float share = row.share(load_fresh(row.logits + token));
    if (share >= least) sum += __double2ull_rn(static_cast<double>(share) * kUnitWeight);
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(kAllLanes, sum, offset);
  if (threadIdx.x % kWarp == 0) room.warp_weights[threadIdx.x / kWarp] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    room.sum = 0;
    for (const Weight part : room.warp_weights) room.sum += part;
  }
  __syncthreads();
  return room.sum;
}

/// Bins are 1/64 nat wide, or narrower where the row does not fill them. `least`: of those that count.
__device__ DrawRow draw_row(const float* logits, int vocab, float best, float least, double inverse_temperature) {
  const auto nats = static_cast<float>(inverse_temperature);
  const float widest = 64 * nats;
  const float range = least < best ? best - least : 0.0F;
  return {.logits = logits,
          .vocab = vocab,
          .best = best,
          .inverse_temperature = inverse_temperature,
          .nats_per_logit = nats,
          .bins_per_logit = range > 0 ? fmaxf(widest, (kBins - 2) / range) : widest};
}

__device__ Weight below(Weight target, Weight total) { return target < total ? target : total - 1; }

__device__ std::int32_t draw(const SamplingTask& task, const DrawRow& row, ChooseRoom& room) {
  count_bins(row, room);
  Weight kept = room.bins.weight(kBins - 1);  // what the filters so far have left is the beginning of the line
  if (task.top_k > 0 && task.top_k < row.vocab) {
    kept = find(row, true, static_cast<Weight>(task.top_k - 1), room).reached;
  }
  if (task.top_p < 1.0F) {  // the shortest beginning that reaches the share
    const auto wanted = static_cast<Weight>(ceil(static_cast<double>(task.top_p) * static_cast<double>(kept)));
    const Weight shortest = find(row, false, below(wanted > 0 ? wanted - 1 : 0, kept), room).reached;
    kept = shortest < kept ? shortest : kept;
  }
  if (task.min_p > 0.0F) {
    const Weight likely = weight_from(row, task.min_p, room);
    kept = likely < kept ? likely : kept;
  }
  const auto target = static_cast<Weight>(task.uniform * static_cast<double>(kept));
  return find(row, false, below(target, kept), room).token;
}

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
