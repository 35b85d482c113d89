// How long each operation of a decoder step takes on the device, without the host: every figure is that of a graph.
//
//   operations_bench [w4] [kv8 | kv4] [decode ROWS CONTEXT]... [ragged ROWS CONTEXT]... [prefill ROWS]...
//
// The shape is that of InternLM2-1.8B in fp16 with random weights, 24 layers, so that no layer's weights are found in
// the second-level cache. Behind `w4` the layers' matrices are int4 in panels, in groups of 128; behind `kv8` or `kv4`
// keys and values are in codes. `step` is all operations in their order, the others one kind of operation on all
// layers; the rest is what only shows together. Times are medians of 20 replays in microseconds.

#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "core/check.h"
#include "core/float16.h"
#include "ops/cuda/cublas_lt.h"
#include "ops/cuda/cuda_error.h"
#include "ops/cuda/device_memory.h"
#include "ops/cuda/kernels.h"
#include "ops/cuda/step_upload.h"
#include "ops/cuda/tensor_map.h"

namespace lanner::ops::cuda {
namespace {

constexpr std::int64_t kLayers = 24;
constexpr std::int64_t kHidden = 2048;
constexpr std::int64_t kHeads = 16;
constexpr std::int64_t kKvHeads = 8;
constexpr std::int64_t kHeadDim = 128;
constexpr std::int64_t kInner = 8192;
constexpr std::int64_t kVocab = 92544;
constexpr std::int64_t kMostRows = 8192;
constexpr std::int64_t kMostLogits = 1024;
constexpr std::int64_t kBlocks = 7168;
constexpr int kReplays = 20;
constexpr std::int64_t kRandomBytes = std::int64_t{16} << 20;

template <typename T>
T must(Result<T> result) {
  if (!result.ok()) std::fprintf(stderr, "%s\n", result.status().message().c_str());
  LANNER_CHECK(result.ok());
  return *std::move(result);
}

/// Device memory with fp16 numbers of about `size`: the same ones again and again.
DeviceBuffer random_halves(std::int64_t bytes, float size) {
  static std::map<float, std::vector<std::uint16_t>> made;
  std::vector<std::uint16_t>& values = made[size];
  if (values.empty()) {
    std::mt19937 engine(1);
    std::normal_distribution<float> distribution(0, size);
    values.resize(static_cast<std::size_t>(kRandomBytes / 2));
    for (std::uint16_t& value : values) value = to_half(distribution(engine)).bits;
  }
  DeviceBuffer buffer = must(DeviceBuffer::allocate(bytes, "weights"));
  for (std::int64_t done = 0; done < bytes; done += kRandomBytes) {
    const auto count = static_cast<std::size_t>(std::min(kRandomBytes, bytes - done));
    LANNER_CUDA_CHECK(cudaMemcpy(buffer.data() + done, values.data(), count, cudaMemcpyHostToDevice));
  }
  return buffer;
}

DeviceBuffer random_floats(std::int64_t count) {
  static std::mt19937 engine(2);
  std::normal_distribution<float> distribution(0, 1);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = distribution(engine);
  DeviceBuffer buffer = must(DeviceBuffer::allocate(count * 4, "activations"));
  LANNER_CUDA_CHECK(cudaMemcpy(buffer.data(), values.data(), values.size() * 4, cudaMemcpyHostToDevice));
  return buffer;
}

struct Layer {
  DeviceBuffer scales;  // of all its int4 weights
  DeviceBuffer qkv, out, gate_up, down;
  DeviceLinear qkv_linear, out_linear, gate_up_linear, down_linear;
};

DeviceLinear linear_of(const DeviceBuffer& memory, std::initializer_list<std::int64_t> rows, std::int64_t cols,
                       const float* gain) {
  DeviceLinear linear;
  linear.norm = {.gain = gain, .eps = 1e-5F};
  const std::byte* place = memory.data();
  for (const std::int64_t count : rows) {
    linear.parts[linear.part_count++].weight = {
        .format = WeightFormat::kF16, .rows = count, .cols = cols, .stride = cols * 2, .data = place};
    place += count * cols * 2;
  }
  return linear;
}

/// The same memory as int4 weights in panels.
void turn_to_panels(DeviceLinear& linear, const DeviceBuffer& memory, const DeviceBuffer& scales) {
  constexpr std::int32_t kGroup = 128;
  const std::byte* place = memory.data();
  for (int i = 0; i < linear.part_count; ++i) {
    DeviceWeight& weight = linear.parts[i].weight;
    weight = {.format = WeightFormat::kInt4,
              .scale_format = ScaleFormat::kHalfZero,
              .group = kGroup,
              .rows = weight.rows,
              .cols = weight.cols,
              .stride = weight.cols / 2,
              .data = place,
              .scales = scales.data(),
              .panels = true};
    place += weight.rows * weight.stride;
  }
}

class Bench {
 public:
  Bench();
  void turn_to_int4();
  void turn_cache_to(KvCodes codes);
  void decode(std::int32_t rows, std::int32_t context);
  void ragged(std::int32_t rows, std::int32_t context);
  void prefill(std::int32_t rows);

 private:
  using Work = std::function<void()>;
  void upload(std::span<const std::int32_t> first_positions, std::int32_t rows);
  void report(const std::string& name, std::int64_t rows, std::int64_t logits);
  double microseconds(const Work& work);

  void norm_qkv(std::int64_t layer);
  void attend(std::int64_t layer);
  void attention_out(std::int64_t layer);
  void gate_up(std::int64_t layer);
  void down(std::int64_t layer);
  void head(std::int64_t rows);

  Stream stream_ = must(Stream::create());
  KernelContext context_;
  std::unique_ptr<TensorMaps> maps_;
  std::unique_ptr<CublasLt> library_;
  std::array<DeviceBuffer, 5> scratch_;
  DeviceBuffer arrivals_;
  std::vector<Layer> layers_;
  DeviceBuffer head_weight_;
  DeviceLinear head_;
  DeviceBuffer gain_, x_, q_, attended_, mlp_, logits_, angles_, cache_memory_, wanted_;
  KvCacheView cache_;
  StepUpload step_;
  DeviceBatch batch_;
};

Bench::Bench() {
  cudaDeviceProp properties{};
  LANNER_CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
  int shared = 0;
  LANNER_CUDA_CHECK(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
  context_.stream = stream_.get();
  context_.multiprocessors = properties.multiProcessorCount;
  context_.shared_bytes = shared;
  context_.dependent_launch = properties.major >= 9;
  context_.clusters = properties.major >= 9;
  LANNER_CUDA_CHECK(prepare_kernels(context_));
  bool tiles = false;
  if (properties.major == 9 && properties.minor == 0) LANNER_CUDA_CHECK(prepare_warpgroups(&context_, &tiles));
  const std::array<std::int64_t, 5> bytes = {kMostRows * kInner * 4, kMostRows * kInner * 8, 0, std::int64_t{256} << 20,
                                             CublasLt::kWorkspaceBytes};
  for (std::size_t i = 0; i < bytes.size(); ++i) scratch_[i] = must(DeviceBuffer::allocate(bytes[i], "scratch"));
  arrivals_ = must(DeviceBuffer::allocate(kMostPiecePlaces * kKvHeads * 4, "arrivals"));
  LANNER_CUDA_CHECK(cudaMemset(arrivals_.data(), 0, static_cast<std::size_t>(arrivals_.bytes())));
  context_.scratch = {.input = scratch_[0].data(),
                      .input_bytes = bytes[0],
                      .product = scratch_[1].data(),
                      .product_bytes = bytes[1],
                      .partials = scratch_[3].data(),
                      .partial_bytes = bytes[3],
                      .arrivals = arrivals_.as<std::int32_t>()};
  if (tiles) {
    maps_ = must(TensorMaps::open());
    context_.maps = maps_.get();
  }
  if (auto library = CublasLt::open(scratch_[4].data()); library.ok()) {
    library_ = *std::move(library);
    context_.library = library_.get();
  }
  fmt::print("{}, {} multiprocessors, {}\n", properties.name, properties.multiProcessorCount,
             tiles ? "tiles" : "cuBLASLt");
  gain_ = random_floats(kInner);
  const auto* gain = gain_.as<float>();
  constexpr std::int64_t kQkvRows = (kHeads + 2 * kKvHeads) * kHeadDim;
  for (std::int64_t i = 0; i < kLayers; ++i) {
    Layer layer;
    layer.qkv = random_halves(kQkvRows * kHidden * 2, 0.02F);
    layer.out = random_halves(kHidden * kHeads * kHeadDim * 2, 0.02F);
    layer.gate_up = random_halves(2 * kInner * kHidden * 2, 0.02F);
    layer.down = random_halves(kHidden * kInner * 2, 0.02F);
    layer.qkv_linear =
        linear_of(layer.qkv, {kHeads * kHeadDim, kKvHeads * kHeadDim, kKvHeads * kHeadDim}, kHidden, gain);
    layer.out_linear = linear_of(layer.out, {kHidden}, kHeads * kHeadDim, nullptr);
    layer.gate_up_linear = linear_of(layer.gate_up, {kInner, kInner}, kHidden, gain);
    layer.down_linear = linear_of(layer.down, {kHidden}, kInner, nullptr);
    layers_.push_back(std::move(layer));
  }
  head_weight_ = random_halves(kVocab * kHidden * 2, 0.02F);
  head_ = linear_of(head_weight_, {kVocab}, kHidden, gain);
  x_ = random_floats(kMostRows * kHidden);
  q_ = random_floats(kMostRows * kHeads * kHeadDim);
  attended_ = random_floats(kMostRows * kHeads * kHeadDim);
  mlp_ = random_floats(kMostRows * kInner);
  logits_ = must(DeviceBuffer::allocate(kMostLogits * kVocab * 4, "logits"));
  angles_ = random_floats(kMostRows * kHeadDim);
  cache_.layout = {.layers = kLayers, .kv_heads = kKvHeads, .head_dim = kHeadDim, .dtype = DType::kF16};
  cache_.blocks = kBlocks;
  cache_memory_ = random_halves(kBlocks * cache_.layout.block_bytes(), 1.0F);
  cache_.data = cache_memory_.data();
  std::vector<std::int32_t> wanted(kMostLogits);
  for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] = static_cast<std::int32_t>(i);
  wanted_ = must(DeviceBuffer::allocate(kMostLogits * 4, "rows"));
  LANNER_CUDA_CHECK(cudaMemcpy(wanted_.data(), wanted.data(), wanted.size() * 4, cudaMemcpyHostToDevice));
}

void Bench::turn_to_int4() {
  for (Layer& layer : layers_) {
    layer.scales = random_halves(kInner * kHidden / 128 * 4, 0.01F);  // of the largest; they all read these
    turn_to_panels(layer.qkv_linear, layer.qkv, layer.scales);
    turn_to_panels(layer.out_linear, layer.out, layer.scales);
    turn_to_panels(layer.gate_up_linear, layer.gate_up, layer.scales);
    turn_to_panels(layer.down_linear, layer.down, layer.scales);
  }
}

/// All blocks alike: any codes, of numbers from -2 to 2.
void Bench::turn_cache_to(KvCodes codes) {
  cache_.layout.codes = codes;
  const KvLayout& layout = cache_.layout;
  LANNER_CHECK(kBlocks * layout.block_bytes() <= cache_memory_.bytes());
  std::mt19937 engine(3);
  std::vector<std::uint16_t> block(static_cast<std::size_t>(layout.block_bytes() / 2));
  for (std::uint16_t& pair_of_codes : block) pair_of_codes = static_cast<std::uint16_t>(engine());
  const std::uint16_t scale = to_half(codes == KvCodes::kInt8 ? 4.0F / 255 : 4.0F / 15).bits;
  const std::uint16_t min = to_half(-2.0F).bits;
  const std::int64_t head = layout.head_bytes() / 2;
  for (std::int64_t first = 0; first < kLayers * kKvHeads * head; first += head) {
    for (std::int64_t i = first + layout.numbers_bytes(); i < first + head; i += 2) {
      block[static_cast<std::size_t>(i)] = scale;
      block[static_cast<std::size_t>(i + 1)] = min;
    }
  }
  const auto bytes = static_cast<std::size_t>(layout.block_bytes());
  LANNER_CUDA_CHECK(cudaMemcpy(cache_.data, block.data(), bytes, cudaMemcpyHostToDevice));
  for (std::int64_t i = 1; i < kBlocks; ++i) {
    LANNER_CUDA_CHECK(cudaMemcpy(cache_.head(i, 0, 0), cache_.data, bytes, cudaMemcpyDeviceToDevice));
  }
  LANNER_CUDA_CHECK(cudaDeviceSynchronize());
}

/// Slices of `rows` rows each, one for each of `first_positions`.
void Bench::upload(std::span<const std::int32_t> first_positions, std::int32_t rows) {
  const auto sequences = static_cast<std::int32_t>(first_positions.size());
  const std::int32_t of_each = (*std::ranges::max_element(first_positions) + rows + 63) / 64;
  LANNER_CHECK(sequences * rows <= kMostRows);
  std::vector<std::int32_t> blocks(static_cast<std::size_t>(sequences * of_each));
  std::size_t used = 0;
  for (std::int32_t s = 0; s < sequences; ++s) {
    const std::int32_t count = (first_positions[static_cast<std::size_t>(s)] + rows + 63) / 64;
    for (std::int32_t i = 0; i < count; ++i, ++used) {
      blocks[static_cast<std::size_t>(std::int64_t{s} * of_each + i)] =
          static_cast<std::int32_t>(used * 7919 % kBlocks);
    }
  }
  LANNER_CHECK(static_cast<std::int64_t>(used) <= kBlocks);
  const std::vector<std::int32_t> zeros(static_cast<std::size_t>(sequences * rows));
  std::vector<SequenceSlice> slices;
  for (std::int32_t s = 0; s < sequences; ++s) {
    slices.push_back(
        {.first_row = s * rows,
         .rows = rows,
         .first_position = first_positions[static_cast<std::size_t>(s)],
         .blocks = std::span(blocks).subspan(static_cast<std::size_t>(s) * static_cast<std::size_t>(of_each),
                                             static_cast<std::size_t>(of_each))});
  }
  const Batch batch{.rows = sequences * rows, .tokens = zeros, .positions = zeros, .slices = slices};
  const StepPlaces places{.rows = batch.rows, .max_context = longest_context(batch)};
  batch_ = must(step_.batch(batch, places, stream_.get()));
  LANNER_CUDA_CHECK(cudaStreamSynchronize(stream_.get()));
}

void Bench::norm_qkv(std::int64_t layer) {
  LANNER_CUDA_CHECK(cuda::norm_qkv(context_,
                                   {.x = x_.as<float>(),
                                    .linear = &layers_[static_cast<std::size_t>(layer)].qkv_linear,
                                    .rope_angles = angles_.as<float>(),
                                    .rotary_dim = kHeadDim,
                                    .heads = kHeads,
                                    .layer = layer,
                                    .q_norm = {},
                                    .k_norm = {},
                                    .q = q_.as<float>()},
                                   batch_, cache_));
}

void Bench::attend(std::int64_t layer) {
  const DeviceLinear& reader = layers_[static_cast<std::size_t>(layer)].out_linear;
  LANNER_CUDA_CHECK(cuda::attention(context_,
                                    {.q = q_.as<float>(),
                                     .heads = kHeads,
                                     .layer = layer,
                                     .scale = 0.088F,
                                     .out = attended_.as<float>(),
                                     .out_format = handed_format(context_, reader, batch_.rows)},
                                    batch_, cache_));
}

void Bench::attention_out(std::int64_t layer) {
  const DeviceLinear& linear = layers_[static_cast<std::size_t>(layer)].out_linear;
  LANNER_CUDA_CHECK(linear_add(context_, linear, attended_.as<float>(), handed_format(context_, linear, batch_.rows),
                               batch_.rows, x_.as<float>()));
}

void Bench::gate_up(std::int64_t layer) {
  const Layer& here = layers_[static_cast<std::size_t>(layer)];
  LANNER_CUDA_CHECK(norm_gated_up(context_, here.gate_up_linear, Gate::kSilu, x_.as<float>(), batch_.rows,
                                  mlp_.as<float>(), handed_format(context_, here.down_linear, batch_.rows)));
}

void Bench::down(std::int64_t layer) {
  const DeviceLinear& linear = layers_[static_cast<std::size_t>(layer)].down_linear;
  LANNER_CUDA_CHECK(linear_add(context_, linear, mlp_.as<float>(), handed_format(context_, linear, batch_.rows),
                               batch_.rows, x_.as<float>()));
}

void Bench::head(std::int64_t rows) {
  LANNER_CUDA_CHECK(norm_head(context_, head_, x_.as<float>(), wanted_.as<std::int32_t>(), rows, logits_.as<float>()));
}

double Bench::microseconds(const Work& work) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  LANNER_CUDA_CHECK(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal));
  work();
  LANNER_CUDA_CHECK(cudaStreamEndCapture(stream_.get(), &graph));
  LANNER_CUDA_CHECK(cudaGraphInstantiate(&replay, graph, 0));
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  LANNER_CUDA_CHECK(cudaEventCreate(&begin));
  LANNER_CUDA_CHECK(cudaEventCreate(&end));
  std::vector<float> times;
  for (int i = 0; i < kReplays + 2; ++i) {
    LANNER_CUDA_CHECK(cudaEventRecord(begin, stream_.get()));
    LANNER_CUDA_CHECK(cudaGraphLaunch(replay, stream_.get()));
    LANNER_CUDA_CHECK(cudaEventRecord(end, stream_.get()));
    LANNER_CUDA_CHECK(cudaEventSynchronize(end));
    float milliseconds = 0;
    LANNER_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
    if (i >= 2) times.push_back(milliseconds * 1000);
  }
  LANNER_CUDA_CHECK(cudaGraphExecDestroy(replay));
  LANNER_CUDA_CHECK(cudaGraphDestroy(graph));
  std::nth_element(times.begin(), times.begin() + kReplays / 2, times.end());
  return static_cast<double>(times[kReplays / 2]);
}

void Bench::report(const std::string& name, std::int64_t rows, std::int64_t logits) {
  const auto on_layers = [](const std::function<void(std::int64_t)>& one) {
    return [one] {
      for (std::int64_t layer = 0; layer < kLayers; ++layer) one(layer);
    };
  };
  const auto all = [&] {
    for (std::int64_t layer = 0; layer < kLayers; ++layer) {
      norm_qkv(layer);
      attend(layer);
      attention_out(layer);
      gate_up(layer);
      down(layer);
    }
    head(logits);
  };
  const double step = microseconds(all);
  const double qkv = microseconds(on_layers([&](std::int64_t layer) { norm_qkv(layer); }));
  const double attention = microseconds(on_layers([&](std::int64_t layer) { attend(layer); }));
  const double out = microseconds(on_layers([&](std::int64_t layer) { attention_out(layer); }));
  const double up = microseconds(on_layers([&](std::int64_t layer) { gate_up(layer); }));
  const double down_time = microseconds(on_layers([&](std::int64_t layer) { down(layer); }));
  const double head_time = microseconds([&] { head(logits); });
  fmt::print(
      "{:<18} step {:9.1f} = {:7.0f} tok/s  qkv {:8.1f}  attention {:8.1f}  out {:8.1f}  gate_up {:8.1f}  down {:8.1f} "
      " head {:7.1f}\n",
      name, step, static_cast<double>(rows) / step * 1e6, qkv, attention, out, up, down_time, head_time);
  std::fflush(stdout);
}

void Bench::decode(std::int32_t rows, std::int32_t context) {
  upload(std::vector<std::int32_t>(static_cast<std::size_t>(rows), context - 1), 1);
  report(fmt::format("decode {} at {}", rows, context), rows, rows);
}

/// Contexts of a quarter to seven quarters of `context`; each 32nd three times as long.
void Bench::ragged(std::int32_t rows, std::int32_t context) {
  std::vector<std::int32_t> first_positions;
  for (std::int32_t i = 0; i < rows; ++i) {
    first_positions.push_back(i % 32 == 31 ? 3 * context : context / 4 + i * 37 % 100 * context * 3 / 200);
  }
  upload(first_positions, 1);
  report(fmt::format("ragged {} at {}", rows, context), rows, rows);
}

void Bench::prefill(std::int32_t rows) {
  upload(std::vector<std::int32_t>{0}, rows);
  report(fmt::format("prefill {}", rows), rows, 1);
}

int run(std::span<char* const> arguments) {
  Bench bench;
  for (std::size_t i = 1; i < arguments.size(); ++i) {
    const std::string verb = arguments[i];
    const auto number = [&] { return i + 1 < arguments.size() ? std::atoi(arguments[++i]) : 0; };
    if (verb == "w4") {
      bench.turn_to_int4();
    } else if (verb == "kv8" || verb == "kv4") {
      bench.turn_cache_to(verb == "kv8" ? KvCodes::kInt8 : KvCodes::kInt4);
    } else if (verb == "decode") {
      const int rows = number();
      bench.decode(rows, number());
    } else if (verb == "ragged") {
      const int rows = number();
      bench.ragged(rows, number());
    } else if (verb == "prefill") {
      bench.prefill(number());
    } else {
      fmt::print(
          "usage: operations_bench [w4] [kv8 | kv4] [decode ROWS CONTEXT]... [ragged ROWS CONTEXT]... "
          "[prefill ROWS]...\n");
      return 2;
    }
  }
  return 0;
}

}  // namespace
}  // namespace lanner::ops::cuda

int main(int count, char** arguments) { return lanner::ops::cuda::run({arguments, static_cast<std::size_t>(count)}); }
