#pragma once
// Linear {prologue, weight, epilogue}: the matrix product that four of a layer's five operations are.
//
// The prologue is nothing or RMS norm (arXiv 1910.07467). The weight is one or several matrices that read the same
// input, of any format each (q, k and v; gate and up). What is done with the product, the epilogue, is what tells
// the operations apart, so each has its own arguments: norm_qkv, linear_add, norm_gated_up, norm_head in backend.h.

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

struct RmsNorm {
  std::shared_ptr<const DeviceVector> gain;  // (cols); null: no norm
  float eps = 0;
};

struct LinearPart {
  std::shared_ptr<const PackedWeight> weight;
  std::shared_ptr<const DeviceVector> bias;  // (rows) or null
};

struct Linear {
  RmsNorm norm;
  std::vector<LinearPart> parts;  // all with the same cols

  std::int64_t cols() const { return parts.front().weight->cols(); }
  std::int64_t rows() const {
    std::int64_t total = 0;
    for (const LinearPart& part : parts) total += part.weight->rows();
    return total;
  }
};

}  // namespace lanner::ops
