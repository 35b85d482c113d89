#pragma once
// Which processors this process may use, and which of them are worth a thread.
//
// Three things make "all processors" the wrong number of threads. Two hardware threads of one core share its
// multipliers and its way to memory, so that a second one adds little and makes the first one's turn at a barrier
// longer. Slow cores beside fast ones hold those up, since equal shares of work end when the slowest does. And a cgroup
// may grant less time than there are processors: more threads than that are stopped in the middle of their work.
//
// Everything here is read from /sys and /proc when it is asked for; what is not there counts as not so.

#include <string>
#include <string_view>
#include <vector>

namespace lanner {

struct Processors {
  /// Those that this process may use, by what a thread there is worth: one hardware thread of each fast core, then of
  /// each slow one, then the fast cores' others. Never empty.
  std::vector<int> ids;
  /// How many threads --threads 0 stands for: one for each fast core, or for each core where there are more than twice
  /// as many slow ones; never more than the cgroup's quota, rounded up.
  int threads = 1;
};

/// Of this process: its affinity mask, into which the system has put its cpuset, and its cgroups' quotas.
Processors own_processors();

/// The same for these processors (not empty), as a system would have it whose /sys and /proc are folders of `root`.
Processors describe_processors(const std::vector<int>& allowed, const std::string& root);

/// own_processors().threads.
int available_processors();

/// "0-3,8" to 0, 1, 2, 3, 8, as the system writes lists; stops at what it does not understand.
std::vector<int> parse_processor_list(std::string_view text);

}  // namespace lanner
