#pragma once
// What processor this is, and how much memory is left: read once, at start.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace lanner {

/// The instruction sets that CPU kernels are written for, from the plainest to the widest.
enum class CpuIsa : std::uint8_t {
  kGeneric,  // any processor
  kAvx2,     // AVX2, FMA, F16C
  kAvx512,   // AVX-512 F, BW, DQ, VL and VNNI
  kAmx,      // those, AVX512-BF16, and tiles of AMX for int8 and bf16
};

std::string_view cpu_isa_name(CpuIsa isa);
std::optional<CpuIsa> cpu_isa_by_name(std::string_view name);
/// All of them, in that order.
std::span<const CpuIsa> known_cpu_isas();

/// The best that this processor and operating system can run. The first call asks the system for AMX's tiles where the
/// processor has them; they are then this process's.
CpuIsa detected_cpu_isa();

/// Whether the processor has AVX512-BF16, which not all with kAvx512 have.
bool has_bfloat16_products();

/// Whether one stream of loads fills the memory bus by itself. Taken to be so on AMD's processors and nowhere else: of
/// one byte a weight a Zen 4 reads 15 % less when it is asked for ahead, and a Xeon a third more (docs/perf-log.md).
bool prefetches_streams_well();

/// The one that kernels use: the detected one, or a lower one that LANNER_CPU_ISA=generic|avx2|avx512|amx names.
/// A name that is unknown or higher than the processor's is said on stderr, once, and ignored.
CpuIsa selected_cpu_isa();

/// Marketing name of the processor, or "unknown".
std::string cpu_model_name();

/// Bytes that can be allocated now without swapping: the lower of the machine's and of the cgroup's.
std::int64_t available_memory_bytes();

}  // namespace lanner
