#pragma once
// The rows of a dense matrix of a checkpoint, widened one at a time, so that none exists twice in memory.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lanner/status.h"
#include "model/checkpoint.h"

namespace lanner::quant {

struct LinearTensor;

class DenseRows {
 public:
  /// kUnsupported for a matrix that is quantized already.
  static Result<DenseRows> open(const model::Checkpoint& checkpoint, const LinearTensor& tensor);

  /// File and tensor, for messages.
  const std::string& where() const { return where_; }
  std::int64_t rows() const { return source_.rows; }
  std::int64_t cols() const { return source_.cols; }
  /// Row `row` into `values`, (cols). kCorrupt, with the name of file and tensor, where one is not finite. From any
  /// thread.
  Status read(std::int64_t row, std::span<float> values) const;

 private:
  DenseRows(std::string where, ops::WeightSource source) : where_(std::move(where)), source_(std::move(source)) {}

  std::string where_;
  ops::WeightSource source_;
};

}  // namespace lanner::quant
