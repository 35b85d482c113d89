#include "quant/awq_matrix.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <mutex>
#include <span>

#include "core/check.h"
#include "core/float16.h"

namespace lanner::quant {
namespace {

constexpr std::array<std::uint32_t, kRowsOfWord> kNibbleOfRow{0, 4, 1, 5, 2, 6, 3, 7};
constexpr float kLeastRange = 1e-5F;
constexpr float kMostCode = 15.0F;

/// Scale and zero of a group.
struct GroupRounding {
  Half stored;
  float scale = 0;
  float zero = 0;

  bool finite() const { return std::isfinite(scale); }
  float code(float value) const { return std::clamp(std::nearbyint(value / scale) + zero, 0.0F, kMostCode); }
};

GroupRounding rounding_of(std::span<const float> values) {
  float least = 0;
  float greatest = 0;
  for (const float value : values) {
    least = std::min(least, value);
    greatest = std::max(greatest, value);
  }
  GroupRounding rounding{.stored = to_half(std::max(greatest - least, kLeastRange) / kMostCode)};
  rounding.scale = to_float(rounding.stored);
  rounding.zero = std::clamp(-std::nearbyint(least / rounding.scale), 0.0F, kMostCode);
  return rounding;
}

Status too_large(const DenseRows& matrix) {
  return corrupt(fmt::format("{}: weights are too large for fp16", matrix.where()));
}

/// Rows [8 b, 8 b + 8) of the matrix, for one thread.
class BlockRounder {
 public:
  BlockRounder(const DenseRows& matrix, const TensorFactors& factors, std::int64_t group_size, AwqMatrix& result)
      : matrix_(matrix), factors_(factors), group_(group_size), result_(result) {
    row_.resize(static_cast<std::size_t>(matrix.cols()));
    codes_.resize(static_cast<std::size_t>(matrix.cols()));
    zeros_.resize(static_cast<std::size_t>(matrix.cols() / group_size));
  }

  Status round(std::int64_t block) {
    std::ranges::fill(codes_, 0U);
    std::ranges::fill(zeros_, 0U);
    for (std::int64_t i = 0; i < kRowsOfWord; ++i) {
      LANNER_RETURN_IF_ERROR(read(block * kRowsOfWord + i));
      const std::uint32_t shift = 4U * kNibbleOfRow[static_cast<std::size_t>(i)];
      for (std::size_t group = 0; group < zeros_.size(); ++group) {
        LANNER_RETURN_IF_ERROR(round_group(block * kRowsOfWord + i, group, shift));
      }
    }
    const std::int64_t words = matrix_.rows() / kRowsOfWord;
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
  Status read(std::int64_t row) {
    LANNER_RETURN_IF_ERROR(matrix_.read(row, row_));
    if (!factors_.multiply_columns.empty()) {
      for (std::size_t i = 0; i < row_.size(); ++i) row_[i] *= factors_.multiply_columns[i];
    }
    if (!factors_.divide_rows.empty()) {
      const float divisor = factors_.divide_rows[static_cast<std::size_t>(row)];
      for (float& value : row_) value /= divisor;
    }
    return {};
  }

  Status round_group(std::int64_t row, std::size_t group, std::uint32_t shift) {
    const auto size = static_cast<std::size_t>(group_);
    const std::span<const float> values(row_.data() + group * size, size);
    const GroupRounding rounding = rounding_of(values);
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
  const std::int64_t group_;
  AwqMatrix& result_;
  std::vector<float> row_;            // (cols)
  std::vector<std::uint32_t> codes_;  // (cols), a word each
  std::vector<std::uint32_t> zeros_;  // (groups), a word each
};

}  // namespace

Result<AwqMatrix> round_awq(const DenseRows& matrix, const TensorFactors& factors, std::int64_t group_size,
                            ThreadPool& pool) {
  LANNER_CHECK(matrix.rows() % kRowsOfWord == 0 && matrix.cols() % group_size == 0);
  const std::int64_t words = matrix.rows() / kRowsOfWord;
  const std::int64_t groups = matrix.cols() / group_size;
  AwqMatrix result;
  result.codes.resize(static_cast<std::size_t>(matrix.cols() * words));
  result.scales.resize(static_cast<std::size_t>(groups * matrix.rows()));
  result.zeros.resize(static_cast<std::size_t>(groups * words));
  std::mutex mutex;
  Status status;
  pool.run([&](ThreadPool::Worker& worker) {
    BlockRounder rounder(matrix, factors, group_size, result);
    const auto [begin, end] = worker.share(words);
    Status mine;
    for (std::int64_t block = begin; block < end && mine.ok(); ++block) mine = rounder.round(block);
    const std::lock_guard lock(mutex);
    if (status.ok()) status = mine;
  });
  if (!status.ok()) return status;
  return result;
}

Result<std::vector<float>> rounded_weights(const DenseRows& matrix, std::span<const float> scales,
                                           std::int64_t group_size) {
  const auto cols = static_cast<std::size_t>(matrix.cols());
  const auto size = static_cast<std::size_t>(group_size);
  std::vector<float> result(static_cast<std::size_t>(matrix.rows()) * cols);
  for (std::int64_t r = 0; r < matrix.rows(); ++r) {
    const std::span<float> row(result.data() + static_cast<std::size_t>(r) * cols, cols);
    LANNER_RETURN_IF_ERROR(matrix.read(r, row));
    for (std::size_t i = 0; i < cols; ++i) row[i] *= scales[i];
    for (std::size_t begin = 0; begin < cols; begin += size) {
      const GroupRounding rounding = rounding_of(row.subspan(begin, size));
      if (!rounding.finite()) return too_large(matrix);
      for (std::size_t i = begin; i < begin + size; ++i) {
        row[i] = (rounding.code(row[i]) - rounding.zero) * rounding.scale / scales[i];
      }
    }
  }
  return result;
}

}  // namespace lanner::quant
