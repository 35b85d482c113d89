#pragma once
// The door of every operation: shapes are checked here once, so that bodies may trust them. A failure is a bug of
// ours, not of a user's: the process ends with the line.

#include "ops/backend.h"

namespace lanner::ops {

void check_batch(const Batch& batch);
void check_norm_qkv(const NormQkvArgs& args, const Batch& batch, const KvCacheView& cache);
void check_attention(const AttentionArgs& args, const Batch& batch, const KvCacheView& cache);
void check_norm_gated_up(const Linear& linear);
void check_linear(const Linear& linear);

}  // namespace lanner::ops
