#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "core/check.h"
#include "core/processors.h"
#include "ops/check_arguments.h"
#include "ops/cuda/cuda_backend.h"
#include "ops/cuda/cuda_error.h"

namespace lanner::ops {
namespace cuda {
namespace {

constexpr int kMaxHostThreads = 16;
constexpr std::int64_t kDriverBytes = std::int64_t{256} << 20;  // left for what the driver and cuBLASLt take later
constexpr std::int64_t kSpareBytes = std::int64_t{64} << 20;    // given back when the driver finds none of those
constexpr std::int64_t kAlignment = 256;
constexpr std::int32_t kMostDeterministicRows = 128;  // of a graph: each slab of 8 rows has launches of its own
constexpr int kTensorMapCapability = 90;
constexpr std::int64_t kHeadStep = 16;  // a head is a multiple of it

class CudaVector final : public DeviceVector {
 public:
  CudaVector(std::int64_t size, DeviceBuffer buffer) : size_(size), buffer_(std::move(buffer)) {}
  std::int64_t size() const override { return size_; }
  const float* data() const override { return buffer_.as<const float>(); }

 private:
  std::int64_t size_;
  DeviceBuffer buffer_;
};

std::int64_t aligned(std::int64_t value, std::int64_t unit) { return (value + unit - 1) / unit * unit; }

DeviceNorm on_device(const Norm& norm) {
  return {.kind = norm.kind,
          .gain = norm.gain == nullptr ? nullptr : norm.gain->data(),
          .bias = norm.bias == nullptr ? nullptr : norm.bias->data(),
          .eps = norm.eps};
}

const DeviceWeight& view_of(const PackedWeight& weight) { return static_cast<const CudaWeight&>(weight).view(); }

/// What one row of an operation's input and product take; see Scratch.
std::int64_t input_row_bytes(std::int64_t max_cols) { return aligned(max_cols, 16) * 4; }
/// q, k and v together, or gate and up, are at most twice as wide as the widest input or output.
std::int64_t product_row_bytes(std::int64_t max_cols) { return 2 * max_cols * 4; }

std::int64_t widened_bytes(const DeviceWeight& weight) {
  return is_quantized(weight.format) && weight.copy == nullptr ? weight.rows * aligned(weight.cols, 16) * 2 : 0;
}

/// Of attention with any heads that make rows of up to `max_cols`.
std::int64_t largest_partial_bytes(int multiprocessors, std::int64_t max_cols) {
  constexpr std::int64_t kLargestHead = 1024;
  std::int64_t largest = 0;
  for (std::int64_t head_dim = kHeadStep; head_dim <= std::min(kLargestHead, max_cols); head_dim += kHeadStep) {
    const std::int64_t heads = max_cols / head_dim;
    for (const std::int64_t kv_heads : {std::int64_t{1}, heads}) {
      largest = std::max(largest, attention_partial_bytes(multiprocessors, heads, kv_heads, head_dim));
    }
  }
  return largest;
}

/// Of attention with any number of KV heads.
std::int64_t arrival_bytes(std::int64_t max_cols) {
  return kMostPiecePlaces * (aligned(max_cols, kHeadStep) / kHeadStep) * 4;
}

}  // namespace

Result<std::unique_ptr<Backend>> CudaBackend::create(const CudaBackendOptions& options) {
  LANNER_RETURN_IF_ERROR(cuda_status(cudaSetDevice(options.device), "the CUDA device cannot be used"));
  LANNER_RETURN_IF_ERROR(cuda_status(cudaFree(nullptr), "the CUDA device cannot be used"));  // makes the context
  const int threads = options.threads > 0 ? options.threads : std::min(available_processors(), kMaxHostThreads);
  LANNER_ASSIGN_OR_RETURN(std::unique_ptr<ThreadPool> pool, ThreadPool::create(threads));
  LANNER_ASSIGN_OR_RETURN(Stream stream, Stream::create());
  std::unique_ptr<CudaBackend> backend(new CudaBackend(options, std::move(stream), std::move(pool)));
  LANNER_RETURN_IF_ERROR(backend->set_up());
  return std::unique_ptr<Backend>(std::move(backend));
}

Status CudaBackend::set_up() {
  cudaDeviceProp properties{};
  LANNER_RETURN_IF_ERROR(cuda_status(cudaGetDeviceProperties(&properties, options_.device), "the CUDA device"));
  const int capability = properties.major * 10 + properties.minor;
  if (capability < kLeastCapability) {
    return unsupported(fmt::format("{}: its compute capability {}.{} is below 8.0", properties.name, properties.major,
                                   properties.minor));
  }
  LANNER_ASSIGN_OR_RETURN(staging_, Staging::create(*pool_, options_.device, stream_.get()));
  context_.stream = stream_.get();
  context_.multiprocessors = properties.multiProcessorCount;
  context_.shared_bytes = static_cast<int>(properties.sharedMemPerBlockOptin);
  context_.dependent_launch = capability >= 90;
  context_.clusters = capability >= 90;
  context_.deterministic = options_.deterministic;
  packer_.emplace(Packer{.context = context_, .staging = *staging_, .room = {}, .copy_room = {}});
  std::string products = "own matrix products";
  if (options_.deterministic) {
    products = "deterministic";
  } else {
    LANNER_ASSIGN_OR_RETURN(library_workspace_, DeviceBuffer::allocate(CublasLt::kWorkspaceBytes, "cuBLASLt"));
    auto library = CublasLt::open(library_workspace_.data());
    if (library.ok()) {
      library_ = *std::move(library);
      context_.library = library_.get();
      products = library_->version();
    } else {
      library_workspace_ = {};
    }
  }
  description_ = fmt::format("cuda {}, {}", properties.name, products);
  LANNER_RETURN_IF_ERROR(sampler_.set_up());
  LANNER_RETURN_IF_ERROR(cuda_status(prepare_sampling(), "the kernels cannot be loaded"));
  LANNER_RETURN_IF_ERROR(cuda_status(prepare_kernels(context_), "the kernels cannot be loaded"));
  bool tiles = false;
  if (capability == kTensorMapCapability) {
    LANNER_RETURN_IF_ERROR(cuda_status(prepare_warpgroups(&context_, &tiles), "the kernels cannot be loaded"));
  }
  if (auto maps = TensorMaps::open(); tiles && maps.ok()) {
    maps_ = *std::move(maps);
    context_.maps = maps_.get();
  }
  return {};
}

CudaBackend::~CudaBackend() {
  // What fails here has failed before, and was reported then.
  static_cast<void>(cudaSetDevice(options_.device));
  static_cast<void>(cudaStreamSynchronize(stream_.get()));
}

// What goes wrong here goes wrong in the calls that follow, which say so.
void CudaBackend::enter() const { static_cast<void>(cudaSetDevice(options_.device)); }

void CudaBackend::finish() { check(cudaStreamSynchronize(stream_.get()), "a step"); }

void CudaBackend::fail(const Status& status) {
  if (status.ok() || failed()) return;
  failure_ =
      status.code() == StatusCode::kResourceExhausted ? status : with_context(status, "the CUDA device has failed");
}

void CudaBackend::check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) fail(cuda_status(error, what));
}

std::int64_t CudaBackend::available_bytes() const {
  enter();
  std::size_t free = 0;
  std::size_t total = 0;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) return 0;
  return std::max<std::int64_t>(0, static_cast<std::int64_t>(free) - kDriverBytes);
}

// --- memory ---------------------------------------------------------------------------------------------------------

Result<std::shared_ptr<const PackedWeight>> CudaBackend::pack(WeightSource source, Arithmetic arithmetic) {
  enter();
  const PackOptions how = {
      .dense = options_.dense, .panels = !options_.deterministic, .copies = options_.copies && !options_.deterministic};
  LANNER_ASSIGN_OR_RETURN(auto weight, pack_weight(source, arithmetic, how, *packer_));
  copy_bytes_ += static_cast<const CudaWeight&>(*weight).copy_bytes();
  graphs_.clear();  // they may hold the address of a weight that was in its place
  widened_bytes_ = std::max(widened_bytes_, widened_bytes(view_of(*weight)));
  if (reserved_.rows > 0 && widened_bytes_ > widened_.bytes()) LANNER_RETURN_IF_ERROR(allocate_scratch());
  return weight;
}

Result<std::shared_ptr<const DeviceVector>> CudaBackend::upload(std::span<const float> values) {
  enter();
  const auto bytes = static_cast<std::int64_t>(values.size_bytes());
  LANNER_ASSIGN_OR_RETURN(DeviceBuffer buffer, DeviceBuffer::allocate(bytes, "a vector of weights"));
  LANNER_RETURN_IF_ERROR(staging_->copy(values.data(), bytes, buffer.data()));
  return std::shared_ptr<const DeviceVector>(
      std::make_shared<CudaVector>(static_cast<std::int64_t>(values.size()), std::move(buffer)));
}

Result<std::byte*> CudaBackend::allocate(std::int64_t bytes, const char* what) {
  enter();
  LANNER_ASSIGN_OR_RETURN(DeviceBuffer buffer, DeviceBuffer::allocate(bytes, what));
  if (bytes > 0) {
    LANNER_RETURN_IF_ERROR(
        cuda_status(cudaMemsetAsync(buffer.data(), 0, static_cast<std::size_t>(bytes), stream_.get()), what));
  }
  allocations_.push_back(std::move(buffer));
  return allocations_.back().data();
}

Status CudaBackend::reserve(const StepRoom& room) {
  enter();
  reserved_ = room;
  LANNER_RETURN_IF_ERROR(allocate_scratch());
  LANNER_RETURN_IF_ERROR(upload_.reserve(room));
  LANNER_RETURN_IF_ERROR(sampler_.reserve(room));
  if (spare_.bytes() > 0) return {};
  LANNER_ASSIGN_OR_RETURN(spare_, DeviceBuffer::allocate(kSpareBytes, "spare memory"));
  return {};
}

std::int64_t CudaBackend::reserve_bytes(const StepRoom& room) const {
  return room.rows * (input_row_bytes(room.max_cols) + product_row_bytes(room.max_cols)) + widened_bytes_ +
         largest_partial_bytes(context_.multiprocessors, room.max_cols) + arrival_bytes(room.max_cols) +
         StepUpload::reserve_bytes(room) + Sampler::reserve_bytes(room) + kSpareBytes;
}

Status CudaBackend::prepare_linear(const Linear& linear) {
  enter();
  return uploaded_order(linear.input_order).status();
}

Status CudaBackend::allocate_scratch() {
  LANNER_RETURN_IF_ERROR(cuda_status(cudaStreamSynchronize(stream_.get()), "scratch"));
  graphs_.clear();
  const auto fit = [](DeviceBuffer& buffer, std::int64_t bytes) -> Status {
    if (buffer.bytes() >= bytes) return {};
    buffer = {};
    LANNER_ASSIGN_OR_RETURN(buffer, DeviceBuffer::allocate(aligned(bytes, kAlignment), "scratch"));
    return {};
  };
  const std::int64_t rows = std::max(reserved_.rows, kFusedRows);
  LANNER_RETURN_IF_ERROR(fit(input_, rows * input_row_bytes(reserved_.max_cols)));
  LANNER_RETURN_IF_ERROR(fit(product_, rows * product_row_bytes(reserved_.max_cols)));
  LANNER_RETURN_IF_ERROR(fit(widened_, widened_bytes_));
  LANNER_RETURN_IF_ERROR(fit(partials_, largest_partial_bytes(context_.multiprocessors, reserved_.max_cols)));
  LANNER_RETURN_IF_ERROR(fit(arrivals_, arrival_bytes(reserved_.max_cols)));
  LANNER_RETURN_IF_ERROR(cuda_status(
      cudaMemsetAsync(arrivals_.data(), 0, static_cast<std::size_t>(arrivals_.bytes()), stream_.get()), "scratch"));
  context_.scratch = {.input = input_.data(),
                      .input_bytes = input_.bytes(),
                      .product = product_.data(),
                      .product_bytes = product_.bytes(),
                      .widened = widened_.data(),
                      .widened_bytes = widened_.bytes(),
                      .partials = partials_.data(),
                      .partial_bytes = partials_.bytes(),
                      .arrivals = arrivals_.as<std::int32_t>()};
  return {};
}

// --- operations -----------------------------------------------------------------------------------------------------

bool CudaBackend::begin_step(const StepPlan& plan) {
  check_batch(plan.batch);
  LANNER_CHECK(!announced_);
  enter();
  announced_ = true;
  std::optional<StepPlaces> places = plan_places(plan);
  if (options_.deterministic && plan.batch.rows > kMostDeterministicRows) places.reset();
  if (!places) {
    upload_batch(plan.batch, {.rows = plan.batch.rows, .max_context = longest_context(plan.batch)});
    return false;
  }
  upload_batch(plan.batch, *places);
  if (failed()) return false;
  return graphs_.begin(plan, *places, stream_.get()) == StepGraphs::Action::kReplayed;
}

bool CudaBackend::end_step() {
  LANNER_CHECK(announced_);
  if (graphs_.recording() && !graphs_.finish(!failed())) {
    failure_ = {};  // of the recording: whether the device can do it shows when it is done in earnest
    return false;
  }
  announced_ = false;
  return true;
}

Status CudaBackend::take_failure() {
  if (failed() && failure_.code() == StatusCode::kResourceExhausted) make_room();
  return std::exchange(failure_, {});
}

void CudaBackend::make_room() {
  static_cast<void>(cudaStreamSynchronize(stream_.get()));
  graphs_.clear();
  spare_ = {};
  if (!std::exchange(told_of_memory_, true)) {
    notes_.push_back(
        fmt::format("the device's memory ran out in a step ({}): recorded steps and spare memory were given "
                    "back; another program may take too much of it",
                    failure_.message()));
  }
}

std::vector<std::string> CudaBackend::take_notes() {
  const Status graph = graphs_.take_failure();
  if (!graph.ok() && !std::exchange(told_of_graphs_, true)) {
    notes_.push_back(graph.message() + ": steps are launched one operation after the other, which is slower");
  }
  return std::exchange(notes_, {});
}

void CudaBackend::upload_batch(const Batch& batch, const StepPlaces& places) {
  const std::byte* const before = upload_.device();
  auto uploaded = upload_.batch(batch, places, stream_.get());
  if (upload_.device() != before) graphs_.clear();  // they read the lists where they were
  if (!uploaded.ok()) {
    fail(uploaded.status());
    return;
  }
  batch_ = *uploaded;
  batch_.sampled = sampler_.sampled();
  batch_rows_ = batch.rows;
}

const DeviceBatch& CudaBackend::current(const Batch& batch) const {
  LANNER_CHECK(batch_rows_ == batch.rows);  // begin_step() or embed() came first
  return batch_;
}

std::int64_t CudaBackend::places_of(std::int64_t rows) const {
  return announced_ && rows == batch_rows_ ? batch_.rows : rows;
}

Result<const std::int32_t*> CudaBackend::uploaded_order(const std::vector<std::int32_t>& order) {
  if (order.empty()) return static_cast<const std::int32_t*>(nullptr);
  UploadedOrder& uploaded = orders_[order.data()];
  if (uploaded.order != order) {         // not seen yet, or another Linear's memory before
    LANNER_CHECK(!graphs_.recording());  // the step was launched once before
    const auto bytes = static_cast<std::int64_t>(order.size() * sizeof(std::int32_t));
    LANNER_ASSIGN_OR_RETURN(DeviceBuffer buffer, DeviceBuffer::allocate(bytes, "the order of a weight's columns"));
    LANNER_RETURN_IF_ERROR(staging_->copy(order.data(), bytes, buffer.data()));
    uploaded = {.order = order, .device = std::move(buffer)};
  }
  return static_cast<const std::int32_t*>(uploaded.device.as<const std::int32_t>());
}

DeviceLinear CudaBackend::on_device(const Linear& linear) {
  LANNER_CHECK(static_cast<std::int64_t>(linear.parts.size()) <= kMaxParts);
  DeviceLinear result;
  result.norm = cuda::on_device(linear.norm);
  if (const auto order = uploaded_order(linear.input_order); order.ok()) {
    result.input_order = *order;
  } else {
    fail(order.status());
  }
  for (const LinearPart& part : linear.parts) {
    result.parts[result.part_count++] = {.weight = view_of(*part.weight),
                                         .bias = part.bias == nullptr ? nullptr : part.bias->data()};
  }
  result.scale = linear.epilogue.scale;
  result.post_norm = cuda::on_device(linear.epilogue.post_norm);
  result.soft_cap = linear.epilogue.soft_cap;
  return result;
}

WeightFormat CudaBackend::handed_to(const Linear* reader, std::int64_t rows) {
  return reader == nullptr ? WeightFormat::kF32 : handed_format(context_, on_device(*reader), rows);
}

void CudaBackend::embed(const PackedWeight& table, const Batch& batch, float scale, float* x) {
  if (!announced_) {
    check_batch(batch);
    enter();
    upload_batch(batch, {.rows = batch.rows, .max_context = longest_context(batch)});
  }
  if (failed()) return;
  check(cuda::embed(context_, view_of(table), current(batch), scale, x), "embed");
}

void CudaBackend::rope_angles(const Rope& rope, const Batch& batch, float* angles) {
  if (failed()) return;
  check(cuda::rope_angles(context_, rope.inverse_frequencies->data(), rope.inverse_frequencies->size(), rope.scale,
                          current(batch), angles),
        "rope_angles");
}

void CudaBackend::norm_qkv(const NormQkvArgs& args, const Batch& batch, const KvCacheView& cache) {
  check_norm_qkv(args, batch, cache);
  const DeviceLinear linear = on_device(*args.linear);
  const DeviceNormQkv device{.x = args.x,
                             .linear = &linear,
                             .rope_angles = args.rope_angles,
                             .rotary_dim = args.rotary_dim,
                             .heads = args.heads,
                             .layer = args.layer,
                             .q_norm = cuda::on_device(args.q_norm),
                             .k_norm = cuda::on_device(args.k_norm),
                             .q = args.q};
  if (failed()) return;
  check(cuda::norm_qkv(context_, device, current(batch), cache), "norm_qkv");
}

void CudaBackend::attention(const AttentionArgs& args, const Batch& batch, const KvCacheView& cache) {
  check_attention(args, batch, cache);
  const DeviceAttention device{.q = args.q,
                               .heads = args.heads,
                               .layer = args.layer,
                               .scale = args.scale,
                               .soft_cap = args.soft_cap,
                               .window = args.window,
                               .alibi_slopes = args.alibi_slopes == nullptr ? nullptr : args.alibi_slopes->data(),
                               .out = args.out,
                               .out_format = handed_to(args.reader, places_of(batch.rows))};
  if (failed()) return;
  check(cuda::attention(context_, device, current(batch), cache), "attention");
}

void CudaBackend::linear_add(const Linear& linear, const float* input, std::int64_t rows, float* x) {
  check_linear_add(linear);
  const DeviceLinear device = on_device(linear);
  if (failed()) return;
  check(cuda::linear_add(context_, device, input, WeightFormat::kF32, places_of(rows), x), "linear_add");
}

void CudaBackend::handed_linear_add(const Linear& linear, const float* input, std::int64_t rows, float* x) {
  check_linear_add(linear);
  const std::int64_t places = places_of(rows);
  const DeviceLinear device = on_device(linear);
  if (failed()) return;
  check(cuda::linear_add(context_, device, input, handed_format(context_, device, places), places, x), "linear_add");
}

void CudaBackend::norm_gated_up(const Linear& linear, Gate gate, const float* x, std::int64_t rows, float* h,
                                const Linear* reader) {
  check_norm_gated_up(linear);
  const DeviceLinear device = on_device(linear);
  const std::int64_t places = places_of(rows);
  const WeightFormat format = handed_to(reader, places);
  if (failed()) return;
  check(cuda::norm_gated_up(context_, device, gate, x, places, h, format), "norm_gated_up");
}

const std::int32_t* CudaBackend::wanted_rows(std::span<const std::int32_t> wanted) {
  bool all = true;
  for (std::size_t i = 0; i < wanted.size() && all; ++i) all = wanted[i] == static_cast<std::int32_t>(i);
  if (all || failed()) return nullptr;
  const auto rows = upload_.rows(wanted, stream_.get());
  if (rows.ok()) return *rows;
  fail(rows.status());
  return nullptr;
}

void CudaBackend::norm_head(const Linear& linear, const float* x, std::span<const std::int32_t> wanted, float* logits) {
  check_norm_head(linear);
  const std::int32_t* const rows = wanted_rows(wanted);
  const auto count = static_cast<std::int64_t>(wanted.size());
  const DeviceLinear device = on_device(linear);
  if (failed()) return;
  check(cuda::norm_head(context_, device, x, rows, rows == nullptr ? places_of(count) : count, logits), "norm_head");
}

void CudaBackend::norm_rows(const Norm& norm, const float* x, std::int64_t cols, std::span<const std::int32_t> wanted,
                            float* out) {
  check_norm_rows(norm, cols);
  const std::int32_t* const rows = wanted_rows(wanted);
  if (failed()) return;
  check(cuda::norm_rows(context_, cuda::on_device(norm), x, cols, rows, static_cast<std::int64_t>(wanted.size()), out),
        "norm_rows");
}

// --- what the host reads --------------------------------------------------------------------------------------------

void CudaBackend::read(const float* from, std::int64_t count, float* to) {
  enter();
  if (failed()) return;
  check(
      cudaMemcpyAsync(to, from, static_cast<std::size_t>(count) * sizeof(float), cudaMemcpyDeviceToHost, stream_.get()),
      "read");
  finish();
}

void CudaBackend::write(const float* from, std::int64_t count, float* to) {
  enter();
  if (failed()) return;
  fail(staging_->copy(from, count * static_cast<std::int64_t>(sizeof(float)), reinterpret_cast<std::byte*>(to)));
}

void CudaBackend::read_kv(const KvCacheView& cache, std::int64_t block, std::int64_t layer, std::int64_t kv_head,
                          float* keys, float* values) {
  enter();
  const std::int64_t count = kKvBlockTokens * cache.layout.head_dim;
  auto buffer = DeviceBuffer::allocate(2 * count * static_cast<std::int64_t>(sizeof(float)), "a block to look at");
  fail(buffer.status());
  if (failed()) return;
  auto* device = buffer->as<float>();
  check(cuda::read_kv(context_, cache, block, layer, kv_head, device, device + count), "read_kv");
  read(device, count, keys);
  read(device + count, count, values);
}

bool CudaBackend::sample(std::span<const SampleRow> rows, std::span<SampledToken> /*tokens*/) {
  enter();
  if (rows.empty() || failed()) return true;
  fail(sampler_.start(context_, rows));
  return failed();
}

void CudaBackend::collect(std::span<SampledToken> tokens) { fail(sampler_.collect(tokens)); }

}  // namespace cuda

Result<std::unique_ptr<Backend>> make_cuda_backend(const CudaBackendOptions& options) {
  return cuda::CudaBackend::create(options);
}

}  // namespace lanner::ops
