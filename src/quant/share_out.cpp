#include "quant/share_out.h"

#include <mutex>

namespace lanner::quant {

Status share_out(ThreadPool& pool, std::int64_t count,
                 const std::function<Status(std::int64_t begin, std::int64_t end)>& work) {
  std::mutex mutex;
  Status status;
  pool.run([&](ThreadPool::Worker& worker) {
    const auto [begin, end] = worker.share(count);
    const Status mine = work(begin, end);
    const std::lock_guard lock(mutex);
    if (status.ok()) status = mine;
  });
  return status;
}

Status share_out_rows(ThreadPool& pool, std::int64_t count, const std::function<Status(std::int64_t row)>& work) {
  return share_out(pool, count, [&](std::int64_t begin, std::int64_t end) -> Status {
    for (std::int64_t row = begin; row < end; ++row) LANNER_RETURN_IF_ERROR(work(row));
    return {};
  });
}

}  // namespace lanner::quant
