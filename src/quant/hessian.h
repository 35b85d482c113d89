#pragma once
// The Hessian of a matrix's squared error over the inputs x that calibration saw, H = sum of x xᵀ, and the factor of
// it that GPTQ compensates errors with.
//
// Only its upper triangle is kept, in fp32: n^2 / 2 numbers for n inputs. Everything is computed in blocks, by as many
// threads as there are, with the same bits for any number of them.
//
//   LANNER_ASSIGN_OR_RETURN(Hessian hessian, Hessian::make(2048));
//   hessian.add(inputs, pool);                  // as often as there are samples
//   if (hessian.finite()) hessian.factor(0.01, pool);
//   hessian.triangle();                         // R now

#include <cstdint>
#include <span>
#include <utility>

#include "core/aligned_buffer.h"
#include "core/thread_pool.h"
#include "lanner/status.h"
#include "ops/cpu/strip_products.h"

namespace lanner::quant {

/// A matrix (n, n) of which nothing below the diagonal is asked for. Strip s has its columns 32 s … 32 s + 31, of which
/// there are the rows up to 32 s + 31.
class UpperTriangle {
 public:
  UpperTriangle() = default;
  /// Zeros. `size` is a multiple of 32 (CHECKed). kResourceExhausted where there is no memory for it.
  static Result<UpperTriangle> make(std::int64_t size);

  std::int64_t size() const { return size_; }
  std::int64_t strips() const { return size_ / ops::kStripColumns; }
  ops::Strip strip(std::int64_t index) const;
  /// row <= column, or both of one strip's 32.
  float& at(std::int64_t row, std::int64_t column) const {
    return strip(column / ops::kStripColumns).at(row, column % ops::kStripColumns);
  }

 private:
  std::int64_t size_ = 0;
  AlignedBuffer memory_;
  float* data_ = nullptr;
};

class Hessian {
 public:
  Hessian() = default;
  static Result<Hessian> make(std::int64_t inputs);

  std::int64_t inputs() const { return triangle_.size(); }
  /// Rows of inputs, (rows, inputs).
  void add(std::span<const float> rows, ThreadPool& pool);
  /// Whether all that was added was: a NaN or an infinity stays in the diagonal.
  bool finite() const;
  /// Adds `damping` times the mean of the diagonal to the diagonal (1, where all is zero), and puts in place of H the
  /// upper triangular R with H = R Rᵀ. Once.
  ///
  /// GPTQ (arXiv 2210.17323) has U, the upper Cholesky factor of the inverse, H^-1 = Uᵀ U. It is R^-1, which need
  /// not be computed: what is asked of it can be asked of R (gptq_matrix.h). In exact arithmetic no pivot is less than
  /// what was added to the diagonal; one that rounding makes less is set to that.
  void factor(double damping, ThreadPool& pool);

  const UpperTriangle& triangle() const { return triangle_; }

 private:
  explicit Hessian(UpperTriangle triangle) : triangle_(std::move(triangle)) {}
  UpperTriangle triangle_;
};

}  // namespace lanner::quant
