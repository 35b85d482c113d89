#pragma once
// Requests to an Engine and the wait for them: for callers that have nothing else to do meanwhile.

#include <vector>

#include "lanner/engine.h"
#include "lanner/status.h"

namespace lanner {

/// Submits all requests, in order and at once, and returns when each has had its final event. Their own on_event is
/// called for every event. The first failure, or kCancelled for a request that was aborted, is returned after all
/// others have ended too.
Status run_requests(Engine& engine, std::vector<Request> requests);

}  // namespace lanner
