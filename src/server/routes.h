#pragma once
// Every route of the server: what is called, what it takes, and who may call it. Requests are routed and checked by
// this table, and /openapi.json and the page at / are written from it.

#include <array>
#include <optional>
#include <span>
#include <string_view>

#include "server/context.h"
#include "server/fields.h"
#include "server/http_server.h"
#include "server/refusal.h"

namespace lanner::server {

enum class Access : std::uint8_t {
  kOpen,  // to anybody
  kKey,   // where the server has keys, one of them
  kDocs,  // the same; not there with --disable-fastapi-docs
  kMetrics,
};

struct Route {
  struct Failure {
    const char* status = nullptr;
    const char* text = nullptr;
    const char* schema = nullptr;  // where its body is no error's
  };

  const char* method;
  const char* path;  // "{model}" stands for the rest of a path
  const char* group;
  const char* summary;
  HttpReply (*handle)(Context& context, const Call& call);
  Pace pace = Pace::kAtOnce;
  Access access = Access::kKey;
  std::span<const Fields> (*fields)() = nullptr;  // of its body, which is a JSON object; nullptr: none
  bool new_work = false;                          // refused while the server ends
  bool takes_place = false;  // every request for it, so that it is refused unread where none is free
  const char* content_type = "application/json";
  /// Why nobody may call it with these options; asked before the body is read. nullptr: it is always there.
  std::optional<Refusal> (*gate)(const ServiceOptions& options) = nullptr;
  /// The form of its refusals, where it is not everybody's.
  HttpReply (*errors)(HttpReply refusal) = nullptr;
  /// What it can answer besides what its other members say, for the OpenAPI document.
  std::array<Failure, 3> failures{};
};

std::span<const Route> routes();
/// The route for an exact method and path (HEAD is GET); nullptr when there is none.
const Route* find_route(std::string_view method, std::string_view path, const ServiceOptions& options);
/// The methods that a path knows, as in an Allow header; empty for an unknown path.
std::string allowed_methods(std::string_view path, const ServiceOptions& options);

/// The OpenAPI 3.1 document.
Json openapi_document(const ServiceOptions& options);
/// The page at /, whose examples call `host`, as a request names it.
std::string docs_page(const ServiceOptions& options, std::string_view host);

}  // namespace lanner::server
