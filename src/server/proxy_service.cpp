#include "server/proxy_service.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <sstream>
#include <utility>

#include "core/mapped_file.h"
#include "core/random_bits.h"
#include "net/http_client.h"
#include "net/url.h"
#include "server/endpoints.h"
#include "server/fields.h"
#include "server/gate.h"
#include "server/generation_request.h"

namespace lanner::server {
namespace {

constexpr std::size_t kPrefixBytes = 512;  // by which requests count as alike
constexpr std::size_t kMaxModels = 256;    // of one node
constexpr std::size_t kMaxNameBytes = 512;
constexpr std::int64_t kMaxAnswerBytes = 4 << 20;  // of a node, to the proxy itself
constexpr std::size_t kMaxStateBytes = 4 << 20;

// LMDeploy's numbers.
constexpr int kModelNotFound = 10400;
constexpr int kUnavailable = 10401;
constexpr int kTimeout = 10402;

enum class Task : std::uint8_t { kHealth, kModels, kStatus, kAdd, kRemove, kTerminate, kTerminateAll, kForward };

struct ProxyRoute {
  std::string_view method;
  std::string_view path;
  Task task;
  Pace pace;
};

constexpr std::array kProxyRoutes{
    ProxyRoute{"GET", "/health", Task::kHealth, Pace::kAtOnce},
    ProxyRoute{"GET", "/v1/models", Task::kModels, Pace::kAtOnce},
    ProxyRoute{"GET", "/nodes/status", Task::kStatus, Pace::kAtOnce},
    ProxyRoute{"POST", "/nodes/add", Task::kAdd, Pace::kWaits},
    ProxyRoute{"POST", "/nodes/remove", Task::kRemove, Pace::kSoon},
    ProxyRoute{"POST", "/nodes/terminate", Task::kTerminate, Pace::kWaits},
    ProxyRoute{"GET", "/nodes/terminate_all", Task::kTerminateAll, Pace::kWaits},
    ProxyRoute{"POST", "/v1/chat/completions", Task::kForward, Pace::kSoon},
    ProxyRoute{"POST", "/v1/completions", Task::kForward, Pace::kSoon},
    ProxyRoute{"POST", "/v1/responses", Task::kForward, Pace::kSoon},
    ProxyRoute{"POST", "/v1/messages", Task::kForward, Pace::kSoon},
    ProxyRoute{"POST", "/v1/messages/count_tokens", Task::kForward, Pace::kSoon},
    ProxyRoute{"POST", "/v1/embeddings", Task::kForward, Pace::kSoon},
    ProxyRoute{"POST", "/pooling", Task::kForward, Pace::kSoon},
    ProxyRoute{"POST", "/generate", Task::kForward, Pace::kSoon},
    ProxyRoute{"POST", "/get_ppl", Task::kForward, Pace::kSoon},
    ProxyRoute{"POST", "/v1/encode", Task::kForward, Pace::kSoon},
    ProxyRoute{"POST", "/tokenize", Task::kForward, Pace::kSoon},
    ProxyRoute{"POST", "/detokenize", Task::kForward, Pace::kSoon},
};

const ProxyRoute* find_proxy_route(std::string_view method, std::string_view path) {
  const std::string_view wanted = method == "HEAD" ? "GET" : method;
  const auto* const found = std::ranges::find_if(
      kProxyRoutes, [&](const ProxyRoute& route) { return route.method == wanted && route.path == path; });
  return found == kProxyRoutes.end() ? nullptr : &*found;
}

HttpReply proxy_error(int status, int number, const std::string& message, const std::string& code) {
  Json body = error_body(plain_refusal(status, message, code));
  body["error_code"] = number;
  body["text"] = message;
  HttpReply reply = json_reply(body);
  reply.status = status;
  if (status == 503) reply.headers = {{"Retry-After", "1"}};
  return reply;
}

/// Of a request: those that the proxy does not write itself.
bool is_sent_on(std::string_view name) {
  constexpr std::array kOwn{"proxy-authorization", "proxy-connection", "host", "expect", "x-forwarded-for",
                            "x-forwarded-host",    "x-forwarded-proto"};
  return !is_written_anew(name) && std::ranges::find(kOwn, name) == kOwn.end();
}

Headers sent_on(const HttpRequest& request) {
  Headers headers;
  for (const auto& header : request.headers) {
    if (is_sent_on(header.first)) headers.push_back(header);
  }
  const std::string_view before = request.header("x-forwarded-for");
  headers.emplace_back("X-Forwarded-For", before.empty() ? request.peer : fmt::format("{}, {}", before, request.peer));
  headers.emplace_back("X-Forwarded-Host", std::string(request.header("host")));
  headers.emplace_back("X-Forwarded-Proto", "http");
  headers.emplace_back("X-Request-Id", request.id);
  return headers;
}

/// How the prompt begins, whatever the protocol calls it.
std::string prefix_of(const Json& body) {
  std::string prefix;
  for (const char* name : {"system", "instructions", "messages", "prompt", "input", "input_ids"}) {
    const Json* value = find(body, name);
    if (value == nullptr || prefix.size() >= kPrefixBytes) continue;
    prefix += value->is_string() ? value->get_ref<const std::string&>() : to_text(*value);
  }
  prefix.resize(std::min(prefix.size(), kPrefixBytes));
  return prefix;
}

/// "http://host:port" of what a user or a server calls itself.
Result<std::string> node_url(const Json& body) {
  const Json* given = find(body, "url");
  if (given == nullptr || !given->is_string()) return invalid_argument("url: must be a string");
  LANNER_ASSIGN_OR_RETURN(const net::Url url, net::parse_url(given->get<std::string>()));
  if (url.https) return Status(StatusCode::kUnsupported, "url: nodes are reached by http:// alone");
  if (url.target != "/") return invalid_argument("url: must be a server's address without a path");
  return fmt::format("http://{}", url.authority());
}

Result<std::vector<std::string>> model_names(const Json& list, const std::string& where) {
  std::vector<std::string> names;
  if (!list.is_array() || list.size() > kMaxModels) {
    return invalid_argument(fmt::format("{}: must be a list of at most {}", where, kMaxModels));
  }
  for (const Json& name : list) {
    if (!name.is_string() || name.get_ref<const std::string&>().size() > kMaxNameBytes) {
      return invalid_argument(fmt::format("{}: must be names of at most {} bytes", where, kMaxNameBytes));
    }
    names.push_back(name.get<std::string>());
  }
  return names;
}

/// What `status` says of a node; its models only where they are given.
Result<Node> read_node(const Json& body) {
  Node node;
  LANNER_ASSIGN_OR_RETURN(node.url, node_url(body));
  const Json* status = find(body, "status");
  if (status == nullptr) return node;
  if (!status->is_object()) return invalid_argument("status: must be an object");
  if (const Json* models = find(*status, "models")) {
    LANNER_ASSIGN_OR_RETURN(node.models, model_names(*models, "status.models"));
  }
  if (const Json* role = find(*status, "role"); role != nullptr && role->is_string()) {
    node.role = role->get<std::string>().substr(0, kMaxNameBytes);
  }
  if (const Json* speed = find(*status, "speed"); speed != nullptr && speed->is_number()) {
    if (speed->get<double>() <= 0) return invalid_argument("status.speed: must be above 0");
    node.speed = speed->get<double>();
  }
  return node;
}

Json node_json(const Node& node) {
  return {{"models", node.models},
          {"role", node.role},
          {"unfinished", node.unfinished},
          {"latency", std::vector<double>(node.latencies.begin(), node.latencies.end())},
          {"speed", node.speed ? Json(*node.speed) : Json()},
          {"healthy", node.healthy}};
}

net::HttpClientOptions node_client() {
  return {.connect_timeout = std::chrono::milliseconds(3'000),
          .head_timeout = std::chrono::milliseconds(5'000),
          .idle_timeout = std::chrono::milliseconds(5'000),
          .max_redirects = 0};
}

Result<std::vector<std::string>> ask_models(const std::string& url, std::string_view authorization) {
  const auto client = net::make_http_client(node_client());
  LANNER_ASSIGN_OR_RETURN(
      const net::HttpResponse answer,
      net::fetch(*client, {.url = url + "/v1/models", .authorization = std::string(authorization)}, kMaxAnswerBytes));
  if (answer.head.status != 200) {
    return io_error(fmt::format("{}/v1/models answers with {}", url, answer.head.status));
  }
  LANNER_ASSIGN_OR_RETURN(const Json body, parse_json(answer.body));
  Json ids = Json::array();
  const Json* data = body.is_object() ? find(body, "data") : nullptr;
  if (data != nullptr && data->is_array()) {
    for (const Json& card : *data) ids.push_back(card.is_object() ? card.value("id", Json()) : Json());
  }
  return model_names(ids, url + "/v1/models");
}

}  // namespace

ProxyService::ProxyService(ProxyOptions options)
    : options_(std::move(options)),
      key_digests_(key_digests(options_.api_keys)),
      nodes_(options_.routing, options_.forget_after, random_bits()),
      upstreams_(options_.upstream) {
  load_state();
  watcher_ = std::thread([this] { watch_nodes(); });
}

ProxyService::~ProxyService() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stopping_changed_.notify_all();
  watcher_.join();
}

void ProxyService::tell(const std::string& line) const {
  if (options_.tell) options_.tell(line);
}

bool ProxyService::wait(std::chrono::milliseconds time) {
  std::unique_lock lock(mutex_);
  stopping_changed_.wait_for(lock, time, [this] { return stopping_.load(); });
  return !stopping_;
}

void ProxyService::watch_nodes() {
  const auto client = net::make_http_client(node_client());
  do {
    const std::vector<Node> nodes = nodes_.nodes();
    for (const Node& node : nodes) {
      const auto answer = net::fetch(*client, {.url = node.url + "/health", .cancelled = &stopping_}, kMaxAnswerBytes);
      if (stopping_) return;
      const bool healthy = answer.ok() && answer->head.status == 200;
      if (healthy != node.healthy) tell(fmt::format("{} {}", node.url, healthy ? "is back" : "does not answer"));
      nodes_.observe(node.url, healthy, ProxyNodes::Clock::now());
    }
    if (nodes_.nodes().size() < nodes.size()) save_state();
  } while (wait(options_.health_interval));
}

void ProxyService::load_state() {
  if (options_.state_file.empty()) return;
  std::ifstream file(options_.state_file, std::ios::binary);
  if (!file) return;  // the first start
  std::string text(kMaxStateBytes, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(file.gcount()));
  const auto state = parse_json(text);
  if (!state.ok() || !state->is_object()) {
    tell(fmt::format("{} is not what a proxy wrote, and ignored", options_.state_file.string()));
    return;
  }
  for (const auto& [url, status] : state->items()) {
    const auto node = read_node({{"url", url}, {"status", status}});
    if (node.ok()) nodes_.add(*node);
  }
}

void ProxyService::save_state() {
  if (options_.state_file.empty()) return;
  const std::lock_guard lock(state_mutex_);
  Json state = Json::object();
  for (const Node& node : nodes_.nodes()) {
    state[node.url] = {{"models", node.models}, {"role", node.role}};
    if (node.speed) state[node.url]["speed"] = *node.speed;
  }
  const Status status = write_file_atomically(options_.state_file.string(), to_text(state) + "\n");
  if (!status.ok()) tell(fmt::format("the nodes are not kept: {}", status.message()));
}

std::optional<HttpReply> ProxyService::screen(HttpRequest& head) {
  const std::string_view given_id = head.header("x-request-id");
  head.id = is_request_id(given_id) ? std::string(given_id) : random_id("req-");
  if (options_.check_host && !names_this_machine(head))
    return refuse(403, "the Host of the request is not this machine");
  const ProxyRoute* route = find_proxy_route(head.method, head.path);
  const bool open = route != nullptr && route->task == Task::kHealth;
  if (!open && !key_digests_.empty() && !has_key(head, key_digests_)) return refuse(401, "Unauthorized.");
  if (route == nullptr)
    return refuse(404, fmt::format("the proxy has no {} {}", head.method, head.path.substr(0, 200)));
  return std::nullopt;
}

Pace ProxyService::pace(const HttpRequest& request) const {
  const ProxyRoute* route = find_proxy_route(request.method, request.path);
  return route == nullptr ? Pace::kAtOnce : route->pace;
}

HttpReply ProxyService::handle(const HttpRequest& request) {
  const ProxyRoute* route = find_proxy_route(request.method, request.path);
  if (route == nullptr) return refuse(404, "there is no such route");
  const auto all_urls = [&] {
    std::vector<std::string> urls;
    for (const Node& node : nodes_.nodes()) urls.push_back(node.url);
    return urls;
  };
  switch (route->task) {
    case Task::kHealth: return json_reply({{"status", "healthy"}, {"message", ""}});
    case Task::kModels: return list_models();
    case Task::kStatus: return show_nodes();
    case Task::kTerminateAll: return terminate(all_urls(), request);
    default: break;
  }
  const auto body = parse_json(request.body);
  if (!body.ok()) return to_reply(refusal_of(body.status()));
  if (!body->is_object()) return refuse(400, "the body must be a JSON object");
  if (route->task == Task::kForward) return forward(request, *body);
  if (route->task == Task::kAdd) return add_node(*body, request);
  if (route->task == Task::kRemove) return remove_node(*body);
  const auto url = node_url(*body);
  if (!url.ok()) return to_reply(refusal_of(url.status()));
  return terminate({*url}, request);
}

HttpReply ProxyService::forward(const HttpRequest& request, const Json& body) {
  const Json* model = find(body, "model");
  if (model != nullptr && !model->is_string()) return to_reply(bad_field("model", "must be a string"));
  struct State {
    ProxyNodes::Wish wish;
    ProxyNodes::Clock::time_point begin;
  };
  const auto state = std::make_shared<State>();
  state->wish.model = model == nullptr ? "" : model->get<std::string>();
  if (!state->wish.model.empty() && !nodes_.knows_model(state->wish.model)) {
    return proxy_error(404, kModelNotFound,
                       fmt::format("The model '{}' does not exist.", state->wish.model.substr(0, 200)),
                       "model_not_found");
  }
  if (options_.routing == Routing::kPrefixHash) state->wish.prefix = prefix_of(body);
  UpstreamPlan plan;
  plan.method = request.method;
  plan.target = request.query.empty() ? request.path : request.path + "?" + request.query;
  plan.headers = sent_on(request);
  plan.body = request.body;
  plan.next = [this, state] {
    std::optional<std::string> node = nodes_.choose(state->wish);
    if (node) state->wish.tried.push_back(*node);
    state->begin = ProxyNodes::Clock::now();
    return node;
  };
  plan.has_next = [this, state] { return nodes_.has_choice(state->wish); };
  plan.ended = [this, state](const std::string& node, Outcome outcome) {
    const auto now = ProxyNodes::Clock::now();
    nodes_.finished(node, outcome, std::chrono::duration<double>(now - state->begin).count(), now);
    if (outcome == Outcome::kFailed) tell(fmt::format("{} does not answer", node));
  };
  static const HttpReply kUnreachable =
      proxy_error(503, kUnavailable, "no server behind the proxy takes this request", "unavailable");
  static const HttpReply kTooLate = proxy_error(504, kTimeout, "the server behind the proxy takes too long", "timeout");
  plan.unreachable = kUnreachable;
  plan.too_late = kTooLate;
  return upstreams_.forward(std::move(plan));
}

HttpReply ProxyService::list_models() const {
  Json data = Json::array();
  for (const std::string& name : nodes_.models()) {
    data.push_back({{"id", name},
                    {"object", "model"},
                    {"created", 0},
                    {"owned_by", "lanner"},
                    {"root", name},
                    {"parent", nullptr}});
  }
  return json_reply({{"object", "list"}, {"data", std::move(data)}});
}

HttpReply ProxyService::show_nodes() const {
  Json json = Json::object();
  for (const Node& node : nodes_.nodes()) json[node.url] = node_json(node);
  return json_reply(json);
}

HttpReply ProxyService::add_node(const Json& body, const HttpRequest& request) {
  auto node = read_node(body);
  if (!node.ok()) return to_reply(refusal_of(node.status()));
  if (node->models.empty()) {
    auto models = ask_models(node->url, request.header("authorization"));
    if (!models.ok()) return refuse(400, fmt::format("url: {}", models.status().message()));
    node->models = *std::move(models);
  }
  if (!nodes_.add(*node)) return refuse(429, "there are too many nodes");
  save_state();
  HttpReply reply;
  reply.body = "\"Added successfully\"";
  return reply;
}

HttpReply ProxyService::remove_node(const Json& body) {
  const auto url = node_url(body);
  if (!url.ok()) return to_reply(refusal_of(url.status()));
  if (!nodes_.remove(*url)) return refuse(404, fmt::format("{} is no node", *url));
  save_state();
  HttpReply reply;
  reply.body = "\"Deleted successfully\"";
  return reply;
}

/// The nodes decide themselves whether the caller's key lets it end them.
HttpReply ProxyService::terminate(const std::vector<std::string>& urls, const HttpRequest& request) {
  const auto client = net::make_http_client(node_client());
  const std::vector<Node> known = nodes_.nodes();
  std::string failures;
  for (const std::string& url : urls) {
    if (std::ranges::find(known, url, &Node::url) == known.end()) return refuse(404, fmt::format("{} is no node", url));
    const auto answer =
        net::fetch(*client, {.url = url + "/terminate", .authorization = std::string(request.header("authorization"))},
                   kMaxAnswerBytes);
    if (answer.ok() && answer->head.status == 200) {
      nodes_.remove(url);
      continue;
    }
    failures += fmt::format("{}{}: {}", failures.empty() ? "" : "; ", url,
                            answer.ok() ? fmt::format("status {}", answer->head.status) : answer.status().message());
  }
  save_state();
  if (!failures.empty()) return refuse(502, failures);
  HttpReply reply;
  reply.body = "\"Terminated successfully\"";
  return reply;
}

HttpReply ProxyService::refuse(int status, const std::string& message) {
  Refusal refusal{.status = status, .type = error_type(status), .message = message};
  if (status == 401) refusal.headers = {{"WWW-Authenticate", "Bearer"}};
  if (status == 503) refusal.headers = {{"Retry-After", "1"}};
  return to_reply(refusal);
}

Headers ProxyService::common_headers(const HttpRequest& request) const {
  Headers headers{{"X-Content-Type-Options", "nosniff"}};
  if (!request.id.empty()) headers.emplace_back("X-Request-Id", request.id);
  return headers;
}

void ProxyService::finished(const HttpRequest& request, const HttpOutcome& outcome) {
  if (options_.log) options_.log(access_line(request, outcome));
}

}  // namespace lanner::server
