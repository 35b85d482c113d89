#pragma once
// Weights in the order that the CPU's kernels read (WeightView in kernels.h says which). Done once, at load.

#include <memory>

#include "core/aligned_buffer.h"
#include "core/thread_pool.h"
#include "ops/backend.h"
#include "ops/cpu/kernels.h"

namespace lanner::ops::cpu {

inline std::int64_t panels_of(std::int64_t rows) { return (rows + kPanelRows - 1) / kPanelRows; }

/// Where weights lie: many in one large buffer, so that they get the system's huge pages, which a matrix of a megabyte
/// by itself would not. A buffer lives as long as the last weight in it. One thread at a time.
class WeightRoom {
 public:
  /// Zeroed bytes, aligned for kernels. kResourceExhausted when the system refuses.
  Result<std::shared_ptr<std::byte>> allocate(std::int64_t bytes);

 private:
  std::shared_ptr<AlignedBuffer> buffer_;
  std::int64_t used_ = 0;
};

class CpuWeight final : public PackedWeight {
 public:
  /// The panels are at view.data, which `owner` keeps.
  CpuWeight(const WeightView& view, std::int64_t rows, std::shared_ptr<const void> owner)
      : view_(view), rows_(rows), owner_(std::move(owner)) {}
  std::int64_t rows() const override { return rows_; }
  std::int64_t cols() const override { return view_.cols; }
  WeightFormat format() const override { return view_.format; }
  std::int64_t bytes() const override { return view_.panel_bytes * panels(); }
  std::int64_t panels() const { return panels_of(rows_); }
  const WeightView& view() const { return view_; }
  /// What a later pack_weight() takes as WeightSource::packed.
  PackedImage image() const;
  /// The weights of one row, widened: out (cols).
  void read_row(std::int64_t row, float* out) const;

 private:
  WeightView view_;
  std::int64_t rows_;
  std::shared_ptr<const void> owner_;
};

/// kUnsupported when a quantized matrix has columns or groups that the kernels cannot take; the work is spread
/// over `pool`. What is packed already is taken as it lies, without a copy, unless it is to be widened; kCorrupt when
/// its bytes are not those of its shape. A matrix of 16 bits that may be int8 becomes it under kFast, unless it has
/// numbers that fp16 has no scale for.
Result<std::shared_ptr<const CpuWeight>> pack_weight(WeightSource source, Arithmetic arithmetic, ThreadPool& pool,
                                                     WeightRoom& room);

}  // namespace lanner::ops::cpu
