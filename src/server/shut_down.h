#pragma once
// The end of a server in good order.

#include <chrono>
#include <functional>

#include "server/http_server.h"
#include "server/service.h"

namespace lanner::server {

/// New work is refused from now on. Answers under way have `timeout` to come to their end, and end with "abort" after
/// it; then the server stops. `hurried` is asked now and then whether nothing is worth waiting for any more.
void shut_down(Service& service, HttpServer& server, std::chrono::milliseconds timeout,
               const std::function<bool()>& hurried);

}  // namespace lanner::server
