#include "eval/roofline.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <limits>
#include <string>
#include <thread>

#include "core/aligned_buffer.h"
#include "core/processors.h"
#include "core/thread_pool.h"
#include "eval/roofline_loops.h"

namespace lanner::eval {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t kMinBufferBytes = std::int64_t{64} << 20;
constexpr std::int64_t kMaxBufferBytes = std::int64_t{1} << 30;
constexpr int kRuns = 5;
constexpr double kSecondsPerRun = 0.015;
constexpr std::int64_t kFirstRounds = 1 << 12;

const RooflineLoops& loops_for(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kGeneric: break;
    case CpuIsa::kAvx2: return avx2_roofline_loops();
    case CpuIsa::kAvx512: return avx512_roofline_loops();
    case CpuIsa::kAmx: return amx_roofline_loops();
  }
  return generic_roofline_loops();
}

std::int64_t default_buffer_bytes() {
  // Some systems do not say (0 or -1): the minimum then.
  const std::int64_t cache = std::max<std::int64_t>(sysconf(_SC_LEVEL3_CACHE_SIZE), sysconf(_SC_LEVEL2_CACHE_SIZE));
  const std::int64_t wanted = std::clamp(4 * cache, kMinBufferBytes, kMaxBufferBytes);
  return std::clamp(available_memory_bytes() / 4, kMinBufferBytes, wanted);
}

class Measurement {
 public:
  Measurement(ThreadPool& pool, const RooflineLoops& loops) : pool_(pool), loops_(loops) {}

  double read_bytes_per_s(AlignedBuffer& buffer) {
    // Written before it is read: untouched pages would all be the same page of zeros, in cache.
    const std::int64_t steps = buffer.bytes() / kReadStep;
    pool_.run([&](ThreadPool::Worker& worker) {
      const auto [begin, end] = worker.share(steps);
      std::fill(buffer.data() + begin * kReadStep, buffer.data() + end * kReadStep, std::byte{1});
    });
    double seconds = std::numeric_limits<double>::infinity();
    for (const auto read : {loops_.read, loops_.read_stream}) {
      seconds = std::min(seconds, best_seconds([&](ThreadPool::Worker& worker) {
                           const auto [begin, end] = worker.share(steps);
                           sink_ += read(buffer.data() + begin * kReadStep, (end - begin) * kReadStep);
                         }));
    }
    return static_cast<double>(steps * kReadStep) / seconds;
  }

  double float32_ops_per_s() {
    return ops_per_s([this](std::int64_t rounds) { sink_ += loops_.float32(rounds) > 0 ? 1 : 0; },
                     loops_.float32_ops_per_round);
  }

  double int8_ops_per_s() {
    return ops_per_s([this](std::int64_t rounds) { sink_ += loops_.int8(rounds) > 0 ? 1 : 0; },
                     loops_.int8_ops_per_round);
  }

 private:
  double ops_per_s(const std::function<void(std::int64_t)>& loop, std::int64_t ops_per_round) {
    std::int64_t rounds = kFirstRounds;
    double seconds = run_once([&](ThreadPool::Worker&) { loop(rounds); });  // also wakes the clock
    while (seconds < kSecondsPerRun && rounds < std::numeric_limits<std::int64_t>::max() / 4) {
      rounds *= 2;
      seconds = run_once([&](ThreadPool::Worker&) { loop(rounds); });
    }
    seconds = std::min(seconds, best_seconds([&](ThreadPool::Worker&) { loop(rounds); }));
    return static_cast<double>(rounds * ops_per_round) * pool_.size() / seconds;
  }

  double best_seconds(const ThreadPool::Body& body) {
    double best = std::numeric_limits<double>::infinity();
    for (int run = 0; run < kRuns; ++run) best = std::min(best, run_once(body));
    return best;
  }

  double run_once(const ThreadPool::Body& body) {
    const auto start = Clock::now();
    pool_.run(body);
    return std::chrono::duration<double>(Clock::now() - start).count();
  }

  ThreadPool& pool_;
  const RooflineLoops& loops_;
  std::atomic<std::uint64_t> sink_{0};  // takes what the loops return
};

}  // namespace

Result<Roofline> measure_roofline(const RooflineOptions& options) {
  if (options.isa > detected_cpu_isa()) {
    return invalid_argument("this processor does not have " + std::string(cpu_isa_name(options.isa)));
  }
  const int threads = options.threads > 0 ? options.threads : available_processors();
  const std::int64_t wanted = options.buffer_bytes > 0 ? options.buffer_bytes : default_buffer_bytes();
  const std::int64_t bytes = std::max<std::int64_t>(wanted / kReadStep, threads) * kReadStep;
  LANNER_ASSIGN_OR_RETURN(AlignedBuffer buffer, AlignedBuffer::allocate(bytes, "measuring the bandwidth"));
  LANNER_ASSIGN_OR_RETURN(const std::unique_ptr<ThreadPool> pool, ThreadPool::create(threads, options.pin_threads));
  Roofline roofline{.threads = threads, .buffer_bytes = bytes};
  const auto measure = [&] {
    pool->pin_caller();
    Measurement measurement(*pool, loops_for(options.isa));
    roofline.read_bytes_per_s = measurement.read_bytes_per_s(buffer);
    roofline.float32_ops_per_s = measurement.float32_ops_per_s();
    roofline.int8_ops_per_s = measurement.int8_ops_per_s();
  };
  std::thread(measure).join();  // a thread of its own, whose pinning ends with it
  return roofline;
}

}  // namespace lanner::eval
