#include "quant/hessian.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "core/check.h"

namespace lanner::quant {
namespace {

using ops::kStripColumns;
using ops::Strip;
using ops::StripTarget;
using Worker = ThreadPool::Worker;

constexpr std::int64_t kDepth = 256;  // rows of input that are multiplied at once: a strip of them fits the cache
constexpr std::int64_t kBlock = 64;   // columns of the factor that are made at once; whole strips

/// Calls visit(strip) for a worker's share of the first `strips` strips, whose work grows with their number: they are
/// dealt out to and fro.
template <typename Visit>
void deal_strips(const Worker& worker, std::int64_t strips, Visit visit) {
  const std::int64_t workers = worker.count();
  for (std::int64_t round = 0; round * workers < strips; ++round) {
    const std::int64_t place = round % 2 == 0 ? worker.index() : workers - 1 - worker.index();
    if (round * workers + place < strips) visit(round * workers + place);
  }
}

/// Columns [first, end) of x (depth, n) as rows of (n, depth).
void transpose(const float* x, std::int64_t depth, std::int64_t n, std::pair<std::int64_t, std::int64_t> columns,
               float* to) {
  constexpr std::int64_t kTogether = 16;
  for (std::int64_t begin = columns.first; begin < columns.second; begin += kTogether) {
    const std::int64_t end = std::min(begin + kTogether, columns.second);
    for (std::int64_t t = 0; t < depth; ++t) {
      for (std::int64_t c = begin; c < end; ++c) to[c * depth + t] = x[t * n + c];
    }
  }
}

/// The factor R of a damped Hessian, block of columns by block of columns, from the last one on (right-looking):
///
///     H[b, b] = R[b, b] R[b, b]ᵀ,   R[a, b] = H[a, b] R[b, b]^-ᵀ,   H[a, a] -= R[a, b] R[a, b]ᵀ
///
/// for a block b and all rows a before it. What is of one block alone is computed in double.
class Factorization {
 public:
  Factorization(const UpperTriangle& matrix, double least_pivot, ThreadPool& pool)
      : matrix_(matrix),
        least_pivot_(least_pivot),
        pool_(pool),
        diagonal_(static_cast<std::size_t>(kBlock * kBlock)),
        inverse_(static_cast<std::size_t>(kBlock * kBlock)),
        right_(static_cast<std::size_t>(kBlock * kBlock)),
        rows_(static_cast<std::size_t>(matrix.size() * kBlock)) {}

  void run() {
    for (std::int64_t end = matrix_.size(); end > 0; end = begin_) {
      begin_ = (end - 1) / kBlock * kBlock;
      width_ = end - begin_;
      factor_diagonal();
      invert_diagonal();
      pool_.run([&](Worker& worker) { update(worker); });
    }
  }

 private:
  double& diagonal(std::int64_t row, std::int64_t column) {
    return diagonal_[static_cast<std::size_t>(row * kBlock + column)];
  }
  double& inverse(std::int64_t row, std::int64_t column) {
    return inverse_[static_cast<std::size_t>(row * kBlock + column)];
  }

  void factor_diagonal() {
    for (std::int64_t i = 0; i < width_; ++i) {
      for (std::int64_t j = i; j < width_; ++j) {
        diagonal(i, j) = static_cast<double>(matrix_.at(begin_ + i, begin_ + j));
      }
    }
    for (std::int64_t j = width_ - 1; j >= 0; --j) {
      const double root = std::sqrt(std::max(diagonal(j, j), least_pivot_));
      diagonal(j, j) = root;
      for (std::int64_t i = 0; i < j; ++i) diagonal(i, j) /= root;
      for (std::int64_t i = 0; i < j; ++i) {
        for (std::int64_t c = i; c < j; ++c) diagonal(i, c) -= diagonal(i, j) * diagonal(c, j);
      }
    }
    for (std::int64_t i = 0; i < width_; ++i) {
      for (std::int64_t j = i; j < width_; ++j) matrix_.at(begin_ + i, begin_ + j) = static_cast<float>(diagonal(i, j));
    }
  }

  /// R[b, b]^-ᵀ, in strips.
  void invert_diagonal() {
    for (std::int64_t j = 0; j < width_; ++j) {
      inverse(j, j) = 1 / diagonal(j, j);
      for (std::int64_t i = j - 1; i >= 0; --i) {
        double sum = 0;
        for (std::int64_t k = i + 1; k <= j; ++k) sum += diagonal(i, k) * inverse(k, j);
        inverse(i, j) = -sum / diagonal(i, i);
      }
    }
    for (std::int64_t j = 0; j < width_; ++j) {
      const Strip strip = right(j / kStripColumns);
      for (std::int64_t k = 0; k < width_; ++k) {
        strip.at(k, j % kStripColumns) = k < j ? 0.0F : static_cast<float>(inverse(j, k));
      }
    }
  }
  Strip right(std::int64_t index) { return {right_.data() + index * width_ * kStripColumns, width_}; }

  void update(Worker& worker) {
    const auto [first, end] = worker.share(begin_ / kStripColumns);
    for (std::int64_t i = first; i < end; ++i) solve_rows(i * kStripColumns);
    worker.barrier();
    std::vector<float> numbers(static_cast<std::size_t>(width_ * kStripColumns));
    const Strip columns{.data = numbers.data(), .rows = width_};
    deal_strips(worker, begin_ / kStripColumns, [&](std::int64_t index) {
      for (std::int64_t c = 0; c < kStripColumns; ++c) {
        const float* row = rows_.data() + (index * kStripColumns + c) * width_;
        for (std::int64_t k = 0; k < width_; ++k) columns.at(k, c) = row[k];
      }
      ops::multiply_strip({.left = rows_.data(),
                           .rows = (index + 1) * kStripColumns,
                           .depth = width_,
                           .right = columns.view(),
                           .to = matrix_.strip(index),
                           .target = StripTarget::kSubtract});
    });
  }

  /// 32 rows of R[a, b], to their place and to rows_.
  void solve_rows(std::int64_t row) {
    float* packed = rows_.data() + row * width_;
    const auto gather = [&] {
      for (std::int64_t r = 0; r < kStripColumns; ++r) {
        for (std::int64_t c = 0; c < width_; ++c) packed[r * width_ + c] = matrix_.at(row + r, begin_ + c);
      }
    };
    gather();
    for (std::int64_t i = 0; i < width_ / kStripColumns; ++i) {
      ops::multiply_strip({.left = packed,
                           .rows = kStripColumns,
                           .depth = width_,
                           .right = right(i).view(),
                           .to = matrix_.strip(begin_ / kStripColumns + i),
                           .to_row = row});
    }
    gather();
  }

  const UpperTriangle& matrix_;
  const double least_pivot_;
  ThreadPool& pool_;
  std::int64_t begin_ = 0;        // the block's first column
  std::int64_t width_ = 0;        // and how many it has
  std::vector<double> diagonal_;  // (block, block): R[b, b]
  std::vector<double> inverse_;   // (block, block): its inverse
  std::vector<float> right_;      // strips of (width, 32): that transposed
  std::vector<float> rows_;       // (rows before the block, width): R[a, b]
};

}  // namespace

Result<UpperTriangle> UpperTriangle::make(std::int64_t size) {
  LANNER_CHECK(size > 0 && size % kStripColumns == 0);
  UpperTriangle triangle;
  const std::int64_t strips = size / kStripColumns;
  const std::int64_t count = kStripColumns * kStripColumns * strips * (strips + 1) / 2;
  LANNER_ASSIGN_OR_RETURN(triangle.memory_,
                          AlignedBuffer::allocate(count * static_cast<std::int64_t>(sizeof(float)), "a Hessian"));
  triangle.size_ = size;
  triangle.data_ = triangle.memory_.as<float>();
  return triangle;
}

Strip UpperTriangle::strip(std::int64_t index) const {
  return {.data = data_ + kStripColumns * kStripColumns * index * (index + 1) / 2, .rows = (index + 1) * kStripColumns};
}

Result<Hessian> Hessian::make(std::int64_t inputs) {
  LANNER_ASSIGN_OR_RETURN(UpperTriangle triangle, UpperTriangle::make(inputs));
  return Hessian(std::move(triangle));
}

void Hessian::add(std::span<const float> rows, ThreadPool& pool) {
  const std::int64_t n = inputs();
  const auto count = static_cast<std::int64_t>(rows.size()) / n;
  std::vector<float> columns(static_cast<std::size_t>(n * std::min(kDepth, count)));  // (n, depth)
  pool.run([&](Worker& worker) {
    std::vector<float> numbers(static_cast<std::size_t>(kDepth * kStripColumns));
    for (std::int64_t begin = 0; begin < count; begin += kDepth) {
      const std::int64_t depth = std::min(kDepth, count - begin);
      const float* x = rows.data() + begin * n;
      transpose(x, depth, n, worker.share(n), columns.data());
      worker.barrier();
      const Strip right{.data = numbers.data(), .rows = depth};
      deal_strips(worker, triangle_.strips(), [&](std::int64_t index) {
        for (std::int64_t t = 0; t < depth; ++t) {
          for (std::int64_t c = 0; c < kStripColumns; ++c) right.at(t, c) = x[t * n + index * kStripColumns + c];
        }
        const Strip to = triangle_.strip(index);
        ops::multiply_strip({.left = columns.data(),
                             .rows = to.rows,
                             .depth = depth,
                             .right = right.view(),
                             .to = to,
                             .target = StripTarget::kAdd});
      });
      worker.barrier();
    }
  });
}

bool Hessian::finite() const {
  for (std::int64_t i = 0; i < inputs(); ++i) {
    if (!std::isfinite(triangle_.at(i, i))) return false;
  }
  return true;
}

void Hessian::factor(double damping, ThreadPool& pool) {
  double sum = 0;
  for (std::int64_t i = 0; i < inputs(); ++i) sum += static_cast<double>(triangle_.at(i, i));
  const double added = sum > 0 ? damping * sum / static_cast<double>(inputs()) : 1.0;
  for (std::int64_t i = 0; i < inputs(); ++i) triangle_.at(i, i) += static_cast<float>(added);
  Factorization(triangle_, added, pool).run();
}

}  // namespace lanner::quant
