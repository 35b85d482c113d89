#pragma once
// What follows a product that lies in memory: the epilogues of linear operations that did not take the fused kernels.

#include "ops/cuda/fused_linear.h"

namespace lanner::ops::cuda {

/// Products of all parts side by side, without bias.
struct Product {
  const float* values = nullptr;  // (rows, stride)
  std::int64_t stride = 0;
  std::int64_t width = 0;
  std::int32_t part_count = 0;
  std::int32_t first_column[kMaxParts + 1] = {};  // of each part; the last one is width
  const float* bias[kMaxParts] = {};
};

/// q and the cache from the products of q, k and v. Row 0 of the product is row `first_row` of the batch.
cudaError_t finish_qkv(const KernelContext& context, const Product& product, std::int64_t rows, std::int64_t first_row,
                       const DeviceNorm& q_norm, const DeviceNorm& k_norm, const HeadsOut& heads);
/// x (rows, width) += post_norm(scale * product).
cudaError_t finish_add(const KernelContext& context, const Product& product, std::int64_t rows, float scale,
                       const DeviceNorm& post_norm, float* x);
/// h (rows, first part's width) = gate(first) * second; gate(first) where there is one part.
cudaError_t finish_gate(const KernelContext& context, const Product& product, std::int64_t rows, Gate gate, float* h,
                        WeightFormat h_format);
/// logits (rows, width) = cap(scale * product); the product may be the logits themselves.
cudaError_t finish_head(const KernelContext& context, const Product& product, std::int64_t rows, float scale,
                        float soft_cap, float* logits);

}  // namespace lanner::ops::cuda
