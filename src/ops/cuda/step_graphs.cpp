#include "ops/cuda/step_graphs.h"

#include <algorithm>
#include <bit>
#include <functional>

#include "core/check.h"
#include "ops/cuda/cuda_error.h"
#include "ops/cuda/device_memory.h"

namespace lanner::ops::cuda {
namespace {

constexpr std::int32_t kMostRows = 1024;         // above, launches are a small part of a step
constexpr std::int32_t kMostRowsAlike = 64;      // that take the same graph
constexpr std::int32_t kFewRows = 32;            // up to here attention may cut contexts by their longest
constexpr std::int32_t kManyRowsContext = 4096;  // the bound of more rows, at least
constexpr std::int32_t kLeastContext = 64;
constexpr std::int32_t kCoarseContext = 1024;  // up to here contexts are rounded to powers of two

std::int32_t rounded(std::int32_t value, std::int32_t unit) { return (value + unit - 1) / unit * unit; }

/// Every number of rows that the fused kernels take has a body of its own; beyond, one in eight is wasted at most.
std::int32_t places_for(std::int32_t rows) {
  if (rows <= kFusedRows) return rows;
  if (rows <= 64) return rounded(rows, 8);
  const auto power = static_cast<std::int32_t>(std::bit_ceil(static_cast<std::uint32_t>(rows)));
  return rounded(rows, std::min(power / 8, kMostRowsAlike));
}

/// Attention cuts the contexts of few rows into pieces by their longest: a bound too high only leaves pieces empty. Of
/// more rows they are hardly ever cut by it, so that nearly all can share a graph.
std::int32_t bound_for(std::int32_t rows, std::int32_t context) {
  if (rows > kFewRows) context = std::max(context, kManyRowsContext);
  const auto bound = static_cast<std::int32_t>(std::bit_ceil(static_cast<std::uint32_t>(context)));
  return context <= kCoarseContext ? std::max(bound, kLeastContext) : rounded(context, bound / 8);
}

}  // namespace

std::optional<StepPlaces> plan_places(const StepPlan& plan) {
  const Batch& batch = plan.batch;
  const auto rows = static_cast<std::size_t>(batch.rows);
  const bool decodes = batch.slices.size() == rows && plan.logits.size() == rows && plan.hidden.empty();
  if (!decodes || batch.rows > kMostRows || batch.rows > plan.most_rows) return std::nullopt;
  const auto most = static_cast<std::int32_t>(std::min<std::int64_t>(plan.most_rows, kMostRows));
  return StepPlaces{.rows = std::min(places_for(batch.rows), most),
                    .max_context = bound_for(batch.rows, longest_context(batch))};
}

std::size_t StepGraphs::KeyHash::operator()(const Key& key) const {
  std::size_t hash = std::hash<const void*>()(key.model) ^ std::hash<const void*>()(key.cache);
  for (const std::int32_t part : {key.rows, key.max_context}) hash = hash * 1000003U ^ static_cast<std::size_t>(part);
  return hash;
}

StepGraphs::Action StepGraphs::begin(const StepPlan& plan, const StepPlaces& places, cudaStream_t stream) {
  if (rest_ > 0) --rest_;
  const Key key{plan.model, plan.cache.data, places.rows, places.max_context};
  const auto found = graphs_.find(key);
  if (found == graphs_.end()) {
    if (graphs_.size() >= kMostGraphs) clear();
    graphs_.emplace(key, nullptr);
    return Action::kLaunchOperations;
  }
  if (found->second != nullptr) {
    const cudaError_t error = cudaGraphLaunch(found->second, stream);
    if (error == cudaSuccess) return Action::kReplayed;
    clear();
    give_up(error);
    return Action::kLaunchOperations;
  }
  if (rest_ > 0) return Action::kLaunchOperations;
  // Of this thread alone: others may go on allocating.
  if (const cudaError_t error = cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
      error != cudaSuccess) {
    give_up(error);
    return Action::kLaunchOperations;
  }
  recording_ = key;
  stream_ = stream;
  return Action::kRecordOperations;
}

bool StepGraphs::finish(bool whole) {
  LANNER_CHECK(recording_);
  const Key key = *recording_;
  cudaGraphExec_t made = nullptr;
  cudaError_t error = make(whole, &made);
  if (error == cudaSuccess) error = cudaGraphLaunch(made, stream_);
  if (error == cudaSuccess) {
    graphs_[key] = made;
    return true;
  }
  if (made != nullptr) static_cast<void>(cudaGraphExecDestroy(made));
  give_up(error);
  return false;
}

cudaError_t StepGraphs::make(bool whole, cudaGraphExec_t* made) {
  cudaGraph_t graph = nullptr;
  cudaError_t error = cudaStreamEndCapture(stream_, &graph);
  recording_.reset();
  if (error == cudaSuccess && !whole) error = cudaErrorStreamCaptureInvalidated;
  if (error == cudaSuccess) {
    error = is_refused() ? cudaErrorMemoryAllocation : cudaGraphInstantiate(made, graph, 0);
    if (error == cudaErrorMemoryAllocation) {
      static_cast<void>(cudaGetLastError());
      static_cast<void>(cudaStreamSynchronize(stream_));
      clear();
      error = is_refused() ? cudaErrorMemoryAllocation : cudaGraphInstantiate(made, graph, 0);
    }
  }
  if (graph != nullptr) static_cast<void>(cudaGraphDestroy(graph));
  return error;
}

void StepGraphs::give_up(cudaError_t error) {
  failure_ = cuda_status(error, "a step cannot be kept as a CUDA graph");
  rest_ = kRestSteps;
}

void StepGraphs::clear() {
  LANNER_CHECK(!recording_);
  for (const auto& [key, graph] : graphs_) {
    if (graph != nullptr) static_cast<void>(cudaGraphExecDestroy(graph));
  }
  graphs_.clear();
}

}  // namespace lanner::ops::cuda
