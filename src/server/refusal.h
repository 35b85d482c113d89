#pragma once
// What a client is told that asks for something wrong: the error of OpenAI's protocol, which carries LMDeploy's flat
// one besides.

#include <string>
#include <vector>

#include "lanner/status.h"
#include "server/http.h"
#include "server/json.h"

namespace lanner::server {

struct Refusal {
  int status = 400;
  std::string type = "invalid_request_error";
  std::string message;
  std::string param;  // the field that is wrong; empty: none
  std::string code;   // one word for programs; empty: none
  Headers headers;
};

Refusal bad_field(std::string param, const std::string& detail);
/// A value that is right, but for what this version does not do.
Refusal not_available(std::string param, const std::string& detail);
/// The type follows from the status.
Refusal plain_refusal(int status, std::string message, std::string code);
/// What a Status from below means to a client.
Refusal refusal_of(const Status& status);
Refusal unknown_model(const std::string& name);
/// Too much is going on: 429, or 503 while the server ends.
Refusal overloaded(const std::string& message);
Refusal shutting_down();
/// For whom Limits::enter() has no place. `closed`: the limits are.
Refusal turned_away(bool closed);

/// What only those may do whom --api-keys and this flag let.
Refusal not_allowed(const char* flag);

Json error_body(const Refusal& refusal);
HttpReply to_reply(const Refusal& refusal);

/// Type of the error that stands for an HTTP status.
std::string error_type(int status);

}  // namespace lanner::server
