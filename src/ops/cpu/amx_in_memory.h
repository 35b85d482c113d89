#pragma once
// The products of kernels_amx.cpp with tiles in plain C++ in the place of the processor's: for tests.

#include "ops/cpu/kernels.h"

namespace lanner::ops::cpu::amx_in_memory {

/// Kernels::multiply, of quantized weights in groups of whole units, on a processor with AVX-512.
void multiply(const WeightView& weight, std::int64_t panel, std::int64_t panels, const InputView& input,
              std::int64_t row, std::int64_t rows, float* tile);

/// Those of bf16, for any number of rows, on a processor with AVX-512 and its BF16.
const TileKernels& tile_kernels();

}  // namespace lanner::ops::cpu::amx_in_memory
