// The page at /: the same table for people. One file without scripts, which works offline.

#include <fmt/format.h>

#include <string>

#include "core/escape_markup.h"
#include "lanner/version.h"
#include "server/routes.h"

namespace lanner::server {
namespace {

constexpr std::string_view kStyle = R"(
:root { color-scheme: light dark; --line: #8885; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
pre { background: var(--soft); padding: 1rem; border-radius: .5rem; overflow-x: auto; }
code { font-family: ui-monospace, monospace; font-size: .92em; }
details { border: 1px solid var(--line); border-radius: .5rem; margin: .6rem 0; padding: .5rem .9rem; }
summary { cursor: pointer; }
table { border-collapse: collapse; width: 100%; margin: .6rem 0; display: block; overflow-x: auto; }
td, th { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0; border-top: 1px solid var(--line); }
.method { display: inline-block; min-width: 3.2rem; font-weight: 600; }
)";

const char* kind_name(FieldKind kind) {
  switch (kind) {
    case FieldKind::kBoolean: return "true or false";
    case FieldKind::kInteger: return "whole number";
    case FieldKind::kNumber: return "number";
    case FieldKind::kString: return "string";
    case FieldKind::kStrings:
    case FieldKind::kStops: return "string or strings";
    case FieldKind::kTokens: return "token ids";
    case FieldKind::kPrompt: return "text, token ids, or a list of either";
    case FieldKind::kMessages: return "messages";
    case FieldKind::kTalk: return "string or messages";
    case FieldKind::kItems: return "text or objects";
    case FieldKind::kObject: return "object";
    case FieldKind::kChoice: return "string or object";
    case FieldKind::kList: return "list";
    case FieldKind::kBiases: return "object of token ids";
  }
  return "";
}

std::string range_of(const Field& field) {
  const bool number = field.kind == FieldKind::kInteger || field.kind == FieldKind::kNumber;
  constexpr double kTooMuchToSay = 1 << 30;
  if (field.only != nullptr) return fmt::format(", one of {}", field.only);
  if (!number || (field.low == 0 && field.high == 0)) return "";
  if (field.high >= kTooMuchToSay) return fmt::format(", at least {}", field.low);
  return fmt::format(", {} to {}", field.low, field.high);
}

std::string route_section(const Route& route) {
  std::string html = fmt::format("<details><summary><span class=\"method\">{}</span> <code>{}</code> {}</summary>",
                                 route.method, route.path, escape_markup(route.summary));
  if (route.fields != nullptr) {
    html += "<table><tr><th>Field</th><th>Value</th><th>Meaning</th></tr>";
    for (const Fields table : route.fields()) {
      for (const Field& field : table) {
        html += fmt::format("<tr><td><code>{}</code></td><td>{}{}{}</td><td>{}</td></tr>", field.name,
                            kind_name(field.kind), escape_markup(range_of(field)), field.required ? ", required" : "",
                            escape_markup(field.text));
      }
    }
    html += "</table>";
  } else {
    html += "<p>Takes no body.</p>";
  }
  return html + "</details>\n";
}

}  // namespace

std::string docs_page(const ServiceOptions& options, std::string_view host) {
  const std::string address = options.scheme + "://" + escape_markup(host.empty() ? "ADDRESS" : host);
  const std::string model = escape_markup(options.model_name);
  const char* key = options.api_keys.empty() ? "" : " \\\n  -H 'Authorization: Bearer YOUR_KEY'";
  std::string html = fmt::format(
      "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\"><title>Lanner: {0}</title><style>{1}</style></head><body>"
      "<h1>Lanner</h1><p>Version {2}, serving <strong>{0}</strong>. Programs read this page as <a "
      "href=\"/openapi.json\">/openapi.json</a>; <a href=\"/chat\">/chat</a> is a page to chat on.</p><h2>Try "
      "it</h2><pre><code>curl "
      "{4}/v1/chat/completions{3} \\\n  -H 'Content-Type: application/json' \\\n  -d '{{\"model\": \"{0}\", "
      "\"messages\": [{{\"role\": \"user\", \"content\": \"Hello\"}}]}}'</code></pre>"
      "<p>The official clients of OpenAI work with <code>base_url=\"{4}/v1\"</code>.</p>",
      model, kStyle, escape_markup(version()), key, address);
  std::string_view group;
  for (const Route& route : routes()) {
    if (find_route(route.method, route.path, options) == nullptr) continue;
    if (group != route.group) {
      group = route.group;
      html += fmt::format("<h2>{}</h2>\n", group);
    }
    html += route_section(route);
  }
  html +=
      "<h2>Errors</h2><p>What is refused says why: <code>{\"error\": {\"message\", \"type\", \"param\", "
      "\"code\"}}</code>, with the HTTP status 400, 401, 404, 405, 413, 429 or 503. Fields that are not in the "
      "tables above are refused, too.</p></body></html>\n";
  return html;
}

}  // namespace lanner::server
