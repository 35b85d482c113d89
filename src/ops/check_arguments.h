#pragma once
// The door of every operation: shapes are checked here once, so that bodies may trust them. A failure is a bug of
// ours, not of a user's: the process ends with the line.

#include "ops/backend.h"

namespace lanner::ops {

void check_batch(const Batch& batch);
void check_norm_qkv(const NormQkvArgs& args, const Batch& batch, const KvCacheView& cache);
void check_attention(const AttentionArgs& args, const Batch& batch, const KvCacheView& cache);
void check_linear_add(const Linear& linear);
void check_norm_gated_up(const Linear& linear);
void check_norm_head(const Linear& linear);
void check_norm_rows(const Norm& norm, std::int64_t cols);

}  // namespace lanner::ops
