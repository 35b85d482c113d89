#pragma once
// The servers behind a proxy: which there are, how they fare, and which one gets the next request.
//
//   const auto url = nodes.choose({.model = "qwen", .prefix = first_bytes});
//   … the request runs at *url …
//   nodes.finished(*url, Outcome::kAnswered, seconds);
//
// A node that does not answer is left out until a check of its health (observe()) finds it well again; one that stays
// away for long is forgotten. Threads: any.

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace lanner::server {

enum class Routing : std::uint8_t {
  kRandom,              // drawn, with the speeds as weights
  kMinExpectedLatency,  // the least requests under way, divided by the speed
  kMinObservedLatency,  // the least mean of the last latencies; one that has none yet comes first
  kPrefixHash,          // requests that begin alike go to the same node, as long as it is not far busier than others
};

/// How a request ended at a node.
enum class Outcome : std::uint8_t {
  kAnswered,
  kBusy,      // it said that it takes nothing now
  kFailed,    // it did not answer
  kNoMatter,  // the client left, or the node broke off in the middle
};

struct Node {
  std::string url;  // "http://host:port"
  std::vector<std::string> models;
  std::string role = "Hybrid";
  std::optional<double> speed;
  // What the proxy has seen:
  std::int64_t unfinished = 0;
  std::deque<double> latencies;  // seconds, of the last answers
  bool healthy = true;
  std::chrono::steady_clock::time_point down_since;
};

class ProxyNodes {
 public:
  using Clock = std::chrono::steady_clock;

  ProxyNodes(Routing routing, std::chrono::seconds forget_after, std::uint64_t seed)
      : routing_(routing), forget_after_(forget_after), random_(seed) {}

  /// A node that is known already keeps what was seen of it. False when there are too many.
  bool add(const Node& node);
  bool remove(const std::string& url);

  struct Wish {
    std::string model;               // empty: any
    std::string prefix;              // how the prompt begins; of kPrefixHash alone
    std::vector<std::string> tried;  // nodes that are not to be chosen
  };
  /// A healthy node, which has one more request under way from now on; nothing when there is none.
  std::optional<std::string> choose(const Wish& wish);
  /// Whether choose() would find one.
  bool has_choice(const Wish& wish) const;
  void finished(const std::string& url, Outcome outcome, double seconds, Clock::time_point now);
  /// What a check of its health found.
  void observe(const std::string& url, bool healthy, Clock::time_point now);

  bool knows_model(std::string_view model) const;
  /// Of all nodes, each once, in alphabetical order.
  std::vector<std::string> models() const;
  std::vector<Node> nodes() const;

 private:
  bool fits(const Node& node, const Wish& wish) const;
  std::string best(const std::vector<const Node*>& candidates, const Wish& wish);
  std::string lightest(const std::vector<const Node*>& candidates, const std::vector<double>& weights);
  double usual_speed() const;

  const Routing routing_;
  const std::chrono::seconds forget_after_;
  mutable std::mutex mutex_;
  std::map<std::string, Node> nodes_;
  std::mt19937_64 random_;
};

}  // namespace lanner::server
