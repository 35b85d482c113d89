#pragma once
// Requests to an Engine and the wait for them: for callers that have nothing else to do meanwhile.

#include <functional>
#include <vector>

#include "lanner/engine.h"
#include "lanner/status.h"

namespace lanner {

/// Asked every now and then whether nobody waits for the results any more; may be empty.
using Unwanted = std::function<bool()>;

/// Submits all requests, in order and at once, and returns when each has had its final event. Their own on_event is
/// called for every event. The first failure, or kCancelled for a request that was aborted, is returned after all
/// others have ended too. All are cancelled once `unwanted` says so.
Status run_requests(Engine& engine, std::vector<Request> requests, const Unwanted& unwanted = {});

}  // namespace lanner
