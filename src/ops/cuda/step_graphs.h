#pragma once
// Steps that the device repeats: their launches, recorded once as a CUDA graph and replayed.
//
// A graph is made for a number of places and a bound of the contexts (StepPlaces), and stands for every batch of one
// row a sequence that fits: what differs from step to step is read from memory that always lies in the same place.
// Whether a step may be repeated, and in how many places, is plan_places()'s to say.
//
//   a shape is seen    what is done
//   once               its operations are launched as they come: libraries load and choose what they need
//   again              they are recorded, and the graph is launched
//   ever after         the graph is launched
//
// Graphs hold addresses: whoever moves what they read calls clear(). Where there is no memory for one more graph, the
// others make room; where that does not help, or a graph fails otherwise, steps are launched as they come for a while.

#include <cuda_runtime_api.h>

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <utility>

#include "lanner/status.h"
#include "ops/backend.h"
#include "ops/cuda/step_upload.h"

namespace lanner::ops::cuda {

/// Places of a step that may be repeated: its rows and contexts rounded up, so that few graphs serve all steps. Nothing
/// for other steps.
std::optional<StepPlaces> plan_places(const StepPlan& plan);

class StepGraphs {
 public:
  enum class Action : std::uint8_t { kLaunchOperations, kRecordOperations, kReplayed };

  StepGraphs() = default;
  ~StepGraphs() { clear(); }
  StepGraphs(const StepGraphs&) = delete;
  StepGraphs& operator=(const StepGraphs&) = delete;

  /// After kRecordOperations what is put on the stream is not done but recorded, up to finish().
  Action begin(const StepPlan& plan, const StepPlaces& places, cudaStream_t stream);
  /// Keeps what was recorded and launches it, if that is the whole step. False: it is forgotten, and nothing was
  /// launched.
  bool finish(bool whole);
  bool recording() const { return recording_.has_value(); }
  void clear();
  /// Why the last graph that failed did, since the last call; ok where none did.
  Status take_failure() { return std::exchange(failure_, {}); }

 private:
  struct Key {
    const void* model;
    const std::byte* cache;
    std::int32_t rows;
    std::int32_t max_context;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& key) const;
  };

  static constexpr std::size_t kMostGraphs = 256;  // each holds some hundred kilobytes of the host and the device
  static constexpr int kRestSteps = 1000;          // without a new graph, after one that failed

  /// Ends the recording and makes a graph of it.
  cudaError_t make(bool whole, cudaGraphExec_t* made);
  void give_up(cudaError_t error);

  std::unordered_map<Key, cudaGraphExec_t, KeyHash> graphs_;  // null: seen once
  std::optional<Key> recording_;
  cudaStream_t stream_ = nullptr;  // on which it is recorded
  int rest_ = 0;                   // steps to come in which nothing is recorded
  Status failure_;
};

}  // namespace lanner::ops::cuda
