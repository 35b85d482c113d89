// Which processors are worth a thread, on machines that exist as files only.

#include "core/processors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <string>
#include <vector>

namespace lanner {
namespace {

/// A folder with sys/ and proc/ of a machine.
class Machine {
 public:
  Machine() : root_(testing::TempDir() + "processors") { std::filesystem::remove_all(root_); }
  ~Machine() { std::filesystem::remove_all(root_); }
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  Machine& file(const std::string& path, const std::string& text) {
    const std::filesystem::path whole = root_ + "/" + path;
    std::filesystem::create_directories(whole.parent_path());
    std::ofstream(whole) << text << "\n";
    return *this;
  }
  Machine& processor(int id, const std::string& siblings, const std::string& capacity = "") {
    const std::string folder = "sys/devices/system/cpu/cpu" + std::to_string(id);
    file(folder + "/topology/thread_siblings_list", siblings);
    return capacity.empty() ? *this : file(folder + "/cpu_capacity", capacity);
  }
  Processors of(const std::vector<int>& allowed) const { return describe_processors(allowed, root_); }

 private:
  const std::string root_;
};

std::vector<int> first(int count) {
  std::vector<int> ids(static_cast<std::size_t>(count));
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

using Ids = std::vector<int>;

TEST(ProcessorList, IsReadAsTheSystemWritesIt) {
  EXPECT_EQ(parse_processor_list("0"), Ids({0}));
  EXPECT_EQ(parse_processor_list("0-3,8,10-11"), Ids({0, 1, 2, 3, 8, 10, 11}));
  EXPECT_EQ(parse_processor_list("0-1\n"), Ids({0, 1}));
  EXPECT_EQ(parse_processor_list(""), Ids());
  EXPECT_EQ(parse_processor_list("2,x,3"), Ids({2}));
  EXPECT_EQ(parse_processor_list("3-1"), Ids());
  EXPECT_EQ(parse_processor_list("-1"), Ids());
  EXPECT_EQ(parse_processor_list("0-2000000000"), Ids());
  EXPECT_EQ(parse_processor_list("99999999999999999999"), Ids());
}

TEST(Processors, AllWhereTheSystemSaysNothingOfThem) {
  const Machine machine;
  EXPECT_EQ(machine.of(first(3)).threads, 3);
  EXPECT_EQ(machine.of({5, 7}).ids, Ids({5, 7}));
}

TEST(Processors, OneThreadForEachCore) {
  Machine machine;  // siblings side by side, as on some systems
  for (int id = 0; id < 8; ++id) {
    const int even = id / 2 * 2;
    machine.processor(id, std::to_string(even) + "-" + std::to_string(even + 1));
  }
  EXPECT_EQ(machine.of(first(8)).threads, 4);
  EXPECT_EQ(machine.of(first(8)).ids, Ids({0, 2, 4, 6, 1, 3, 5, 7}));

  Machine far;  // and as on others: the second half are siblings of the first
  for (int id = 0; id < 8; ++id) {
    far.processor(id, std::to_string(id % 4) + "," + std::to_string(id % 4 + 4));
  }
  EXPECT_EQ(far.of(first(8)).threads, 4);
  EXPECT_EQ(far.of(first(8)).ids, Ids({0, 1, 2, 3, 4, 5, 6, 7}));
  // A mask that leaves one of two siblings leaves the core.
  EXPECT_EQ(far.of({1, 5, 6}).threads, 2);
  EXPECT_EQ(far.of({1, 5, 6}).ids, Ids({1, 6, 5}));
}

/// `fast` cores with two threads each, then `slow` ones with one.
void make_hybrid(Machine& machine, int fast, int slow) {
  for (int id = 0; id < 2 * fast; ++id) {
    machine.processor(id, std::to_string(id / 2 * 2) + "-" + std::to_string(id / 2 * 2 + 1));
  }
  for (int id = 2 * fast; id < 2 * fast + slow; ++id) machine.processor(id, std::to_string(id));
  machine.file("sys/devices/cpu_core/cpus", "0-" + std::to_string(2 * fast - 1));
  machine.file("sys/devices/cpu_atom/cpus", std::to_string(2 * fast) + "-" + std::to_string(2 * fast + slow - 1));
}

TEST(Processors, FastCoresAloneOnAHybridProcessor) {
  Machine machine;
  make_hybrid(machine, 4, 4);
  EXPECT_EQ(machine.of(first(12)).threads, 4);
  EXPECT_EQ(machine.of(first(12)).ids, Ids({0, 2, 4, 6, 8, 9, 10, 11, 1, 3, 5, 7}));
  EXPECT_EQ(machine.of({8, 9, 10}).threads, 3) << "only slow ones may be used";
}

TEST(Processors, SlowCoresTooWhereTheyAreMostOfTheMachine) {
  Machine machine;
  make_hybrid(machine, 2, 8);
  EXPECT_EQ(machine.of(first(12)).threads, 10);
}

TEST(Processors, AreOfTwoKindsByCapacity) {
  Machine machine;
  for (int id = 0; id < 4; ++id) machine.processor(id, std::to_string(id), "446");
  for (int id = 4; id < 8; ++id) machine.processor(id, std::to_string(id), id == 7 ? "1024" : "980");
  EXPECT_EQ(machine.of(first(8)).threads, 4);
  EXPECT_EQ(machine.of(first(8)).ids, Ids({4, 5, 6, 7, 0, 1, 2, 3}));
  EXPECT_EQ(machine.of(first(4)).threads, 4);
}

TEST(Processors, AreNoMoreThanTheCgroupGrants) {
  Machine machine;
  machine.file("sys/fs/cgroup/cpu.max", "250000 100000");
  EXPECT_EQ(machine.of(first(8)).threads, 3);
  EXPECT_EQ(machine.of(first(8)).ids.size(), 8U);
  machine.file("sys/fs/cgroup/cpu.max", "max 100000");
  EXPECT_EQ(machine.of(first(8)).threads, 8);
  machine.file("sys/fs/cgroup/cpu.max", "1000 100000");
  EXPECT_EQ(machine.of(first(8)).threads, 1);
  machine.file("sys/fs/cgroup/cpu.max", "nonsense");
  EXPECT_EQ(machine.of(first(8)).threads, 8);
}

TEST(Processors, AreLimitedByEveryCgroupAboveTheirs) {
  Machine machine;
  machine.file("proc/self/cgroup", "0::/system.slice/lanner.service");
  machine.file("sys/fs/cgroup/system.slice/lanner.service/cpu.max", "600000 100000");
  EXPECT_EQ(machine.of(first(8)).threads, 6);
  machine.file("sys/fs/cgroup/system.slice/cpu.max", "200000 100000");
  EXPECT_EQ(machine.of(first(8)).threads, 2);
  machine.file("proc/self/cgroup", "0::/../../elsewhere");
  EXPECT_EQ(machine.of(first(8)).threads, 8);
}

TEST(Processors, AreLimitedByCgroupsOfTheFirstVersion) {
  Machine machine;
  machine.file("proc/self/cgroup", "5:memory:/other\n4:cpu,cpuacct:/docker/abc\n1:cpuset:/");
  machine.file("sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us", "300000");
  machine.file("sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us", "100000");
  EXPECT_EQ(machine.of(first(8)).threads, 3);
  machine.file("sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us", "-1");
  EXPECT_EQ(machine.of(first(8)).threads, 8);
}

TEST(Processors, OfThisMachineAreSome) {
  const Processors own = own_processors();
  EXPECT_GE(own.threads, 1);
  EXPECT_LE(static_cast<std::size_t>(own.threads), own.ids.size());
  EXPECT_EQ(available_processors(), own.threads);
}

}  // namespace
}  // namespace lanner
