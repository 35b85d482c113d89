#include "quant/awq_matrix.h"

#include <algorithm>
#include <array>
#include <span>

#include "core/check.h"
#include "quant/share_out.h"

namespace lanner::quant {
namespace {

constexpr std::array<std::uint32_t, kCodesOfWord> kNibbleOfRow{0, 4, 1, 5, 2, 6, 3, 7};

/// Rows [8 b, 8 b + 8) of the matrix, for one thread.
class BlockRounder {
 public:
  BlockRounder(const DenseRows& matrix, const TensorFactors& factors, const Grouping& grouping, PackedMatrix& result)
      : matrix_(matrix), factors_(factors), grouping_(grouping), result_(result) {
    row_.resize(static_cast<std::size_t>(matrix.cols()));
    codes_.resize(static_cast<std::size_t>(matrix.cols()));
    zeros_.resize(static_cast<std::size_t>(matrix.cols() / grouping.size));
  }

  Status round(std::int64_t block) {
    std::ranges::fill(codes_, 0U);
    std::ranges::fill(zeros_, 0U);
    for (std::int64_t i = 0; i < kCodesOfWord; ++i) {
      LANNER_RETURN_IF_ERROR(read_smoothed(matrix_, factors_, block * kCodesOfWord + i, row_));
      const std::uint32_t shift = 4U * kNibbleOfRow[static_cast<std::size_t>(i)];
      for (std::size_t group = 0; group < zeros_.size(); ++group) {
        LANNER_RETURN_IF_ERROR(round_group(block * kCodesOfWord + i, group, shift));
      }
    }
    const std::int64_t words = matrix_.rows() / kCodesOfWord;
    const auto store = [&](std::span<const std::uint32_t> from, std::vector<std::uint32_t>& to) {
      auto place = static_cast<std::size_t>(block);
      for (const std::uint32_t word : from) {
        to[place] = word;
        place += static_cast<std::size_t>(words);
      }
    };
    store(codes_, result_.codes);
    store(zeros_, result_.zeros);
    return {};
  }

 private:
  Status round_group(std::int64_t row, std::size_t group, std::uint32_t shift) {
    const auto size = static_cast<std::size_t>(grouping_.size);
    const std::span<const float> values(row_.data() + group * size, size);
    const GroupRounding rounding = rounding_of(values, grouping_.symmetric);
    if (!rounding.finite()) return too_large(matrix_);
    result_.scales[group * static_cast<std::size_t>(matrix_.rows()) + static_cast<std::size_t>(row)] =
        rounding.stored.bits;
    zeros_[group] |= static_cast<std::uint32_t>(rounding.zero) << shift;
    for (std::size_t i = 0; i < size; ++i) {
      codes_[group * size + i] |= static_cast<std::uint32_t>(rounding.code(values[i])) << shift;
    }
    return {};
  }

  const DenseRows& matrix_;
  const TensorFactors& factors_;
  const Grouping grouping_;
  PackedMatrix& result_;
  std::vector<float> row_;            // (cols)
  std::vector<std::uint32_t> codes_;  // (cols), a word each
  std::vector<std::uint32_t> zeros_;  // (groups), a word each
};

}  // namespace

Result<PackedMatrix> round_awq(const DenseRows& matrix, const TensorFactors& factors, const Grouping& grouping,
                               ThreadPool& pool) {
  LANNER_CHECK(matrix.rows() % kCodesOfWord == 0 && matrix.cols() % grouping.size == 0);
  const std::int64_t words = matrix.rows() / kCodesOfWord;
  const std::int64_t groups = matrix.cols() / grouping.size;
  PackedMatrix result;
  result.codes.resize(static_cast<std::size_t>(matrix.cols() * words));
  result.scales.resize(static_cast<std::size_t>(groups * matrix.rows()));
  result.zeros.resize(static_cast<std::size_t>(groups * words));
  const Status status = share_out(pool, words, [&](std::int64_t begin, std::int64_t end) -> Status {
    BlockRounder rounder(matrix, factors, grouping, result);
    for (std::int64_t block = begin; block < end; ++block) LANNER_RETURN_IF_ERROR(rounder.round(block));
    return {};
  });
  if (!status.ok()) return status;
  return result;
}

Result<std::vector<float>> rounded_weights(const DenseRows& matrix, std::span<const float> scales,
                                           const Grouping& grouping, ThreadPool& pool) {
  const auto cols = static_cast<std::size_t>(matrix.cols());
  const auto size = static_cast<std::size_t>(grouping.size);
  const TensorFactors factors{.multiply_columns = {scales.begin(), scales.end()}, .divide_rows = {}};
  std::vector<float> result(static_cast<std::size_t>(matrix.rows()) * cols);
  const Status status = share_out_rows(pool, matrix.rows(), [&](std::int64_t r) -> Status {
    const std::span<float> row(result.data() + static_cast<std::size_t>(r) * cols, cols);
    LANNER_RETURN_IF_ERROR(read_smoothed(matrix, factors, r, row));
    for (std::size_t begin = 0; begin < cols; begin += size) {
      const GroupRounding rounding = rounding_of(row.subspan(begin, size), grouping.symmetric);
      if (!rounding.finite()) return too_large(matrix);
      for (std::size_t i = begin; i < begin + size; ++i) {
        row[i] = rounding.rounded(row[i]) / scales[i];
      }
    }
    return {};
  });
  if (!status.ok()) return status;
  return result;
}

}  // namespace lanner::quant
