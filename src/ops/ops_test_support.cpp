#include "ops/ops_test_support.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <numeric>

#include "core/check.h"
#include "core/float16.h"
#include "core/thread_pool.h"
#include "ops/cpu/amx_in_memory.h"
#include "ops/cpu/cpu_backend.h"
#include "ops/host_memory_backend.h"

namespace lanner::ops::testing {
namespace {

// More rows go through 16-bit matrix products on CUDA: of quantized weights, and of 16-bit ones. Of int4 weights whose
// shape suits panels all do.
constexpr std::int64_t kFusedRows = 8;
constexpr std::int64_t kFusedRowsOf16Bits = 2;

/// The processor's tiles, or those in memory where it has none; for any number of rows.
const cpu::TileKernels& tile_kernels() {
  static const cpu::TileKernels kernels = [] {
    const cpu::TileKernels* own = cpu::kernels_for(selected_cpu_isa()).tiles;
    cpu::TileKernels chosen = own != nullptr ? *own : cpu::amx_in_memory::tile_kernels();
    chosen.least_rows = 1;
    return chosen;
  }();
  return kernels;
}

std::unique_ptr<Backend> make_bare_device(int threads) {
  if (test_device() == TestDevice::kCpuTiles) {
    return std::make_unique<cpu::CpuBackend>(*ThreadPool::create(threads), cpu::kernels_for(selected_cpu_isa()),
                                             cpu::BFloat16Kernels{.tiles = &tile_kernels()});
  }
  if (!is_cuda(test_device())) return *make_cpu_backend({.threads = threads, .deterministic = true});
  // With an even number of threads quantized weights have copies.
  auto made =
      make_cuda_backend({.deterministic = test_device() == TestDevice::kCudaDeterministic, .copies = threads % 2 == 0});
  if (!made.ok()) std::fprintf(stderr, "%s\n", made.status().message().c_str());
  LANNER_CHECK(made.ok());
  return *std::move(made);
}

// Both factors of a product in tiles: bf16, with subnormal numbers zero.
constexpr OperandError kTileError{.share = 0x1p-8, .least = 0x1p-126};

std::unique_ptr<Backend> make_device(int threads) {
  std::unique_ptr<Backend> backend = make_bare_device(threads);
  if (is_cuda(test_device())) backend = on_host_memory(std::move(backend));
  LANNER_CHECK(backend->reserve({.rows = kScratchRows, .max_cols = kScratchCols}).ok());
  return backend;
}

float rounded_to_half(float value) { return to_float(to_half(value)); }

void fill_dense(WeightSource& source, Random& random) {
  const std::int64_t count = source.rows * source.cols;
  const std::int64_t bytes = source.format == WeightFormat::kF32 ? 4 : 2;
  // One byte off, as a tensor in a file may lie.
  auto storage = std::make_shared<std::vector<std::byte>>(static_cast<std::size_t>(count * bytes + 1));
  std::byte* out = storage->data() + 1;
  for (std::int64_t i = 0; i < count; ++i) {
    const float value = random.uniform(-1.0F, 1.0F);
    if (source.format == WeightFormat::kF32) {
      std::memcpy(out + i * 4, &value, sizeof(value));
    } else {
      const std::uint16_t bits = source.format == WeightFormat::kF16 ? to_half(value).bits : to_bfloat16(value).bits;
      std::memcpy(out + i * 2, &bits, sizeof(bits));
    }
  }
  source.dense = out;
  source.owner = storage;
}

void fill_quantized(WeightSource& source, const WeightKind& kind, Random& random) {
  const std::int64_t limit = source.format == WeightFormat::kInt4 ? 16 : 256;
  source.group = kind.group;
  source.codes.resize(static_cast<std::size_t>(source.rows * source.cols));
  for (std::uint8_t& code : source.codes) code = static_cast<std::uint8_t>(random.below(limit));
  const float step = source.format == WeightFormat::kInt4 ? 0.125F : 0.0078125F;
  source.scales = random.vector(source.rows * (source.cols / source.group), 0.5F * step, step);
  if (kind.offsets) source.offsets = random.vector(static_cast<std::int64_t>(source.scales.size()), -1.0F, 0.25F);
  if (kind.zero_points) {
    for (std::size_t i = 0; i < source.scales.size(); ++i) {
      source.scales[i] = rounded_to_half(source.scales[i]);
      source.offsets[i] = -source.scales[i] * static_cast<float>(random.below(16));
    }
    return;
  }
  if (kind.half_scales) {
    for (float& scale : source.scales) scale = rounded_to_half(scale);
    for (float& offset : source.offsets) offset = rounded_to_half(offset);
  }
  if (source.format != WeightFormat::kInt4 || kind.offsets) return;
  for (const float scale : source.scales) source.offsets.push_back(-8 * scale);
}

float dense_element(const WeightSource& source, std::int64_t index) {
  if (source.format == WeightFormat::kF32) {
    float value = 0;
    std::memcpy(&value, source.dense + index * 4, sizeof(value));
    return value;
  }
  std::uint16_t bits = 0;
  std::memcpy(&bits, source.dense + index * 2, sizeof(bits));
  return source.format == WeightFormat::kF16 ? to_float(Half{bits}) : to_float(BFloat16{bits});
}

/// Roundings between the exact sum of products and the device's, beside those of the norm. To first order they add.
double product_roundings(const HostLinear& host) {
  // One a column, the bias, the reference's own, and the scale and offset where codes are multiplied with fp32.
  if (!host.reads_codes()) return static_cast<double>(host.cols()) + 8;
  // For each unit (32 columns, or 16) two additions; the two scales' product, the input's sum and the reference's
  // widening of weight and input are a few more.
  std::int64_t unit = 32;
  for (const WeightSource& weight : host.weights) unit = weight.group % 32 == 0 ? unit : 16;
  return 2.0 * static_cast<double>(host.cols()) / static_cast<double>(unit) + 8;
}

}  // namespace

Backend& device(int threads) {
  static const std::vector<std::unique_ptr<Backend>> devices = [] {
    std::vector<std::unique_ptr<Backend>> made;
    const int counts = is_cuda(test_device()) ? 1 : kMaxThreads;
    for (int count = 1; count <= counts; ++count) made.push_back(make_device(count));
    return made;
  }();
  return *devices[std::min(static_cast<std::size_t>(threads), devices.size()) - 1];
}

Backend& fast_cpu(int threads) {
  static const std::vector<std::unique_ptr<Backend>> backends = [] {
    std::vector<std::unique_ptr<Backend>> made;
    for (int count = 1; count <= kMaxThreads; ++count) {
      made.push_back(*make_cpu_backend({.threads = count}));
      LANNER_CHECK(made.back()->reserve({.rows = kScratchRows, .max_cols = kScratchCols}).ok());
    }
    return made;
  }();
  return *backends[static_cast<std::size_t>(threads - 1)];
}

Backend& bare_device() {
  static const std::unique_ptr<Backend> backend = [] {
    std::unique_ptr<Backend> made = make_bare_device(1);
    LANNER_CHECK(made->reserve({.rows = kScratchRows, .max_cols = kScratchCols}).ok());
    return made;
  }();
  return *backend;
}

Backend& reference() {
  static const std::unique_ptr<Backend> backend = make_reference_backend();
  return *backend;
}

float Random::uniform(float low, float high) {
  return low + (high - low) * (static_cast<float>(engine_() >> 8U) * 0x1p-24F);
}

std::vector<float> Random::vector(std::int64_t size, float low, float high) {
  std::vector<float> values(static_cast<std::size_t>(size));
  for (float& value : values) value = uniform(low, high);
  return values;
}

std::vector<std::int32_t> Random::permutation(std::int64_t size) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(size));
  std::iota(order.begin(), order.end(), 0);
  for (std::int64_t i = size - 1; i > 0; --i) {
    std::swap(order[static_cast<std::size_t>(i)], order[static_cast<std::size_t>(below(i + 1))]);
  }
  return order;
}

std::string WeightKind::name() const {
  if (!is_quantized(format)) return std::string(weight_format_name(format));
  return fmt::format("{} group {}{}{}{}{}", weight_format_name(format), group, offsets ? " offsets" : "",
                     zero_points ? " zero points" : "", half_scales ? " half scales" : "",
                     arithmetic == Arithmetic::kExact ? " exact" : "");
}

std::vector<WeightKind> dense_kinds() {
  return {{.format = WeightFormat::kF32}, {.format = WeightFormat::kF16}, {.format = WeightFormat::kBF16}};
}

std::vector<WeightKind> quantized_kinds(std::int64_t group) {
  std::vector<WeightKind> kinds;
  for (const bool half_scales : {false, true}) {
    for (const bool offsets : {false, true}) {
      kinds.push_back({.format = WeightFormat::kInt8, .group = group, .offsets = offsets, .half_scales = half_scales});
    }
    for (const bool offsets : {false, true}) {
      if (group % 32 != 0) continue;
      kinds.push_back({.format = WeightFormat::kInt4, .group = group, .offsets = offsets, .half_scales = half_scales});
    }
  }
  if (group % 32 == 0) {
    kinds.push_back({.format = WeightFormat::kInt4, .group = group, .offsets = true, .zero_points = true});
  }
  return kinds;
}

std::vector<WeightKind> some_of_each_kind() {
  std::vector<WeightKind> kinds = dense_kinds();
  for (const std::int64_t group : {16, 32, 64}) {
    for (const WeightKind& kind : quantized_kinds(group)) kinds.push_back(kind);
  }
  kinds.push_back({.format = WeightFormat::kInt4, .group = 32, .offsets = true, .arithmetic = Arithmetic::kExact});
  kinds.push_back({.format = WeightFormat::kInt8, .group = 16, .offsets = true, .arithmetic = Arithmetic::kExact});
  return kinds;
}

WeightSource random_weight(const WeightKind& kind, std::int64_t rows, std::int64_t cols, Random& random) {
  WeightSource source;
  source.format = kind.format;
  source.rows = rows;
  source.cols = cols;
  if (is_quantized(kind.format)) {
    fill_quantized(source, kind, random);
  } else {
    fill_dense(source, random);
  }
  return source;
}

WeightSource dense_weight(const float* values, std::int64_t rows, std::int64_t cols) {
  WeightSource source;
  source.rows = rows;
  source.cols = cols;
  source.dense = reinterpret_cast<const std::byte*>(values);
  return source;
}

std::vector<float> magnitudes(const WeightSource& source) {
  std::vector<float> result(static_cast<std::size_t>(source.rows * source.cols));
  for (std::int64_t i = 0; i < source.rows * source.cols; ++i) {
    const auto index = static_cast<std::size_t>(i);
    if (!is_quantized(source.format)) {
      result[index] = std::fabs(dense_element(source, i));
      continue;
    }
    const auto group = static_cast<std::size_t>(i / source.group);  // rows hold a whole number of groups
    const bool nibble = source.format == WeightFormat::kInt4;
    const int code = nibble ? source.codes[index] : static_cast<std::int8_t>(source.codes[index]);
    result[index] = std::fabs(source.scales[group] * static_cast<float>(code));
    if (!source.offsets.empty()) result[index] += std::fabs(source.offsets[group]);
  }
  return result;
}

std::shared_ptr<const PackedWeight> packed(Backend& backend, const WeightSource& source, Arithmetic arithmetic) {
  auto weight = backend.pack(source, arithmetic);
  LANNER_CHECK(weight.ok());
  return *weight;
}

std::shared_ptr<const DeviceVector> uploaded(Backend& backend, const std::vector<float>& values) {
  auto vector = backend.upload(values);
  LANNER_CHECK(vector.ok());
  return *vector;
}

Norm HostNorm::on(Backend& backend) const {
  if (gain.empty()) return {};
  return {.kind = kind,
          .gain = uploaded(backend, gain),
          .bias = bias.empty() ? nullptr : uploaded(backend, bias),
          .eps = eps};
}

HostNorm random_norm(NormKind kind, bool bias, std::int64_t cols, Random& random) {
  HostNorm norm{.kind = kind, .gain = random.vector(cols, 0.5F, 1.5F), .bias = {}};
  if (bias) norm.bias = random.vector(cols);
  return norm;
}

void take_through_norm(const HostNorm& norm, std::span<float> values, std::span<double> bound) {
  if (!norm) return;
  const auto n = static_cast<double>(values.size());
  const bool layer = norm.kind == NormKind::kLayer;
  const double in_sum = static_cast<double>(values.size()) / 16 + 20;  // roundings of a sum over 16 lanes
  double mean = 0;
  double mean_size = 0;
  double mean_bound = 0;
  double bound_squares = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    mean += static_cast<double>(values[i]) / n;
    mean_size += std::fabs(static_cast<double>(values[i])) / n;
    mean_bound += bound[i] / n;
    bound_squares += bound[i] * bound[i] / n;
  }
  if (!layer) mean = mean_size = mean_bound = 0;
  double squares = 0;
  for (const float value : values) squares += (static_cast<double>(value) - mean) * (static_cast<double>(value) - mean);
  const double size = std::sqrt(squares / n + static_cast<double>(norm.eps));  // what the norm divides by
  // The device's mean is off by that of the bounds and by its sum's roundings; to the variance an error of the mean
  // adds its square. By the triangle inequality the root is off by no more than the bounds' own root mean square.
  const double mean_rounding = layer ? (in_sum + 2) * kUnit * mean_size : 0;
  const double of_bounds = std::sqrt(bound_squares) / size;
  const double of_sums = ((in_sum + 2) * kUnit + mean_rounding * mean_rounding / (size * size)) / 2;
  const double share = of_bounds + of_sums + 8 * kUnit;
  LANNER_CHECK(share < 0.5);
  Backend& oracle = reference();
  const std::vector<float> before(values.begin(), values.end());
  const std::vector<std::int32_t> first = {0};
  oracle.norm_rows(norm.on(oracle), before.data(), static_cast<std::int64_t>(before.size()), first, values.data());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double difference = std::fabs(static_cast<double>(before[i]) - mean);
    const double error = (bound[i] + mean_bound + mean_rounding + difference * share) / (1 - share);
    bound[i] = std::fabs(static_cast<double>(norm.gain[i])) / size * error;
    if (!norm.bias.empty()) bound[i] += 2 * kUnit * std::fabs(static_cast<double>(values[i]));
  }
}

std::vector<float> ReferenceSide::products(std::int64_t rows) const {
  Linear plain = linear;
  plain.epilogue = {};
  std::vector<float> result(static_cast<std::size_t>(rows * linear.rows()));
  reference().linear_add(plain, x.data(), rows, result.data());
  return result;
}

bool HostLinear::reads_codes() const {
  if (!is_quantized(weights.front().format) || arithmetic != Arithmetic::kFast) return false;
  if (test_device() == TestDevice::kCpu) return true;
  // Tiles take groups of whole ones.
  return test_device() == TestDevice::kCpuTiles &&
         std::any_of(weights.begin(), weights.end(), [](const WeightSource& weight) { return weight.group % 32 != 0; });
}

std::int64_t HostLinear::width() const {
  std::int64_t total = 0;
  for (const WeightSource& weight : weights) total += weight.rows;
  return total;
}

Linear HostLinear::part_on(Backend& backend, std::size_t part) const {
  Linear linear;
  linear.norm = norm.on(backend);
  linear.input_order = input_order;
  linear.parts.push_back({.weight = packed(backend, weights[part], arithmetic),
                          .bias = biases.empty() ? nullptr : uploaded(backend, biases[part])});
  return linear;
}

Linear HostLinear::on(Backend& backend) const {
  Linear linear = part_on(backend, 0);
  for (std::size_t part = 1; part < weights.size(); ++part) {
    linear.parts.push_back(part_on(backend, part).parts.front());
  }
  linear.epilogue = {.scale = scale, .post_norm = post_norm.on(backend), .soft_cap = soft_cap};
  return linear;
}

HostLinear random_linear(const WeightKind& kind, const LinearShape& shape, Random& random) {
  HostLinear host;
  host.arithmetic = kind.arithmetic;
  for (const std::int64_t rows : shape.rows) {
    host.weights.push_back(random_weight(kind, rows, shape.cols, random));
    if (shape.bias) host.biases.push_back(random.vector(rows));
  }
  // As a model's loader does: the parts of a Linear may lie one behind the other.
  for (std::size_t i = host.weights.size(); i-- > 1;) {
    host.weights[i - 1].rows_behind = host.weights[i].rows + host.weights[i].rows_behind;
  }
  if (shape.norm) host.norm = random_norm(shape.norm_kind, shape.norm_bias, shape.cols, random);
  if (shape.ordered) host.input_order = random.permutation(shape.cols);
  return host;
}

OperandError rounding_to(DType half) {
  if (half == DType::kF16) return {.share = 0x1p-11, .least = 0x1p-25};
  return {.share = 0x1p-8, .least = 0x1p-134};
}

OperandError input_error(const WeightSource& weight, Arithmetic arithmetic, std::int64_t rows) {
  const bool exact = weight.format == WeightFormat::kF32 || arithmetic == Arithmetic::kExact;
  if (exact) return {};
  if (test_device() == TestDevice::kCpuTiles) return kTileError;
  if (test_device() != TestDevice::kCuda) return {};
  const bool panels = weight.format == WeightFormat::kInt4 && weight.rows % 16 == 0 && weight.cols % 128 == 0;
  const std::int64_t exact_rows = panels ? 0 : is_quantized(weight.format) ? kFusedRows : kFusedRowsOf16Bits;
  if (rows <= exact_rows) return {};
  return rounding_to(weight.format == WeightFormat::kBF16 ? DType::kBF16 : DType::kF16);
}

OperandError weight_error(const WeightSource& weight, Arithmetic arithmetic, std::int64_t rows) {
  const bool narrowed = weight.format == WeightFormat::kF16 && test_device() == TestDevice::kCpuTiles;
  return narrowed || is_quantized(weight.format) ? input_error(weight, arithmetic, rows) : OperandError{};
}

std::vector<float> through_15_bits(const std::vector<float>& x) {
  std::vector<float> result(x.size());
  for (std::size_t start = 0; start < x.size(); start += 32) {
    float largest = 0;
    for (std::size_t i = start; i < start + 32; ++i) largest = std::max(largest, std::fabs(x[i]));
    const float inverse = largest > 0 ? 16256.0F / largest : 0.0F;
    for (std::size_t i = start; i < start + 32; ++i) {
      result[i] = std::nearbyint(x[i] * inverse) * (largest / 16256.0F);
    }
  }
  return result;
}

ReferenceSide reference_side(const HostLinear& host, const std::vector<float>& x, std::int64_t rows) {
  const std::int64_t cols = host.cols();
  ReferenceSide side{.linear = host.on(reference()), .x = x, .product_bound = {}};
  std::vector<float> input = x;               // (rows, cols): after the norm, then in the weights' order
  std::vector<double> input_bound(x.size());  // how far the device's input may be off
  if (host.norm && host.reads_codes()) {
    std::vector<std::int32_t> all(static_cast<std::size_t>(rows));
    std::iota(all.begin(), all.end(), 0);
    device(1).norm_rows(host.norm.on(device(1)), x.data(), cols, all, input.data());
  } else {
    for (std::int64_t row = 0; row < rows; ++row) {
      const auto first = static_cast<std::size_t>(row * cols);
      take_through_norm(host.norm, std::span(input).subspan(first, static_cast<std::size_t>(cols)),
                        std::span(input_bound).subspan(first, static_cast<std::size_t>(cols)));
    }
  }
  if (!host.input_order.empty()) {
    const std::vector<float> plain = input;
    const std::vector<double> plain_bound = input_bound;
    for (std::size_t i = 0; i < input.size(); ++i) {
      const std::size_t column = i % static_cast<std::size_t>(cols);
      const std::size_t from = i - column + static_cast<std::size_t>(host.input_order[column]);
      input[i] = plain[from];
      input_bound[i] = plain_bound[from];
    }
  }
  if (host.reads_codes()) {
    input = through_15_bits(input);
    side.x = input;
    side.linear.norm = {};
    side.linear.input_order = {};
  }
  const double roundings = product_roundings(host);
  side.product_bound.reserve(static_cast<std::size_t>(rows * host.width()));
  std::vector<std::vector<float>> sizes;
  for (const WeightSource& weight : host.weights) sizes.push_back(magnitudes(weight));
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::size_t part = 0; part < host.weights.size(); ++part) {
      for (std::int64_t out = 0; out < host.weights[part].rows; ++out) {
        double terms = 0;
        double from_input = 0;
        if (!host.biases.empty())
          terms = std::fabs(static_cast<double>(host.biases[part][static_cast<std::size_t>(out)]));
        const float* w = sizes[part].data() + out * cols;
        const float* in = input.data() + row * cols;
        const double* in_bound = input_bound.data() + row * cols;
        const OperandError of_input = input_error(host.weights[part], host.arithmetic, rows);
        const OperandError of_weight = weight_error(host.weights[part], host.arithmetic, rows);
        for (std::int64_t i = 0; i < cols; ++i) {
          const auto weight = static_cast<double>(w[i]);
          const auto size = static_cast<double>(std::fabs(in[i]));
          const double input_off = in_bound[i] + of_input.of(size + in_bound[i]);
          terms += static_cast<double>(w[i] * std::fabs(in[i]));
          from_input += weight * input_off + of_weight.of(weight) * (size + input_off);
        }
        side.product_bound.push_back(roundings * kUnit * terms + from_input);
      }
    }
  }
  return side;
}

void expect_within(std::span<const float> actual, std::span<const float> expected, std::span<const double> bound) {
  ASSERT_EQ(actual.size(), expected.size());
  ASSERT_EQ(actual.size(), bound.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double error = std::fabs(static_cast<double>(actual[i]) - static_cast<double>(expected[i]));
    ASSERT_TRUE(error <= bound[i]) << "element " << i << " of " << actual.size() << " is " << actual[i]
                                   << ", the reference has " << expected[i] << ", allowed are " << bound[i];
  }
}

void expect_same_bits(std::span<const float> actual, std::span<const float> expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    ASSERT_EQ(std::bit_cast<std::uint32_t>(actual[i]), std::bit_cast<std::uint32_t>(expected[i]))
        << "element " << i << " of " << actual.size() << " is " << actual[i] << " and was to be " << expected[i];
  }
}

Step::Step(const std::vector<Sequence>& sequences, std::int64_t pool_blocks, Random& random) {
  const std::vector<std::int32_t> pool = random.permutation(pool_blocks);
  std::size_t dealt = 0;
  std::int32_t rows = 0;
  for (const Sequence& sequence : sequences) {
    const std::int64_t tokens = static_cast<std::int64_t>(sequence.first_position) + sequence.rows;
    std::vector<std::int32_t> own;
    for (std::int64_t t = 0; t < tokens; t += kKvBlockTokens) {
      LANNER_CHECK(dealt < pool.size());
      own.push_back(pool[dealt++]);
    }
    blocks_.push_back(std::move(own));
    for (std::int32_t i = 0; i < sequence.rows; ++i) {
      tokens_.push_back(static_cast<std::int32_t>(random.below(50)));
      positions_.push_back(sequence.first_position + i);
    }
    slices_.push_back(
        {.first_row = rows, .rows = sequence.rows, .first_position = sequence.first_position, .blocks = {}});
    rows += sequence.rows;
  }
  for (std::size_t i = 0; i < slices_.size(); ++i) slices_[i].blocks = blocks_[i];
  batch_ = {.rows = rows, .tokens = tokens_, .positions = positions_, .slices = slices_};
}

TestCache::TestCache(const KvLayout& layout, std::int64_t blocks)
    : bytes_(static_cast<std::size_t>(layout.block_bytes() * blocks), std::byte{0xFF}) {
  view_ = {.layout = layout, .data = bytes_.data(), .blocks = blocks};
}

void TestCache::write(Backend& backend, std::int64_t layer, std::span<const std::int32_t> blocks,
                      const std::vector<float>& keys, const std::vector<float>& values) {
  // x = (key, value), and the weights are the identity's halves: what is written is x itself.
  const std::int64_t width = view_.layout.kv_heads * view_.layout.head_dim;
  const auto tokens = static_cast<std::int32_t>(keys.size() / static_cast<std::size_t>(width));
  std::vector<float> identity(static_cast<std::size_t>(4 * width * width));
  for (std::int64_t i = 0; i < 2 * width; ++i) identity[static_cast<std::size_t>(i * 2 * width + i)] = 1.0F;
  const auto part = [&](std::int64_t first, std::int64_t rows) {
    return dense_weight(identity.data() + first * 2 * width, rows, 2 * width);
  };
  HostLinear host;
  host.weights = {part(0, view_.layout.head_dim), part(0, width), part(width, width)};
  std::vector<float> x;
  std::vector<std::int32_t> positions(static_cast<std::size_t>(tokens));
  std::iota(positions.begin(), positions.end(), 0);
  for (std::int64_t t = 0; t < tokens; ++t) {
    x.insert(x.end(), keys.begin() + t * width, keys.begin() + (t + 1) * width);
    x.insert(x.end(), values.begin() + t * width, values.begin() + (t + 1) * width);
  }
  const SequenceSlice slice{.first_row = 0, .rows = tokens, .first_position = 0, .blocks = blocks};
  const Batch batch{.rows = tokens, .tokens = positions, .positions = positions, .slices = {&slice, 1}};
  const Linear linear = host.on(backend);
  std::vector<float> q(static_cast<std::size_t>(tokens * view_.layout.head_dim));
  backend.norm_qkv({.x = x.data(), .linear = &linear, .heads = 1, .layer = layer, .q = q.data()}, batch, view_);
}

}  // namespace lanner::ops::testing
