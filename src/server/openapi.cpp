// /openapi.json, written from the table of routes and the fields of their bodies.

#include <string>

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

Json operation(const Route& route, const ServiceOptions& options) {
  Json responses = Json::object();
  responses["200"] = response("The answer", route.content_type, nullptr);
  if (route.fields != nullptr) {
    if (fields_schema(route.fields())["properties"].contains("stream")) {
      responses["200"]["content"]["text/event-stream"] = Json::object();
    }
    responses["404"] = response("No such model", "application/json", "Error");
    responses["500"] = response("The engine failed on this request", "application/json", "Error");
    responses["400"] = response("A field is wrong, or not available", "application/json", "Error");
    responses["413"] = response("The body is too long", "application/json", "Error");
  }
  const bool guarded = route.access != Access::kOpen && !options.api_keys.empty();
  if (guarded) responses["401"] = response("No valid API key", "application/json", "Error");
  if (route.new_work) {
    responses["429"] = response("Too many requests: try again later", "application/json", "Error");
    responses["503"] = response("The server is shutting down", "application/json", "Error");
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
  if (guarded) json["security"] = Json::array({Json{{"key", Json::array()}}});
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
  schemas["Error"] = Json::parse(kErrorSchema);
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
