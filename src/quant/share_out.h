#pragma once
// Work on the rows of a matrix, shared out among threads.

#include <cstdint>
#include <functional>

#include "core/thread_pool.h"
#include "lanner/status.h"

namespace lanner::quant {

/// Calls `work` once on each thread with its share [begin, end) of `count`. The failure of one of them, if any failed.
Status share_out(ThreadPool& pool, std::int64_t count,
                 const std::function<Status(std::int64_t begin, std::int64_t end)>& work);
/// Calls `work` for each of `count` rows, each thread for its share until one fails.
Status share_out_rows(ThreadPool& pool, std::int64_t count, const std::function<Status(std::int64_t row)>& work);

}  // namespace lanner::quant
