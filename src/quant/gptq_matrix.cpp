#include "quant/gptq_matrix.h"

#include <algorithm>
#include <span>
#include <vector>

#include "core/check.h"
#include "quant/share_out.h"

namespace lanner::quant {
namespace {

using ops::kStripColumns;
using ops::Strip;
using ops::StripTarget;

constexpr std::int64_t kChunkRows = 32;     // of the matrix that are rounded together
constexpr std::uint32_t kZeroLessOne = 7U;  // as the format keeps a zero point of 8
constexpr std::uint32_t kEachNibble = 0x11111111U;

std::size_t index_of(std::int64_t value) { return static_cast<std::size_t>(value); }

/// Chunks of rows of the matrix, for one thread.
class ChunkRounder {
 public:
  ChunkRounder(const DenseRows& matrix, const UpperTriangle* factor, std::int64_t group_size, PackedMatrix& result)
      : matrix_(matrix),
        factor_(factor),
        group_size_(group_size),
        result_(result),
        weights_(index_of(kChunkRows * matrix.cols())),
        errors_(index_of(kChunkRows * group_size)),
        before_(index_of(group_size)),
        sums_(index_of(group_size)),
        codes_(index_of(group_size)) {
    if (factor_ == nullptr) return;
    behind_.resize(index_of(kChunkRows * matrix.cols()));
    block_.resize(index_of(group_size * group_size));
  }

  Status round(std::int64_t first, std::int64_t rows) {
    first_ = first;
    rows_ = rows;
    for (std::int64_t r = 0; r < rows; ++r) {
      LANNER_RETURN_IF_ERROR(matrix_.read(first + r, weights_of(r, 0, matrix_.cols())));
    }
    std::ranges::fill(behind_, 0.0F);
    for (std::int64_t group = 0; group < matrix_.cols() / group_size_; ++group) {
      if (factor_ != nullptr) read_block(group * group_size_);
      for (std::int64_t r = 0; r < rows; ++r) LANNER_RETURN_IF_ERROR(round_group(r, group));
      if (factor_ != nullptr) hand_on(group * group_size_);
    }
    return {};
  }

 private:
  std::span<float> weights_of(std::int64_t row, std::int64_t column, std::int64_t count) {
    return std::span(weights_).subspan(index_of(row * matrix_.cols() + column), index_of(count));
  }
  /// Of R, within the group: row i.
  const float* block_row(std::int64_t i) const { return block_.data() + i * group_size_; }
  /// The strip of the sums for all rows of the chunk.
  Strip behind(std::int64_t index) {
    return {.data = behind_.data() + index * kChunkRows * kStripColumns, .rows = kChunkRows};
  }

  void read_block(std::int64_t column) {
    for (std::int64_t i = 0; i < group_size_; ++i) {
      for (std::int64_t j = i; j < group_size_; ++j) {
        block_[index_of(i * group_size_ + j)] = factor_->at(column + i, column + j);
      }
    }
  }

  /// Scale of a group of a row, by its weights as they are when the group is reached.
  GroupRounding scale_of(std::span<const float> weights) {
    if (factor_ == nullptr) return rounding_of(weights, /*symmetric=*/true);
    std::vector<float>& sums = sums_;
    std::copy(before_.begin(), before_.end(), sums.begin());
    for (std::int64_t i = 0; i < group_size_; ++i) {
      const float* factor = block_row(i);
      const float shift = sums[index_of(i)] / factor[i];
      for (std::int64_t j = i + 1; j < group_size_; ++j) sums[index_of(j)] -= shift * factor[j];
      sums[index_of(i)] = weights[index_of(i)] + shift;
    }
    return rounding_of(sums, /*symmetric=*/true);
  }

  Status round_group(std::int64_t row, std::int64_t group) {
    const std::int64_t column = group * group_size_;
    const std::span<const float> weights = weights_of(row, column, group_size_);
    if (factor_ != nullptr) {
      for (std::int64_t i = 0; i < group_size_; ++i) {
        before_[index_of(i)] = behind((column + i) / kStripColumns).at(row, (column + i) % kStripColumns);
      }
    }
    const GroupRounding rounding = scale_of(weights);
    if (!rounding.finite()) return too_large(matrix_);
    result_.scales[index_of(group * matrix_.rows() + first_ + row)] = rounding.stored.bits;
    for (std::int64_t i = 0; i < group_size_; ++i) {
      const float weight = weights[index_of(i)];
      if (factor_ == nullptr) {
        codes_[index_of(i)] = static_cast<std::uint32_t>(rounding.code(weight));
        continue;
      }
      const float* factor = block_row(i);
      const float code = rounding.code(weight + before_[index_of(i)] / factor[i]);
      const float error = weight - (code - rounding.zero) * rounding.scale;
      for (std::int64_t j = i + 1; j < group_size_; ++j) before_[index_of(j)] += error * factor[j];
      errors_[index_of(row * group_size_ + i)] = error;
      codes_[index_of(i)] = static_cast<std::uint32_t>(code);
    }
    store_codes(row, column);
    return {};
  }

  void store_codes(std::int64_t row, std::int64_t column) {
    for (std::int64_t i = 0; i < group_size_; i += kCodesOfWord) {
      std::uint32_t word = 0;
      for (std::int64_t k = kCodesOfWord - 1; k >= 0; --k) word = word << 4U | codes_[index_of(i + k)];
      result_.codes[index_of((column + i) / kCodesOfWord * matrix_.rows() + first_ + row)] = word;
    }
  }

  /// The group's errors to the sums of all columns behind it.
  void hand_on(std::int64_t column) {
    for (std::int64_t strip = (column + group_size_) / kStripColumns; strip < factor_->strips(); ++strip) {
      ops::multiply_strip({.left = errors_.data(),
                           .rows = rows_,
                           .depth = group_size_,
                           .right = factor_->strip(strip).view(),
                           .right_row = column,
                           .to = behind(strip),
                           .target = StripTarget::kAdd});
    }
  }

  const DenseRows& matrix_;
  const UpperTriangle* factor_;
  const std::int64_t group_size_;
  PackedMatrix& result_;
  std::int64_t first_ = 0;            // the chunk's first row
  std::int64_t rows_ = 0;             // and how many it has
  std::vector<float> weights_;        // (chunk, cols)
  std::vector<float> behind_;         // strips of (chunk, 32): the sums of d_i R_ij over all groups that are rounded
  std::vector<float> errors_;         // (chunk, group): d of the group
  std::vector<float> block_;          // (group, group): R of the group
  std::vector<float> before_;         // (group): those sums of a row, and of the columns of the group before
  std::vector<float> sums_;           // (group)
  std::vector<std::uint32_t> codes_;  // (group)
};

}  // namespace

Result<PackedMatrix> round_gptq(const DenseRows& matrix, const UpperTriangle* factor, std::int64_t group_size,
                                ThreadPool& pool) {
  LANNER_CHECK(group_size % kStripColumns == 0 && matrix.cols() % group_size == 0);
  LANNER_CHECK(matrix.rows() % kCodesOfWord == 0 && (factor == nullptr || factor->size() == matrix.cols()));
  const std::int64_t groups = matrix.cols() / group_size;
  PackedMatrix result;
  result.codes.resize(index_of(matrix.cols() / kCodesOfWord * matrix.rows()));
  result.zeros.assign(index_of(groups * matrix.rows() / kCodesOfWord), kZeroLessOne * kEachNibble);
  result.scales.resize(index_of(groups * matrix.rows()));
  for (std::int64_t i = 0; i < matrix.cols(); ++i) {
    result.group_index.push_back(static_cast<std::uint32_t>(i / group_size));
  }
  const std::int64_t chunks = (matrix.rows() + kChunkRows - 1) / kChunkRows;
  const Status status = share_out(pool, chunks, [&](std::int64_t begin, std::int64_t end) -> Status {
    ChunkRounder rounder(matrix, factor, group_size, result);
    for (std::int64_t chunk = begin; chunk < end; ++chunk) {
      const std::int64_t first = chunk * kChunkRows;
      LANNER_RETURN_IF_ERROR(rounder.round(first, std::min(kChunkRows, matrix.rows() - first)));
    }
    return {};
  });
  if (!status.ok()) return status;
  return result;
}

}  // namespace lanner::quant
