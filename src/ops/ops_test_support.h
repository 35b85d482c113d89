#pragma once
// What the tests of the operations share: the devices, random material from fixed seeds, weights in every format on
// each device, and how far a result may lie from the reference.
//
// Bounds are derived, not tried out. A sum of n fp32 terms in any order is off by at most n * 2^-24 * (sum of the
// terms' magnitudes) (Higham, Accuracy and Stability of Numerical Algorithms, section 4.2, to first order), so each
// result is held against the magnitudes of what was added, not against itself: a result near zero that is left of
// large terms cannot fail by chance, and an error of one term in a thousand cannot hide.

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "ops/backend.h"
#include "ops/test_device.h"

namespace lanner::ops::testing {

inline constexpr double kUnit = 0x1p-24;  // a correctly rounded fp32 operation is off by at most this share
inline constexpr int kMaxThreads = 3;
inline constexpr std::int64_t kScratchRows = 1100;  // for which device() has scratch
inline constexpr std::int64_t kScratchCols = 2048;

/// The device under test (test_device()), a CPU with 1 to kMaxThreads threads, and the oracle; each made once, with
/// enough scratch. Both take pointers to host memory.
Backend& device(int threads);
/// The CPU as fast as it goes, without determinism.
Backend& fast_cpu(int threads);
Backend& reference();
/// The device under test as it is: pointers are to its own memory.
Backend& bare_device();

/// Numbers from a fixed seed. Equal on every machine: only the engine's bits are used.
class Random {
 public:
  explicit Random(std::uint32_t seed) : engine_(seed) {}
  std::int64_t below(std::int64_t limit) {
    return static_cast<std::int64_t>(engine_() % static_cast<std::uint64_t>(limit));
  }
  float uniform(float low, float high);
  std::vector<float> vector(std::int64_t size, float low = -1.0F, float high = 1.0F);
  std::vector<std::int32_t> permutation(std::int64_t size);

 private:
  std::mt19937 engine_;
};

/// How a weight is stored and multiplied.
struct WeightKind {
  WeightFormat format = WeightFormat::kF32;
  std::int64_t group = 0;
  bool offsets = false;      // or none; int4's are those of a zero point of 8 then
  bool half_scales = false;  // scales and offsets exact in fp16, which may be packed smaller
  bool zero_points = false;  // int4: offsets are those of whole zero points of 0 to 15, and not exact in fp16
  Arithmetic arithmetic = Arithmetic::kFast;

  bool reads_codes() const { return is_quantized(format) && arithmetic == Arithmetic::kFast; }
  std::string name() const;
};

std::vector<WeightKind> dense_kinds();
/// Every variant of int8 and int4 with this group that kFast takes.
std::vector<WeightKind> quantized_kinds(std::int64_t group);
/// One of each format, for what does not depend on groups.
std::vector<WeightKind> some_of_each_kind();

WeightSource random_weight(const WeightKind& kind, std::int64_t rows, std::int64_t cols, Random& random);
/// fp32 weights that lie at `values`, (rows, cols), and are not copied.
WeightSource dense_weight(const float* values, std::int64_t rows, std::int64_t cols);
/// |scale * code| + |offset|, or |w|: (rows, cols).
std::vector<float> magnitudes(const WeightSource& source);

std::shared_ptr<const PackedWeight> packed(Backend& backend, const WeightSource& source, Arithmetic arithmetic);
std::shared_ptr<const DeviceVector> uploaded(Backend& backend, const std::vector<float>& values);

/// A Norm that is on no device yet.
struct HostNorm {
  NormKind kind = NormKind::kRms;
  std::vector<float> gain;  // empty: no norm
  std::vector<float> bias;  // empty: none
  float eps = 1e-5F;

  explicit operator bool() const { return !gain.empty(); }
  Norm on(Backend& backend) const;
};
HostNorm random_norm(NormKind kind, bool bias, std::int64_t cols, Random& random);

/// Takes one row through the reference's norm. The device has each number within `bound` before, and again after.
void take_through_norm(const HostNorm& norm, std::span<float> values, std::span<double> bound);

/// A Linear that is on no device yet. All its weights read the same kind of input: fp32 or codes.
struct HostLinear {
  std::vector<WeightSource> weights;
  std::vector<std::vector<float>> biases;  // one a weight; empty: none
  HostNorm norm;
  std::vector<std::int32_t> input_order;  // empty: none
  float scale = 1.0F;
  HostNorm post_norm;
  float soft_cap = 0.0F;
  Arithmetic arithmetic = Arithmetic::kFast;

  std::int64_t cols() const { return weights.front().cols; }
  std::int64_t width() const;
  /// Whether the device multiplies integers: the CPU does, with quantized weights.
  bool reads_codes() const;
  Linear on(Backend& backend) const;
  Linear part_on(Backend& backend, std::size_t part) const;
};

struct LinearShape {
  std::vector<std::int64_t> rows;  // of each weight
  std::int64_t cols = 0;
  bool norm = false;
  bool bias = false;
  NormKind norm_kind = NormKind::kRms;
  bool norm_bias = false;
  bool ordered = false;  // a random input_order
};
HostLinear random_linear(const WeightKind& kind, const LinearShape& shape, Random& random);

/// How far off, beside fp32 roundings, an operand of the device's products may be: |value| * share + least. Zero on the
/// CPU and in CUDA's deterministic mode; else see "WHAT IS ROUNDED TO WHAT" in cpu/kernels.h and cuda/kernels.h.
struct OperandError {
  double share = 0;
  double least = 0;  // half the distance of subnormal numbers
  double of(double size) const { return size * share + least; }
};
OperandError rounding_to(DType half);
/// Of inputs, and of weights, in products of `rows` rows.
OperandError input_error(const WeightSource& weight, Arithmetic arithmetic, std::int64_t rows);
OperandError weight_error(const WeightSource& weight, Arithmetic arithmetic, std::int64_t rows);

/// What 15-bit activations stand for: groups of 32 columns, scale max|x| / 16256, rounded to nearest even. x (rows,
/// cols).
std::vector<float> through_15_bits(const std::vector<float>& x);

/// A Linear as the reference sees it. Where the device multiplies codes, the reference gets the input that those
/// codes stand for, with the norm already done (by the device, whose bits decide which way a code rounds; the test of
/// norm_rows holds them against the reference); so the bounds need not allow for a whole step of a code.
struct ReferenceSide {
  Linear linear;
  std::vector<float> x;               // (rows, cols): what to hand to the reference
  std::vector<double> product_bound;  // (rows, width): how far each product may be off, before the epilogue

  /// The reference's products, (rows, width), before the epilogue.
  std::vector<float> products(std::int64_t rows) const;
};
ReferenceSide reference_side(const HostLinear& host, const std::vector<float>& x, std::int64_t rows);

/// All of `actual` finite and within `bound` of `expected`; the first that is not is shown.
void expect_within(std::span<const float> actual, std::span<const float> expected, std::span<const double> bound);
void expect_same_bits(std::span<const float> actual, std::span<const float> expected);

/// A step: slices, and what they point to.
struct Step {
  struct Sequence {
    std::int32_t first_position = 0;
    std::int32_t rows = 0;
  };
  /// Blocks are dealt from a shuffled pool of pool_blocks.
  Step(const std::vector<Sequence>& sequences, std::int64_t pool_blocks, Random& random);
  Step(Step&&) = delete;
  const Batch& batch() const { return batch_; }

 private:
  std::vector<std::vector<std::int32_t>> blocks_;
  std::vector<std::int32_t> tokens_;
  std::vector<std::int32_t> positions_;
  std::vector<SequenceSlice> slices_;
  Batch batch_;
};

/// A cache in which every byte is 0xFF, NaN in each format: what nobody wrote must not show.
class TestCache {
 public:
  TestCache(const KvLayout& layout, std::int64_t blocks);
  const KvCacheView& view() const { return view_; }

  /// Writes the first tokens of a sequence with the device's own norm_qkv. keys, values: (tokens, kv_heads, head_dim).
  void write(Backend& backend, std::int64_t layer, std::span<const std::int32_t> blocks, const std::vector<float>& keys,
             const std::vector<float>& values);

 private:
  std::vector<std::byte> bytes_;
  KvCacheView view_;
};

}  // namespace lanner::ops::testing
