#include "server/proxy_nodes.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "core/fnv1a.h"

namespace lanner::server {
namespace {

constexpr std::size_t kMaxNodes = 1'024;
constexpr std::size_t kMaxLatencies = 15;
constexpr std::int64_t kEasyLoad = 4;  // requests that a node may always have, however few the others have
constexpr double kLoadBound = 1.25;    // times the mean load, before requests that begin alike are spread

/// Mixes all bits, as the finalizer of splitmix64 does.
std::uint64_t mixed(std::uint64_t value) {
  value = (value ^ (value >> 30U)) * 0xBF58476D1CE4E5B9ULL;
  value = (value ^ (value >> 27U)) * 0x94D049BB133111EBULL;
  return value ^ (value >> 31U);
}

/// Each node's claim on a prefix; a node that comes or goes moves only the prefixes that are its own.
std::uint64_t claim(const Node& node, std::string_view prefix) { return mixed(fnv1a(prefix, fnv1a(node.url))); }

double mean(const std::deque<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace

bool ProxyNodes::add(const Node& node) {
  const std::lock_guard lock(mutex_);
  if (!nodes_.contains(node.url) && nodes_.size() >= kMaxNodes) return false;
  Node& known = nodes_[node.url];
  known.url = node.url;
  known.models = node.models;
  known.role = node.role;
  known.speed = node.speed;
  known.healthy = true;
  return true;
}

bool ProxyNodes::remove(const std::string& url) {
  const std::lock_guard lock(mutex_);
  return nodes_.erase(url) > 0;
}

bool ProxyNodes::fits(const Node& node, const Wish& wish) const {
  if (!node.healthy || std::ranges::find(wish.tried, node.url) != wish.tried.end()) return false;
  return wish.model.empty() || std::ranges::find(node.models, wish.model) != node.models.end();
}

bool ProxyNodes::has_choice(const Wish& wish) const {
  const std::lock_guard lock(mutex_);
  return std::ranges::any_of(nodes_, [&](const auto& entry) { return fits(entry.second, wish); });
}

std::optional<std::string> ProxyNodes::choose(const Wish& wish) {
  const std::lock_guard lock(mutex_);
  std::vector<const Node*> candidates;
  for (const auto& [url, node] : nodes_) {
    if (fits(node, wish)) candidates.push_back(&node);
  }
  if (candidates.empty()) return std::nullopt;
  std::string url = best(candidates, wish);
  ++nodes_[url].unfinished;
  return url;
}

/// The mean of those that are known, else 1.
double ProxyNodes::usual_speed() const {
  double sum = 0;
  int known = 0;
  for (const auto& [url, node] : nodes_) {
    if (!node.speed) continue;
    sum += *node.speed;
    ++known;
  }
  return known > 0 ? sum / known : 1.0;
}

/// Of several with the same weight one is drawn.
std::string ProxyNodes::lightest(const std::vector<const Node*>& candidates, const std::vector<double>& weights) {
  const double least = *std::ranges::min_element(weights);
  std::vector<const Node*> best;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    if (weights[i] == least) best.push_back(candidates[i]);
  }
  return best[random_() % best.size()]->url;
}

std::string ProxyNodes::best(const std::vector<const Node*>& candidates, const Wish& wish) {
  const double usual = usual_speed();
  std::vector<double> weights;
  switch (routing_) {
    case Routing::kRandom: {
      for (const Node* node : candidates) weights.push_back(node->speed.value_or(usual));
      std::discrete_distribution<std::size_t> drawn(weights.begin(), weights.end());
      return candidates[drawn(random_)]->url;
    }
    case Routing::kMinObservedLatency:
      for (const Node* node : candidates) weights.push_back(node->latencies.empty() ? -1.0 : mean(node->latencies));
      return lightest(candidates, weights);
    case Routing::kPrefixHash: {
      std::int64_t load = 1;
      for (const Node* node : candidates) load += node->unfinished;
      const auto fair = std::ceil(kLoadBound * static_cast<double>(load) / static_cast<double>(candidates.size()));
      const std::int64_t most = std::max(kEasyLoad, static_cast<std::int64_t>(fair));
      std::vector<const Node*> ranking = candidates;
      std::ranges::sort(ranking,
                        [&](const Node* a, const Node* b) { return claim(*a, wish.prefix) > claim(*b, wish.prefix); });
      // Not all can be above the bound, which is above the mean.
      return (*std::ranges::find_if(ranking, [&](const Node* node) { return node->unfinished < most; }))->url;
    }
    case Routing::kMinExpectedLatency: break;
  }
  for (const Node* node : candidates) {
    weights.push_back(static_cast<double>(node->unfinished) / node->speed.value_or(usual));
  }
  return lightest(candidates, weights);
}

void ProxyNodes::finished(const std::string& url, Outcome outcome, double seconds, Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  const auto found = nodes_.find(url);
  if (found == nodes_.end()) return;
  Node& node = found->second;
  node.unfinished = std::max<std::int64_t>(node.unfinished - 1, 0);
  if (outcome == Outcome::kAnswered) {
    node.latencies.push_back(seconds);
    if (node.latencies.size() > kMaxLatencies) node.latencies.pop_front();
  } else if (outcome == Outcome::kFailed && node.healthy) {
    node.healthy = false;
    node.down_since = now;
  }
}

void ProxyNodes::observe(const std::string& url, bool healthy, Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  const auto found = nodes_.find(url);
  if (found == nodes_.end()) return;
  Node& node = found->second;
  if (node.healthy && !healthy) node.down_since = now;
  node.healthy = healthy;
  if (!healthy && now - node.down_since > forget_after_) nodes_.erase(found);
}

bool ProxyNodes::knows_model(std::string_view model) const {
  const std::lock_guard lock(mutex_);
  return std::ranges::any_of(nodes_, [&](const auto& entry) {
    return std::ranges::find(entry.second.models, model) != entry.second.models.end();
  });
}

std::vector<std::string> ProxyNodes::models() const {
  const std::lock_guard lock(mutex_);
  std::set<std::string> names;
  for (const auto& [url, node] : nodes_) names.insert(node.models.begin(), node.models.end());
  return {names.begin(), names.end()};
}

std::vector<Node> ProxyNodes::nodes() const {
  const std::lock_guard lock(mutex_);
  std::vector<Node> list;
  for (const auto& [url, node] : nodes_) list.push_back(node);
  return list;
}

}  // namespace lanner::server
