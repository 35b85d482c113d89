#include "engine/kv_blocks.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

namespace lanner {
namespace {

std::vector<std::int32_t> tokens_from(std::int32_t first, std::int64_t count) {
  std::vector<std::int32_t> tokens;
  for (std::int64_t i = 0; i < count; ++i) tokens.push_back(first + static_cast<std::int32_t>(i));
  return tokens;
}

/// Computes all of `tokens` in a fresh table.
KvBlocks::Table fill(KvBlocks& blocks, const std::vector<std::int32_t>& tokens) {
  KvBlocks::Table table;
  const auto count = static_cast<std::int64_t>(tokens.size());
  blocks.match(tokens, table);
  EXPECT_TRUE(blocks.extend(count, table));
  blocks.publish(tokens, count, table);
  return table;
}

TEST(KvBlocks, CountsWhatIsHandedOut) {
  KvBlocks blocks(4, true);
  KvBlocks::Table table;
  EXPECT_TRUE(blocks.extend(1, table));
  EXPECT_EQ(blocks.used(), 1);
  EXPECT_TRUE(blocks.extend(64, table));
  EXPECT_EQ(blocks.used(), 1);
  EXPECT_TRUE(blocks.extend(65, table));
  EXPECT_EQ(table.blocks().size(), 2U);
  EXPECT_FALSE(blocks.extend(5 * 64, table));
  EXPECT_EQ(table.blocks().size(), 2U);  // unchanged
  blocks.release(table);
  EXPECT_EQ(blocks.used(), 0);
  EXPECT_EQ(blocks.available(), 4);
}

TEST(KvBlocks, FindsWholeBlocksOfTheLongestBeginning) {
  KvBlocks blocks(8, true);
  KvBlocks::Table first = fill(blocks, tokens_from(0, 200));  // 3 full blocks and a part
  KvBlocks::Table second;
  EXPECT_EQ(blocks.match(tokens_from(0, 150), second), 128);
  EXPECT_EQ(second.blocks()[0], first.blocks()[0]);
  EXPECT_EQ(second.blocks()[1], first.blocks()[1]);
  KvBlocks::Table third;
  auto forked = tokens_from(0, 200);
  forked[100] = 7;
  EXPECT_EQ(blocks.match(forked, third), 64);
}

TEST(KvBlocks, TheLastTokenIsAlwaysComputed) {
  KvBlocks blocks(8, true);
  KvBlocks::Table first = fill(blocks, tokens_from(0, 128));
  KvBlocks::Table same;
  EXPECT_EQ(blocks.match(tokens_from(0, 128), same), 64);
  KvBlocks::Table longer;
  EXPECT_EQ(blocks.match(tokens_from(0, 129), longer), 128);
}

TEST(KvBlocks, TheSameBlockComputedTwiceIsKeptOnce) {
  KvBlocks blocks(8, true);
  const auto tokens = tokens_from(0, 128);
  KvBlocks::Table a;
  KvBlocks::Table b;
  ASSERT_TRUE(blocks.extend(128, a));
  ASSERT_TRUE(blocks.extend(128, b));
  blocks.publish(tokens, 128, a);
  EXPECT_EQ(blocks.used(), 4);
  blocks.publish(tokens, 128, b);
  EXPECT_EQ(blocks.used(), 2);
  EXPECT_EQ(a.blocks()[1], b.blocks()[1]);
}

TEST(KvBlocks, EvictsTheLeastRecentlyUsedLeafFirst) {
  KvBlocks blocks(4, true);
  KvBlocks::Table old = fill(blocks, tokens_from(0, 128));
  KvBlocks::Table recent = fill(blocks, tokens_from(1000, 128));
  blocks.release(old);
  blocks.release(recent);
  EXPECT_EQ(blocks.cached(), 4);
  KvBlocks::Table table;
  ASSERT_TRUE(blocks.extend(64, table));  // takes old's second block
  KvBlocks::Table again;
  EXPECT_EQ(blocks.match(tokens_from(0, 129), again), 64);
  KvBlocks::Table other;
  EXPECT_EQ(blocks.match(tokens_from(1000, 129), other), 128);
}

TEST(KvBlocks, ReferencedBlocksAreNotEvicted) {
  KvBlocks blocks(3, true);
  KvBlocks::Table running = fill(blocks, tokens_from(0, 128));
  KvBlocks::Table table;
  EXPECT_FALSE(blocks.extend(128, table));
  EXPECT_TRUE(blocks.extend(64, table));
  EXPECT_EQ(blocks.available(), 0);
}

TEST(KvBlocks, WithoutReuseNothingStays) {
  KvBlocks blocks(4, false);
  KvBlocks::Table table = fill(blocks, tokens_from(0, 128));
  blocks.release(table);
  EXPECT_EQ(blocks.cached(), 0);
  KvBlocks::Table again;
  EXPECT_EQ(blocks.match(tokens_from(0, 128), again), 0);
}

// Random sequences come, grow, publish and go; no block is ever in two places, and what a match returns was
// computed for exactly those tokens.
TEST(KvBlocks, KeepsItsInvariantsUnderRandomUse) {
  std::mt19937 random(7);
  KvBlocks blocks(40, true);
  struct Running {
    std::vector<std::int32_t> tokens;
    KvBlocks::Table table;
  };
  std::map<std::int32_t, std::vector<std::int32_t>> content;  // of a published block: its tokens and all before
  std::vector<std::unique_ptr<Running>> running;
  for (int round = 0; round < 20000; ++round) {
    if (running.size() < 6 && random() % 3 == 0) {
      auto sequence = std::make_unique<Running>();
      const std::size_t length = 1 + random() % 300;
      for (std::size_t i = 0; i < length; ++i) {  // few different beginnings, so that prefixes meet
        sequence->tokens.push_back(static_cast<std::int32_t>(i % 64 == 0 ? random() % 3 : i));
      }
      const std::int64_t matched = blocks.match(sequence->tokens, sequence->table);
      for (std::int64_t i = 0; i < matched / 64; ++i) {
        const auto end = sequence->tokens.begin() + (i + 1) * 64;
        ASSERT_EQ(content[sequence->table.blocks()[static_cast<std::size_t>(i)]],
                  std::vector<std::int32_t>(sequence->tokens.begin(), end));
      }
      if (blocks.extend(static_cast<std::int64_t>(length), sequence->table)) {
        running.push_back(std::move(sequence));
      } else {
        blocks.release(sequence->table);
      }
    } else if (!running.empty()) {
      const std::size_t index = random() % running.size();
      Running& sequence = *running[index];
      const auto length = static_cast<std::int64_t>(sequence.tokens.size());
      blocks.publish(sequence.tokens, length, sequence.table);
      for (std::int64_t i = 0; i < length / 64; ++i) {
        content[sequence.table.blocks()[static_cast<std::size_t>(i)]].assign(sequence.tokens.begin(),
                                                                             sequence.tokens.begin() + (i + 1) * 64);
      }
      if (random() % 2 == 0) {
        blocks.release(sequence.table);
        running.erase(running.begin() + static_cast<std::ptrdiff_t>(index));
      }
    }
    std::set<std::int32_t> used;
    for (const auto& sequence : running) used.insert(sequence->table.blocks().begin(), sequence->table.blocks().end());
    ASSERT_EQ(static_cast<std::int64_t>(used.size()), blocks.used());
  }
  for (const auto& sequence : running) blocks.release(sequence->table);
  EXPECT_EQ(blocks.used(), 0);
  EXPECT_EQ(blocks.available(), 40);
}

}  // namespace
}  // namespace lanner
