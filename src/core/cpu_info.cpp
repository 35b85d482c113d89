#include "core/cpu_info.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <optional>

namespace lanner {
namespace {

std::optional<std::int64_t> read_number(const char* path) {
  std::ifstream file(path);
  std::int64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;  // "max", or no such file
}

#if defined(__x86_64__)
/// Whether the processor has tiles of int8 and of bf16 and the system lets this process use them.
bool tiles_are_granted() {
  constexpr unsigned kTiles = 1U << 22U | 1U << 24U | 1U << 25U;  // bf16, tiles, int8
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 || (edx & kTiles) != kTiles) return false;
  if (!has_bfloat16_products()) return false;
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM; Linux 5.16
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

CpuIsa detect_cpu_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (!avx2) return CpuIsa::kGeneric;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512vnni");
  if (!avx512) return CpuIsa::kAvx2;
  return tiles_are_granted() ? CpuIsa::kAmx : CpuIsa::kAvx512;
#else
  return CpuIsa::kGeneric;
#endif
}

CpuIsa select_cpu_isa() {
  const CpuIsa detected = detected_cpu_isa();
  const char* wanted = std::getenv("LANNER_CPU_ISA");
  if (wanted == nullptr || *wanted == '\0') return detected;
  const std::optional<CpuIsa> isa = cpu_isa_by_name(wanted);
  if (isa && *isa <= detected) return *isa;
  std::fprintf(stderr, "lanner: LANNER_CPU_ISA=%s: %s; using %s\n", wanted,
               isa ? "this processor does not have it" : "known are generic, avx2, avx512, amx",
               std::string(cpu_isa_name(detected)).c_str());
  return detected;
}

/// What a cgroup may still allocate, or nothing where it has no limit. The page cache counts as used there, but the
/// kernel gives it back when memory is asked for.
std::optional<std::int64_t> cgroup_available(const char* limit_file, const char* used_file, const char* stat_file,
                                             std::string_view stat_prefix) {
  const auto limit = read_number(limit_file);
  const auto used = read_number(used_file);
  if (!limit || !used) return std::nullopt;
  std::int64_t cache = 0;
  std::ifstream stat(stat_file);
  std::string key;
  for (std::int64_t bytes = 0; stat >> key >> bytes;) {
    if (!key.starts_with(stat_prefix)) continue;
    key.erase(0, stat_prefix.size());
    if (key == "active_file" || key == "inactive_file") cache += bytes;
  }
  return std::max<std::int64_t>(0, *limit - std::max<std::int64_t>(0, *used - cache));
}

}  // namespace

bool has_bfloat16_products() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

bool prefetches_streams_well() {
#if defined(__x86_64__)
  static const bool kAmd = [] {
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    constexpr unsigned kAuth = 0x68747541;  // "Auth" of "AuthenticAMD"
    return __get_cpuid(0, &eax, &ebx, &ecx, &edx) != 0 && ebx == kAuth;
  }();
  return kAmd;
#else
  return true;
#endif
}

std::string_view cpu_isa_name(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kGeneric: return "generic";
    case CpuIsa::kAvx2: return "avx2";
    case CpuIsa::kAvx512: return "avx512";
    case CpuIsa::kAmx: return "amx";
  }
  return "unknown";
}

std::span<const CpuIsa> known_cpu_isas() {
  static constexpr std::array kIsas = {CpuIsa::kGeneric, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAmx};
  return kIsas;
}

std::optional<CpuIsa> cpu_isa_by_name(std::string_view name) {
  for (const CpuIsa isa : known_cpu_isas()) {
    if (cpu_isa_name(isa) == name) return isa;
  }
  return std::nullopt;
}

CpuIsa detected_cpu_isa() {
  static const CpuIsa isa = detect_cpu_isa();
  return isa;
}

CpuIsa selected_cpu_isa() {
  static const CpuIsa isa = select_cpu_isa();
  return isa;
}

std::string cpu_model_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("model name")) continue;
    const std::size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

std::int64_t available_memory_bytes() {
  std::int64_t available = std::numeric_limits<std::int64_t>::max();
  std::ifstream file("/proc/meminfo");
  for (std::string key, rest; file >> key && std::getline(file, rest);) {
    if (key == "MemAvailable:") available = std::strtoll(rest.c_str(), nullptr, 10) * 1024;
  }
  const auto second =
      cgroup_available("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "");
  const auto first =
      cgroup_available("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes",
                       "/sys/fs/cgroup/memory/memory.stat", "total_");
  return std::min({available, second.value_or(available), first.value_or(available)});
}

}  // namespace lanner
