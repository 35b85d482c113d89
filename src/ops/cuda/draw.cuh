#pragma once
// A draw: from a row of logits to a token, by one block.
//
// THE WALK. The candidates in order (higher logit first, lower id first) are a line of weights; top-k, top-p and the
// draw each ask for the candidate at which the count or the weight of all up to it passes a target. One pass puts all
// candidates into 2,048 bins by their distance from the best, which keeps the order; running sums over the bins name
// the bin in which the target lies; a second pass gathers that bin's few candidates, each of which adds up what comes
// before it. A bin of more than kGathered (many equal logits, high temperatures) is halved bit by bit instead, eight
// bits of (logit, id) a pass. So nothing is sorted, and every sum is of integers.

#include "ops/cuda/device.cuh"
#include "ops/cuda/sampling.h"

namespace lanner::ops::cuda {

using Weight = unsigned long long;

inline constexpr int kChooseThreads = 1024;
inline constexpr int kBins = 2048;
inline constexpr int kBinsPerThread = kBins / kChooseThreads;
inline constexpr int kGathered = 1024;
static_assert(kGathered >= kMostLogprobs);
inline constexpr int kDigits = 256;
inline constexpr double kUnitWeight =
    17592186044416.0;                      // 2^44, that of the best candidate; a Weight holds 2^20 of them
inline constexpr float kNoWeight = 32.0F;  // e^-32 is less than half of 2^-44

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
__device__ inline Weight place_of(float logit, std::int32_t token) {
  const unsigned bits = __float_as_uint(logit + 0.0F);
  const unsigned ascending = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
  return static_cast<Weight>(~ascending) << 32U | static_cast<unsigned>(token);
}

__device__ inline void count_bins(const DrawRow& row, ChooseRoom& room) {
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
__device__ inline Found find_by_digits(const DrawRow& row, int bin, bool by_count, Weight target, Weight weight,
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
__device__ inline Found find(const DrawRow& row, bool by_count, Weight target, ChooseRoom& room) {
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
__device__ inline Weight weight_from(const DrawRow& row, float least, ChooseRoom& room) {
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
__device__ inline DrawRow draw_row(const float* logits, int vocab, float best, float least,
                                   double inverse_temperature) {
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

__device__ inline Weight below(Weight target, Weight total) { return target < total ? target : total - 1; }

__device__ inline std::int32_t draw(const SamplingTask& task, const DrawRow& row, ChooseRoom& room) {
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

}  // namespace lanner::ops::cuda
