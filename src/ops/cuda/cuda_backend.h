#pragma once
// A CUDA device as a Backend: owns memory and a stream, packs weights, uploads steps; the arithmetic is kernels.h.
//
// begin_step(), or embed() where that was not called, uploads the batch in one transfer, and the operations that follow
// find it there. Steps that decode are recorded as graphs and replayed (step_graphs.h). All work of a backend is on one
// stream, in order. The host waits in read(), read_kv() and collect() alone.
//
// MEMORY. reserve() takes what the largest step needs, and kSpareBytes besides. What is left to take in a step is the
// driver's: code of kernels that were not used before, and recorded steps. Where it gets none, the spare memory and all
// recorded steps are given back, and the step is asked for again (take_failure()).

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/thread_pool.h"
#include "ops/backend.h"
#include "ops/cuda/cublas_lt.h"
#include "ops/cuda/device_memory.h"
#include "ops/cuda/kernels.h"
#include "ops/cuda/pack.h"
#include "ops/cuda/sampler.h"
#include "ops/cuda/staging.h"
#include "ops/cuda/step_graphs.h"
#include "ops/cuda/step_upload.h"
#include "ops/cuda/tensor_map.h"

namespace lanner::ops::cuda {

inline constexpr int kLeastCapability = 80;  // of compute, times ten

class CudaBackend final : public Backend {
 public:
  static Result<std::unique_ptr<Backend>> create(const CudaBackendOptions& options);
  ~CudaBackend() override;

  std::string description() const override { return description_; }
  std::int64_t available_bytes() const override;
  std::int64_t copy_bytes() const override { return copy_bytes_; }

  Result<std::shared_ptr<const PackedWeight>> pack(WeightSource source, Arithmetic arithmetic) override;
  Result<std::shared_ptr<const DeviceVector>> upload(std::span<const float> values) override;
  Result<std::byte*> allocate(std::int64_t bytes, const char* what) override;
  Status reserve(const StepRoom& room) override;
  std::int64_t reserve_bytes(const StepRoom& room) const override;
  Status prepare_linear(const Linear& linear) override;

  bool begin_step(const StepPlan& plan) override;
  bool end_step() override;
  Status take_failure() override;
  std::vector<std::string> take_notes() override;
  void embed(const PackedWeight& table, const Batch& batch, float scale, float* x) override;
  void rope_angles(const Rope& rope, const Batch& batch, float* angles) override;
  void norm_qkv(const NormQkvArgs& args, const Batch& batch, const KvCacheView& cache) override;
  void attention(const AttentionArgs& args, const Batch& batch, const KvCacheView& cache) override;
  void linear_add(const Linear& linear, const float* input, std::int64_t rows, float* x) override;
  void handed_linear_add(const Linear& linear, const float* input, std::int64_t rows, float* x) override;
  void norm_gated_up(const Linear& linear, Gate gate, const float* x, std::int64_t rows, float* h,
                     const Linear* reader) override;
  void norm_head(const Linear& linear, const float* x, std::span<const std::int32_t> wanted, float* logits) override;
  void norm_rows(const Norm& norm, const float* x, std::int64_t cols, std::span<const std::int32_t> wanted,
                 float* out) override;
  bool sample(std::span<const SampleRow> rows, std::span<SampledToken> tokens) override;
  void collect(std::span<SampledToken> tokens) override;

  void read(const float* from, std::int64_t count, float* to) override;
  void write(const float* from, std::int64_t count, float* to) override;
  void read_kv(const KvCacheView& cache, std::int64_t block, std::int64_t layer, std::int64_t kv_head, float* keys,
               float* values) override;

 private:
  /// A Linear's input order on the device, and what it was made of.
  struct UploadedOrder {
    std::vector<std::int32_t> order;
    DeviceBuffer device;
  };

  CudaBackend(const CudaBackendOptions& options, Stream stream, std::unique_ptr<ThreadPool> pool)
      : options_(options), stream_(std::move(stream)), pool_(std::move(pool)) {}
  Status set_up();
  /// The device is a matter of each thread: called wherever a thread may enter for the first time.
  void enter() const;
  void finish();
  Status allocate_scratch();
  /// Remembers a failure, if it is the first.
  void fail(const Status& status);
  /// The same for what a call of the runtime or a launch says.
  void check(cudaError_t error, const char* what);
  bool failed() const { return !failure_.ok(); }
  /// Gives back what can be done without.
  void make_room();
  void upload_batch(const Batch& batch, const StepPlaces& places);
  const DeviceBatch& current(const Batch& batch) const;
  /// `rows` rows of the host's batch are as many as it has places.
  std::int64_t places_of(std::int64_t rows) const;
  /// Null for all rows from the first on, and where the device has failed.
  const std::int32_t* wanted_rows(std::span<const std::int32_t> wanted);
  /// Of no use where the device has failed.
  DeviceLinear on_device(const Linear& linear);
  /// The type of what is handed over to `reader`; null: kF32.
  WeightFormat handed_to(const Linear* reader, std::int64_t rows);
  Result<const std::int32_t*> uploaded_order(const std::vector<std::int32_t>& order);

  const CudaBackendOptions options_;
  Stream stream_;
  std::unique_ptr<ThreadPool> pool_;  // packs weights
  std::unique_ptr<Staging> staging_;
  std::string description_;
  KernelContext context_;
  DeviceBuffer library_workspace_;
  std::unique_ptr<TensorMaps> maps_;   // null: not a device that has them
  std::unique_ptr<CublasLt> library_;  // null: the kernels' own products
  std::vector<DeviceBuffer> allocations_;
  std::optional<Packer> packer_;
  std::int64_t copy_bytes_ = 0;

  // Scratch, sized by reserve() and by the weights that were packed.
  StepRoom reserved_;
  std::int64_t widened_bytes_ = 0;  // of the largest quantized weight that has no copy
  DeviceBuffer input_;
  DeviceBuffer product_;
  DeviceBuffer widened_;
  DeviceBuffer partials_;
  DeviceBuffer arrivals_;
  DeviceBuffer spare_;

  StepUpload upload_;
  DeviceBatch batch_;            // of the step that began last
  std::int32_t batch_rows_ = 0;  // of the host's batch; it has batch_.rows places
  bool announced_ = false;       // by begin_step(), up to end_step()
  StepGraphs graphs_;
  std::unordered_map<const std::int32_t*, UploadedOrder> orders_;

  Sampler sampler_;

  Status failure_;  // not taken yet
  std::vector<std::string> notes_;
  bool told_of_graphs_ = false;
  bool told_of_memory_ = false;
};

}  // namespace lanner::ops::cuda
