#pragma once
// One matrix rounded to 4 bits, symmetric (group_rounding.h), column by column, where the columns that are left make up
// for the error of each as far as its inputs allow it: GPTQ (arXiv 2210.17323), in the order of the columns. Packed in
// its first format.
//
// GPTQ's formulas, of a row w with codes' values q, and U the upper Cholesky factor of the inverse of the damped
// Hessian, H^-1 = Uᵀ U:
//
//     e_j = (w'_j - q_j) / U_jj,      w'_k -= e_j U_jk  for all k > j,      q_j = w'_j rounded
//
// and a group's scale is of w' as it is when the group is reached. H = R Rᵀ with R = U^-1 (hessian.h), so that with
// d = w - q, the error against the weight as it was,  e = d R.  Therefore
//
//     w'_j = w_j + (sum over i < j of d_i R_ij) / R_jj        when it is rounded, and
//     w'   = w + z,  z R_gg = sum over i < g of d_i R_ig      of a whole group g when it is reached (R_gg is
//     triangular)
//
// which are the same numbers, without an inverse. A group's sums for all columns behind it are one product (kept in
// strips, hessian.h). Rows are independent of one another: threads share them.

#include <cstdint>

#include "core/thread_pool.h"
#include "lanner/status.h"
#include "quant/dense_rows.h"
#include "quant/hessian.h"
#include "quant/packed_matrix.h"

namespace lanner::quant {

/// `factor`: R, of as many columns as the matrix has; null: the Hessian is the identity, which is plain rounding.
/// `group_size` is a multiple of 32 that divides the columns, 8 divides the rows (CHECKed). kCorrupt where a weight is
/// not finite, or too large for a scale in fp16.
Result<PackedMatrix> round_gptq(const DenseRows& matrix, const UpperTriangle* factor, std::int64_t group_size,
                                ThreadPool& pool);

}  // namespace lanner::quant
