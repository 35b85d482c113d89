#pragma once
// What every service does at its door: keys, the Host that a request names, its id, and the access log.

#include <string>
#include <string_view>
#include <vector>

#include "server/http_server.h"

namespace lanner::server {

/// Keys as they are kept to be compared.
std::vector<std::string> key_digests(const std::vector<std::string>& keys);
/// Whether the request has one of them, in `Authorization: Bearer` or `X-Api-Key`; compared in a time that does not
/// tell where they differ.
bool has_key(const HttpRequest& head, const std::vector<std::string>& digests);
/// Whether its Host is this machine by a name of its own.
bool names_this_machine(const HttpRequest& head);
/// Whether the text can name an exchange.
bool is_request_id(std::string_view text);
/// An exchange as a line of JSON for an access log.
std::string access_line(const HttpRequest& request, const HttpOutcome& outcome);

}  // namespace lanner::server
