// /openapi.json, written from the table of routes and the fields of their bodies.

#include <algorithm>
#include <iterator>
#include <string>
#include <vector>

#include "lanner/version.h"
#include "server/routes.h"

namespace lanner::server {
namespace {

const char* const kErrorSchema = R"({
  "type": "object",
  "required": ["error", "object", "message", "type", "code", "param"],
  "properties": {
    "error": {
      "type": "object",
      "required": ["message", "type", "param", "code"],
      "properties": {
        "message": {"type": "string"},
        "type": {"type": "string"},
        "param": {"type": ["string", "null"]},
        "code": {"type": ["string", "null"]}
      }
    },
    "object": {"const": "error"},
    "message": {"type": "string"},
    "type": {"type": "string"},
    "code": {"type": "integer"},
    "param": {"type": ["string", "null"]}
  }
})";

const char* const kAnthropicErrorSchema = R"({
  "type": "object",
  "required": ["type", "error"],
  "properties": {
    "type": {"const": "error"},
    "error": {
      "type": "object",
      "required": ["type", "message"],
      "properties": {"type": {"type": "string"}, "message": {"type": "string"}}
    }
  }
})";

const char* const kHealthSchema = R"({
  "type": "object",
  "required": ["status", "message"],
  "properties": {"status": {"type": "string"}, "message": {"type": "string"}}
})";

const char* const kMessageSchema = R"({
  "type": "object",
  "required": ["role"],
  "properties": {
    "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
    "content": {
      "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {
          "type": "object",
          "required": ["type", "text"],
          "properties": {"type": {"const": "text"}, "text": {"type": "string"}}
        }},
        {"type": "null"}
      ]
    }
  }
})";

Json response(const char* text, const char* content_type, const char* schema) {
  Json content = Json::object();
  content[content_type] =
      schema == nullptr ? Json::object() : Json{{"schema", {{"$ref", std::string("#/components/schemas/") + schema}}}};
  return {{"description", text}, {"content", std::move(content)}};
}

bool is_guarded(const Route& route, const ServiceOptions& options) {
  return route.access != Access::kOpen && !options.api_keys.empty();
}

/// What can come in place of an answer.
std::vector<Route::Failure> failures_of(const Route& route, const ServiceOptions& options) {
  std::vector<Route::Failure> list;
  if (route.fields != nullptr) {
    list = {{"400", "A field is wrong, or not available"},
            {"404", "No such model"},
            {"413", "The body is too long"},
            {"500", "The engine failed on this request"}};
  } else {
    list = {{"413", "It takes no body"}};
  }
  if (is_guarded(route, options)) list.push_back({"401", "No valid API key"});
  if (route.gate != nullptr) list.push_back({"403", "The server was not started for it"});
  if (options.check_host) list.push_back({"403", "The Host is not this machine"});
  if (route.new_work) {
    list.push_back({"429", "Too many requests: try again later"});
    list.push_back({"503", "The server is shutting down, or asleep"});
  }
  std::ranges::copy_if(route.failures, std::back_inserter(list), [](const auto& one) { return one.status != nullptr; });
  return list;
}

Json operation(const Route& route, const ServiceOptions& options) {
  Json responses = Json::object();
  responses["200"] = response("The answer", route.content_type, nullptr);
  if (route.fields != nullptr && fields_schema(route.fields())["properties"].contains("stream")) {
    responses["200"]["content"]["text/event-stream"] = Json::object();
  }
  const char* const form = route.errors == nullptr ? "Error" : "AnthropicError";
  for (const Route::Failure& one : failures_of(route, options)) {
    if (responses.contains(one.status)) continue;
    responses[one.status] = response(one.text, "application/json", one.schema == nullptr ? form : one.schema);
  }
  Json json{{"summary", route.summary}, {"tags", Json::array({route.group})}, {"responses", std::move(responses)}};
  if (route.fields != nullptr) {
    const Json content{{"application/json", {{"schema", fields_schema(route.fields())}}}};
    json["requestBody"] = {{"required", true}, {"content", content}};
  }
  if (std::string_view(route.path).find('{') != std::string_view::npos) {
    const Json parameter{{"name", "model"}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}}}};
    json["parameters"] = Json::array({parameter});
    json["responses"]["404"] = response("No such model", "application/json", "Error");
  }
  if (is_guarded(route, options)) json["security"] = Json::array({Json{{"key", Json::array()}}});
  return json;
}

}  // namespace

Json openapi_document(const ServiceOptions& options) {
  Json paths = Json::object();
  for (const Route& route : routes()) {
    if (find_route(route.method, route.path, options) == nullptr) continue;
    const char* method = route.method == std::string_view("GET") ? "get" : "post";
    paths[route.path][method] = operation(route, options);
  }
  Json schemas = Json::object();
  schemas["Health"] = Json::parse(kHealthSchema);
  schemas["Error"] = Json::parse(kErrorSchema);
  schemas["AnthropicError"] = Json::parse(kAnthropicErrorSchema);
  schemas["Message"] = Json::parse(kMessageSchema);
  Json components = Json::object();
  components["schemas"] = std::move(schemas);
  if (!options.api_keys.empty()) {
    components["securitySchemes"] = {{"key", {{"type", "http"}, {"scheme", "bearer"}}}};
  }
  return {{"openapi", "3.1.0"},
          {"info", {{"title", "Lanner"}, {"version", version()}, {"description", "Serves " + options.model_name}}},
          {"paths", std::move(paths)},
          {"components", std::move(components)}};
}

}  // namespace lanner::server
