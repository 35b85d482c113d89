#pragma once
// Who owns which KV block: the free ones, those of running sequences, and those kept for reuse.
//
// Full blocks form a radix tree over token ids: a node is one block of 64 tokens under the blocks before it, so a path
// from the root is a prompt's beginning. A sequence holds a reference on every node of its path; nodes without a
// reference stay cached until their block is needed, least recently used leaves first.
//
// Invariants:
//   1. A block is in exactly one place: free, private to one table, or in one node.
//   2. A node that is referenced has only referenced ancestors; so whatever is unreferenced can be evicted, leaf by
//   leaf.
//   3. free + private + nodes = all blocks.
//
// Used by the engine's thread alone.

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <vector>

#include "ops/kv_cache.h"

namespace lanner {

class KvBlocks {
 private:
  struct Node;

 public:
  /// The blocks of one sequence, in order. The first nodes_.size() of them are shared, the rest private.
  class Table {
   public:
    std::span<const std::int32_t> blocks() const { return blocks_; }

   private:
    friend class KvBlocks;
    std::vector<std::int32_t> blocks_;
    std::vector<Node*> nodes_;
  };

  /// keep_finished: whether full blocks stay for reuse after their sequence has ended.
  KvBlocks(std::int64_t count, bool keep_finished);
  ~KvBlocks();
  KvBlocks(const KvBlocks&) = delete;
  KvBlocks& operator=(const KvBlocks&) = delete;

  static std::int64_t blocks_for(std::int64_t tokens) {
    return (tokens + ops::kKvBlockTokens - 1) / ops::kKvBlockTokens;
  }

  /// Fills an empty table with the longest cached beginning of `tokens` and returns how many tokens that is: whole
  /// blocks, and fewer than all tokens, since the last one is always computed.
  std::int64_t match(std::span<const std::int32_t> tokens, Table& table);
  /// Makes the table cover `tokens` tokens, evicting cached blocks where needed. False, with the table unchanged, when
  /// there are not enough.
  bool extend(std::int64_t tokens, Table& table);
  /// Puts the blocks that the first `computed` tokens fill into the tree.
  void publish(std::span<const std::int32_t> tokens, std::int64_t computed, Table& table);
  /// Gives everything back; the table is empty afterwards.
  void release(Table& table);

  /// Blocks that extend() could hand out now: free ones and evictable ones.
  std::int64_t available() const { return static_cast<std::int64_t>(free_.size()) + unreferenced_; }
  std::int64_t cached() const { return unreferenced_; }
  std::int64_t used() const { return total_ - available(); }

 private:
  using Key = std::array<std::int32_t, ops::kKvBlockTokens>;
  struct Node {
    Node* parent = nullptr;
    const Key* key = nullptr;  // in the parent's map
    std::int32_t block = 0;
    std::int32_t references = 0;
    std::uint64_t last_used = 0;
    std::map<Key, std::unique_ptr<Node>> children;
  };

  static Key key_at(std::span<const std::int32_t> tokens, std::size_t block);
  void reference(Node& node);
  void dereference(Node& node);
  void evict_one();
  bool evictable(const Node& node) const { return node.references == 0 && node.children.empty(); }

  const std::int64_t total_;
  const bool keep_finished_;
  std::vector<std::int32_t> free_;
  Node root_;
  std::set<std::pair<std::uint64_t, Node*>> leaves_;  // evictable nodes by last use
  std::int64_t unreferenced_ = 0;                     // nodes with no reference, leaves or not
  std::uint64_t clock_ = 0;
};

}  // namespace lanner
