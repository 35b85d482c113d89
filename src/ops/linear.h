#pragma once
// Linear {prologue, weight, epilogue}: the matrix product that four of a layer's five operations are.
//
// The prologue is nothing, RMS norm (arXiv 1910.07467) or layer norm (1607.06450), and may hand on the columns in
// another order. The weight is one or several matrices that read the same input, of any format each (q, k and v; gate
// and up). What is done with the product, the epilogue, is what tells the operations apart, so each has its own
// arguments: norm_qkv, linear_add, norm_gated_up, norm_head in backend.h; what several of them share is in Epilogue.
//
// In this order: norm, input_order, (15-bit codes where a weight is quantized,) product, bias, scale, then post_norm or
// soft_cap.

#include <cstdint>
#include <memory>
#include <vector>

#include "ops/weight_source.h"

namespace lanner::ops {

/// A matrix (rows, cols) in the order that its backend reads. Immutable; made by Backend::pack.
class PackedWeight {
 public:
  virtual ~PackedWeight() = default;
  virtual std::int64_t rows() const = 0;
  virtual std::int64_t cols() const = 0;
  virtual WeightFormat format() const = 0;
  virtual std::int64_t bytes() const = 0;  // read by a product with one row
};

/// A vector of fp32 in backend memory. Immutable; made by Backend::upload.
class DeviceVector {
 public:
  virtual ~DeviceVector() = default;
  virtual std::int64_t size() const = 0;
  virtual const float* data() const = 0;
};

enum class NormKind : std::uint8_t {
  kRms,    // x * gain / rms(x)
  kLayer,  // (x - mean(x)) * gain / standard deviation(x) + bias
};

struct Norm {
  NormKind kind = NormKind::kRms;
  std::shared_ptr<const DeviceVector> gain;  // (cols); null: no norm
  std::shared_ptr<const DeviceVector> bias;  // (cols) or null; layer norm only
  float eps = 0;                             // added to the mean square or the variance, under the root

  explicit operator bool() const { return gain != nullptr; }
};

struct LinearPart {
  std::shared_ptr<const PackedWeight> weight;
  std::shared_ptr<const DeviceVector> bias;  // (rows) or null
};

/// What happens to a product after the bias, before it is used: first the scale, then the norm. Linears whose
/// operation does not mention a field leave it alone (CHECKed).
struct Epilogue {
  float scale = 1.0F;     // linear_add, norm_head
  Norm post_norm;         // linear_add: x += norm(product); over all of the product's columns
  float soft_cap = 0.0F;  // norm_head: logits become cap * tanh(logit / cap); 0: none
};

struct Linear {
  Norm norm;
  /// Column i of the weights reads column input_order[i] of the (normed) input: what GPTQ's act-order leaves behind.
  /// A permutation of 0..cols-1; empty: the identity. Host memory, copied to the device by whoever needs it there.
  std::vector<std::int32_t> input_order;
  std::vector<LinearPart> parts;  // all with the same cols
  Epilogue epilogue;

  std::int64_t cols() const { return parts.front().weight->cols(); }
  std::int64_t rows() const {
    std::int64_t total = 0;
    for (const LinearPart& part : parts) total += part.weight->rows();
    return total;
  }
};

}  // namespace lanner::ops
