#include "ops/check_arguments.h"

#include "core/check.h"

namespace lanner::ops {

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

void check_linear(const Linear& linear) {
  LANNER_CHECK(!linear.parts.empty());
  for (const LinearPart& part : linear.parts) {
    LANNER_CHECK(part.weight->cols() == linear.cols());
    LANNER_CHECK(part.bias == nullptr || part.bias->size() == part.weight->rows());
  }
  LANNER_CHECK(linear.norm.gain == nullptr || linear.norm.gain->size() == linear.cols());
}

void check_norm_qkv(const NormQkvArgs& args, const Batch& batch, const KvCacheView& cache) {
  const KvLayout& layout = cache.layout;
  check_linear(*args.linear);
  LANNER_CHECK(args.linear->parts.size() == 3);
  LANNER_CHECK(args.linear->parts[0].weight->rows() == args.heads * layout.head_dim);
  LANNER_CHECK(args.linear->parts[1].weight->rows() == layout.kv_heads * layout.head_dim);
  LANNER_CHECK(args.linear->parts[2].weight->rows() == layout.kv_heads * layout.head_dim);
  LANNER_CHECK(args.rotary_dim >= 0 && args.rotary_dim % 2 == 0 && args.rotary_dim <= layout.head_dim);
  LANNER_CHECK(args.layer >= 0 && args.layer < layout.layers);
  for (const SequenceSlice& slice : batch.slices) {
    for (const std::int32_t block : slice.blocks) LANNER_CHECK(block >= 0 && block < cache.blocks);
  }
}

void check_attention(const AttentionArgs& args, const Batch& batch, const KvCacheView& cache) {
  LANNER_CHECK(batch.rows > 0 && args.layer >= 0 && args.layer < cache.layout.layers);
  LANNER_CHECK(args.heads % cache.layout.kv_heads == 0 && cache.layout.head_dim % 16 == 0);
}

void check_norm_gated_up(const Linear& linear) {
  check_linear(linear);
  LANNER_CHECK(linear.parts.size() == 2);
  LANNER_CHECK(linear.parts[0].weight->rows() == linear.parts[1].weight->rows());
}

}  // namespace lanner::ops
