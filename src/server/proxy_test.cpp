// Which node a proxy chooses.

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

#include "server/proxy_nodes.h"

namespace lanner::server {
namespace {

using std::chrono::seconds;
using Clock = ProxyNodes::Clock;

Node node(const std::string& url, std::optional<double> speed = std::nullopt, const std::string& model = "m") {
  return {.url = url, .models = {model}, .speed = speed};
}

TEST(ProxyNodes, KnowModels) {
  ProxyNodes nodes(Routing::kRandom, seconds(900), 7);
  EXPECT_FALSE(nodes.choose({.model = ""}));
  nodes.add(node("a", {}, "one"));
  nodes.add(node("b", {}, "two"));
  EXPECT_TRUE(nodes.knows_model("two"));
  EXPECT_FALSE(nodes.knows_model("three"));
  EXPECT_EQ(nodes.models(), (std::vector<std::string>{"one", "two"}));
  for (int i = 0; i < 20; ++i) EXPECT_EQ(nodes.choose({.model = "two"}), "b");
  EXPECT_FALSE(nodes.choose({.model = "two", .tried = {"b"}}));
  EXPECT_FALSE(nodes.choose({.model = "three"}));
  EXPECT_TRUE(nodes.remove("b"));
  EXPECT_FALSE(nodes.remove("b"));
  EXPECT_FALSE(nodes.has_choice({.model = "two"}));
}

TEST(ProxyNodes, DrawWithTheirSpeedsAsWeights) {
  ProxyNodes nodes(Routing::kRandom, seconds(900), 7);
  nodes.add(node("slow", 1));
  nodes.add(node("fast", 3));
  std::map<std::string, int> counts;
  for (int i = 0; i < 4000; ++i) ++counts[*nodes.choose({})];
  EXPECT_NEAR(counts["fast"], 3000, 150);
}

TEST(ProxyNodes, ExpectTheLeastLatencyWhereFewestAreUnderWay) {
  ProxyNodes nodes(Routing::kMinExpectedLatency, seconds(900), 7);
  nodes.add(node("slow", 1));
  nodes.add(node("fast", 3));
  std::map<std::string, int> counts;
  for (int i = 0; i < 40; ++i) ++counts[*nodes.choose({})];
  EXPECT_EQ(counts["slow"], 10);
  EXPECT_EQ(counts["fast"], 30);
  for (int i = 0; i < 20; ++i) nodes.finished("fast", Outcome::kAnswered, 1, Clock::now());
  EXPECT_EQ(nodes.choose({}), "fast");
}

TEST(ProxyNodes, TieIsDrawn) {
  std::set<std::string> seen;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    ProxyNodes nodes(Routing::kMinExpectedLatency, seconds(900), seed);
    nodes.add(node("a"));
    nodes.add(node("b"));
    seen.insert(*nodes.choose({}));
  }
  EXPECT_EQ(seen.size(), 2U);
}

TEST(ProxyNodes, ObserveLatenciesOfTheLastAnswersAlone) {
  ProxyNodes nodes(Routing::kMinObservedLatency, seconds(900), 7);
  nodes.add(node("a"));
  nodes.add(node("b"));
  nodes.finished("a", Outcome::kAnswered, 1, Clock::now());
  EXPECT_EQ(nodes.choose({}), "b");  // of which nothing is known
  nodes.finished("b", Outcome::kAnswered, 5, Clock::now());
  EXPECT_EQ(nodes.choose({}), "a");
  for (int i = 0; i < 15; ++i) nodes.finished("b", Outcome::kAnswered, 0.1, Clock::now());
  EXPECT_EQ(nodes.choose({}), "b");  // the 5 seconds are forgotten
}

TEST(ProxyNodes, KeepPrefixesTogether) {
  ProxyNodes nodes(Routing::kPrefixHash, seconds(900), 7);
  for (const char* url : {"a", "b", "c", "d"}) nodes.add(node(url));
  std::map<std::string, std::string> place;
  std::map<std::string, int> counts;
  for (int i = 0; i < 200; ++i) {
    const std::string prefix = "prompt " + std::to_string(i);
    place[prefix] = *nodes.choose({.prefix = prefix});
    nodes.finished(place[prefix], Outcome::kAnswered, 1, Clock::now());
    ++counts[place[prefix]];
  }
  for (const auto& [url, count] : counts) EXPECT_NEAR(count, 50, 25) << url;
  nodes.add(node("e"));
  nodes.remove("b");
  for (const auto& [prefix, before] : place) {
    const std::string now = *nodes.choose({.prefix = prefix});
    nodes.finished(now, Outcome::kAnswered, 1, Clock::now());
    EXPECT_TRUE(now == before || before == "b" || now == "e") << prefix << " " << before << " " << now;
  }
}

TEST(ProxyNodes, SpreadAPrefixThatIsTooBusy) {
  ProxyNodes nodes(Routing::kPrefixHash, seconds(900), 7);
  for (const char* url : {"a", "b", "c", "d"}) nodes.add(node(url));
  std::map<std::string, int> counts;
  for (int i = 0; i < 100; ++i) ++counts[*nodes.choose({.prefix = "the same"})];
  EXPECT_EQ(counts.size(), 4U);
  for (const auto& [url, count] : counts) EXPECT_LE(count, 33) << url;
}

TEST(ProxyNodes, AreLeftOutUntilTheyAreWell) {
  ProxyNodes nodes(Routing::kMinExpectedLatency, seconds(900), 7);
  const auto start = Clock::now();
  nodes.add(node("a"));
  nodes.add(node("b"));
  const std::string first = *nodes.choose({});
  nodes.finished(first, Outcome::kFailed, 1, start);
  const std::string other = first == "a" ? "b" : "a";
  for (int i = 0; i < 20; ++i) EXPECT_EQ(nodes.choose({}), other);
  nodes.observe(first, false, start + seconds(10));
  EXPECT_EQ(nodes.choose({}), other);
  nodes.observe(first, true, start + seconds(20));
  EXPECT_EQ(nodes.choose({}), first);  // which has less under way
  nodes.finished(first, Outcome::kBusy, 1, start);
  EXPECT_EQ(nodes.choose({}), first);  // busy is not ill
  nodes.observe(first, false, start + seconds(100));
  nodes.observe(first, false, start + seconds(999));
  EXPECT_EQ(nodes.nodes().size(), 2U);
  nodes.observe(first, false, start + seconds(1001));  // away for more than 900 seconds
  EXPECT_EQ(nodes.nodes().size(), 1U);
}

}  // namespace
}  // namespace lanner::server
