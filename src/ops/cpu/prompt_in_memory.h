#pragma once
// The products of prompt_amx.cpp with tiles in plain C++ in the place of the processor's: for prompt_test.cpp.

#include "ops/cpu/prompt.h"

namespace lanner::ops::cpu::prompt_in_memory {

/// For a processor with AVX512-BF16. One thread at a time.
const PromptKernels& prompt_kernels();

}  // namespace lanner::ops::cpu::prompt_in_memory
