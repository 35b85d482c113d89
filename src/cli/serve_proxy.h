#pragma once
// lanner serve proxy, and how a server registers at one.

#include <cstdint>
#include <memory>
#include <string>

#include "cli/serve_flags.h"
#include "cli/verbs.h"
#include "server/proxy_registration.h"

namespace lanner::cli {

void add_serve_proxy(CLI::App& group, Run& run);

/// The registration of a server that listens as `http` says, on `port`; null without --proxy-url.
Result<std::unique_ptr<server::ProxyRegistration>> register_at_proxy(const ServeFlags& flags,
                                                                     const server::HttpServerOptions& http,
                                                                     std::uint16_t port,
                                                                     const server::ServiceOptions& service);

}  // namespace lanner::cli
