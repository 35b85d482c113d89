#include "ops/check_arguments.h"

#include "core/check.h"

namespace lanner::ops {
namespace {

/// `norm` is none, or one of rows of `cols` columns.
void check_norm(const Norm& norm, std::int64_t cols) {
  LANNER_CHECK(norm.gain == nullptr || norm.gain->size() == cols);
  if (norm.bias == nullptr) return;
  LANNER_CHECK(norm.gain != nullptr && norm.kind == NormKind::kLayer && norm.bias->size() == cols);
}

/// What every operation asks of its Linear. The order's numbers are checked where they are read from a file.
void check_linear(const Linear& linear) {
  LANNER_CHECK(!linear.parts.empty());
  for (const LinearPart& part : linear.parts) {
    LANNER_CHECK(part.weight->cols() == linear.cols());
    LANNER_CHECK(part.bias == nullptr || part.bias->size() == part.weight->rows());
  }
  check_norm(linear.norm, linear.cols());
  LANNER_CHECK(linear.input_order.empty() || static_cast<std::int64_t>(linear.input_order.size()) == linear.cols());
  check_norm(linear.epilogue.post_norm, linear.rows());
}

void check_no_epilogue(const Epilogue& epilogue) {
  LANNER_CHECK(epilogue.scale == 1.0F && !epilogue.post_norm && epilogue.soft_cap == 0);
}

}  // namespace

bool Backend::begin_step(const StepPlan& /*plan*/) { return false; }

void Backend::collect(std::span<SampledToken> /*tokens*/) {
  LANNER_CHECK(false);  // of a backend that answers at once
}

void check_batch(const Batch& batch) {
  LANNER_CHECK(batch.rows > 0);
  LANNER_CHECK(batch.tokens.size() == static_cast<std::size_t>(batch.rows));
  LANNER_CHECK(batch.positions.size() == static_cast<std::size_t>(batch.rows));
  std::int32_t rows = 0;
  for (const SequenceSlice& slice : batch.slices) {
    LANNER_CHECK(slice.first_row == rows && slice.rows > 0 && slice.first_position >= 0);
    LANNER_CHECK(static_cast<std::int64_t>(slice.blocks.size()) * kKvBlockTokens >=
                 static_cast<std::int64_t>(slice.first_position) + slice.rows);
    rows += slice.rows;
  }
  LANNER_CHECK(rows == batch.rows);
}

void check_norm_rows(const Norm& norm, std::int64_t cols) {
  LANNER_CHECK(norm);
  check_norm(norm, cols);
}

void check_norm_qkv(const NormQkvArgs& args, const Batch& batch, const KvCacheView& cache) {
  const KvLayout& layout = cache.layout;
  check_linear(*args.linear);
  check_no_epilogue(args.linear->epilogue);
  LANNER_CHECK(args.linear->parts.size() == 3);
  LANNER_CHECK(args.linear->parts[0].weight->rows() == args.heads * layout.head_dim);
  LANNER_CHECK(args.linear->parts[1].weight->rows() == layout.kv_heads * layout.head_dim);
  LANNER_CHECK(args.linear->parts[2].weight->rows() == layout.kv_heads * layout.head_dim);
  LANNER_CHECK(args.rotary_dim >= 0 && args.rotary_dim % 2 == 0 && args.rotary_dim <= layout.head_dim);
  LANNER_CHECK(args.rotary_dim == 0 || args.rope_angles != nullptr);
  check_norm(args.q_norm, layout.head_dim);
  check_norm(args.k_norm, layout.head_dim);
  LANNER_CHECK(args.layer >= 0 && args.layer < layout.layers);
  for (const SequenceSlice& slice : batch.slices) {
    for (const std::int32_t block : slice.blocks) LANNER_CHECK(block >= 0 && block < cache.blocks);
  }
}

void check_attention(const AttentionArgs& args, const Batch& batch, const KvCacheView& cache) {
  LANNER_CHECK(batch.rows > 0 && args.layer >= 0 && args.layer < cache.layout.layers);
  LANNER_CHECK(args.heads % cache.layout.kv_heads == 0 && cache.layout.head_dim % 16 == 0);
  LANNER_CHECK(args.soft_cap >= 0 && args.window >= 0);
  LANNER_CHECK(args.alibi_slopes == nullptr || args.alibi_slopes->size() == args.heads);
}

void check_linear_add(const Linear& linear) {
  check_linear(linear);
  LANNER_CHECK(linear.epilogue.soft_cap == 0);
}

void check_norm_gated_up(const Linear& linear) {
  check_linear(linear);
  check_no_epilogue(linear.epilogue);
  LANNER_CHECK(linear.parts.size() == 1 || linear.parts.size() == 2);
  LANNER_CHECK(linear.parts.front().weight->rows() == linear.parts.back().weight->rows());
}

void check_norm_head(const Linear& linear) {
  check_linear(linear);
  LANNER_CHECK(!linear.epilogue.post_norm && linear.epilogue.soft_cap >= 0);
}

}  // namespace lanner::ops
