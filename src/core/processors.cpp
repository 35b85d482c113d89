#include "core/processors.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <optional>
#include <thread>
#include <tuple>

#include "core/check.h"

namespace lanner {
namespace {

constexpr int kMostProcessors = 1 << 16;  // a longer list is not one

std::optional<std::string> read_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  return line;
}

std::vector<int> read_list(const std::string& path) { return parse_processor_list(read_line(path).value_or("")); }

/// 0 where the file is missing.
std::int64_t read_number(const std::string& path) {
  return std::strtoll(read_line(path).value_or("0").c_str(), nullptr, 10);
}

struct Processor {
  int id = 0;
  int core = 0;  // the least id of those on the same core
  int turn = 0;  // how many of its core come before it
  bool slow = false;
  std::int64_t capacity = 0;  // what the system thinks it can do, 1024 the most; 0: it does not say
};

/// Where the system tells kinds of cores apart: by name on Intel's hybrid processors, by capacity elsewhere.
void find_slow_ones(const std::string& system, std::vector<Processor>& processors) {
  std::vector<int> named;
  for (const char* kind : {"cpu_atom", "cpu_lowpower"}) {
    const std::vector<int> these = read_list(fmt::format("{}/{}/cpus", system, kind));
    named.insert(named.end(), these.begin(), these.end());
  }
  std::int64_t largest = 0;
  for (const Processor& processor : processors) largest = std::max(largest, processor.capacity);
  for (Processor& processor : processors) {
    // A quarter less is another kind of core and not another clock.
    const bool weak = processor.capacity > 0 && processor.capacity * 4 < largest * 3;
    processor.slow = weak || std::ranges::find(named, processor.id) != named.end();
  }
  // Nothing is slow where nothing is faster.
  if (std::ranges::all_of(processors, &Processor::slow)) {
    for (Processor& processor : processors) processor.slow = false;
  }
}

std::vector<Processor> read_processors(const std::vector<int>& allowed, const std::string& root) {
  const std::string system = root + "/sys/devices";
  std::vector<Processor> processors;
  for (const int id : allowed) {
    Processor processor{.id = id, .core = id};
    const std::string folder = fmt::format("{}/system/cpu/cpu{}", system, id);
    const std::vector<int> siblings = read_list(folder + "/topology/thread_siblings_list");
    if (!siblings.empty()) processor.core = std::ranges::min(siblings);
    processor.turn = static_cast<int>(std::ranges::count(processors, processor.core, &Processor::core));
    processor.capacity = read_number(folder + "/cpu_capacity");
    processors.push_back(processor);
  }
  find_slow_ones(system, processors);
  return processors;
}

/// Processors' worth of time that one cgroup grants; infinity where it has no limit.
double quota_of(double quota, double period) {
  return quota > 0 && period > 0 ? quota / period : std::numeric_limits<double>::infinity();
}

double second_version_quota(const std::string& folder) {  // "max 100000" or "150000 100000"
  std::ifstream file(folder + "/cpu.max");
  std::string quota;
  double period = 0;
  file >> quota >> period;
  return quota_of(std::strtod(quota.c_str(), nullptr), period);
}

double first_version_quota(const std::string& folder) {  // -1: no limit
  return quota_of(static_cast<double>(read_number(folder + "/cpu.cfs_quota_us")),
                  static_cast<double>(read_number(folder + "/cpu.cfs_period_us")));
}

/// The least that a cgroup and those above it grant.
template <typename QuotaOf>
double least_quota(const std::string& mount, std::string group, const QuotaOf& quota_of_folder) {
  // A path out of what is mounted here is of a group that cannot be seen.
  if (group.find("..") != std::string::npos) group.clear();
  double least = quota_of_folder(mount);
  while (group.size() > 1) {
    least = std::min(least, quota_of_folder(mount + group));
    group.erase(group.rfind('/') == std::string::npos ? 0 : group.rfind('/'));
  }
  return least;
}

/// Of the cgroups that this process is in: lines of "hierarchy:controllers:path", no controllers for version 2.
double cgroup_quota(const std::string& root) {
  const std::string mount = root + "/sys/fs/cgroup";
  double least = least_quota(mount, "", second_version_quota);  // as a container sees its own
  least = std::min(least, least_quota(mount + "/cpu", "", first_version_quota));
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = fmt::format(",{},", line.substr(first + 1, second - first - 1));
    const std::string group = line.substr(second + 1);
    if (controllers == ",,") least = std::min(least, least_quota(mount, group, second_version_quota));
    if (controllers.find(",cpu,") != std::string::npos) {
      least = std::min(least, least_quota(mount + "/cpu", group, first_version_quota));
    }
  }
  return least;
}

}  // namespace

std::vector<int> parse_processor_list(std::string_view text) {
  std::vector<int> ids;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at != end) {
    int first = 0;
    auto parsed = std::from_chars(at, end, first);
    int last = first;
    if (parsed.ec == std::errc() && parsed.ptr != end && *parsed.ptr == '-') {
      parsed = std::from_chars(parsed.ptr + 1, end, last);
    }
    if (parsed.ec != std::errc() || first < 0 || last < first || last >= kMostProcessors) break;
    for (int id = first; id <= last; ++id) ids.push_back(id);
    at = parsed.ptr;
    if (at == end || *at != ',') break;
    ++at;
  }
  return ids;
}

Processors describe_processors(const std::vector<int>& allowed, const std::string& root) {
  LANNER_CHECK(!allowed.empty());
  std::vector<Processor> processors = read_processors(allowed, root);
  std::ranges::sort(processors, {}, [](const Processor& p) { return std::tuple(p.turn, p.slow, p.id); });
  Processors result;
  for (const Processor& processor : processors) result.ids.push_back(processor.id);
  const auto cores = [&](bool slow) {
    return std::ranges::count_if(processors, [&](const Processor& p) { return p.turn == 0 && p.slow == slow; });
  };
  const std::int64_t fast = cores(false);
  const std::int64_t slow = cores(true);
  const std::int64_t wanted = slow > 2 * fast ? fast + slow : fast;
  const double granted = std::ceil(cgroup_quota(root));
  result.threads = static_cast<int>(std::max(1.0, std::min(granted, static_cast<double>(wanted))));
  return result;
}

Processors own_processors() {
  std::vector<int> allowed;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int id = 0; id < CPU_SETSIZE; ++id) {
      if (CPU_ISSET(id, &set)) allowed.push_back(id);
    }
  }
  if (allowed.empty()) {  // more processors than such a set holds
    const int count = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    for (int id = 0; id < count; ++id) allowed.push_back(id);
  }
  return describe_processors(allowed, {});
}

int available_processors() { return own_processors().threads; }

}  // namespace lanner
