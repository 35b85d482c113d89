#include "engine/kv_blocks.h"

#include <algorithm>
#include <numeric>

#include "core/check.h"

namespace lanner {

KvBlocks::KvBlocks(std::int64_t count, bool keep_finished) : total_(count), keep_finished_(keep_finished) {
  free_.resize(static_cast<std::size_t>(count));
  std::iota(free_.rbegin(), free_.rend(), 0);  // the lowest first, so that a small load touches little memory
}

KvBlocks::~KvBlocks() {
  while (!leaves_.empty()) evict_one();  // from the leaves up: a long context is too deep a tree for recursion
}

KvBlocks::Key KvBlocks::key_at(std::span<const std::int32_t> tokens, std::size_t block) {
  Key key;
  std::copy_n(tokens.begin() + static_cast<std::ptrdiff_t>(block * key.size()), key.size(), key.begin());
  return key;
}

void KvBlocks::reference(Node& node) {
  if (evictable(node)) leaves_.erase({node.last_used, &node});
  if (node.references++ == 0) --unreferenced_;
  node.last_used = ++clock_;
}

void KvBlocks::dereference(Node& node) {
  LANNER_CHECK(node.references > 0);
  if (--node.references > 0) return;
  ++unreferenced_;
  if (evictable(node)) leaves_.insert({node.last_used, &node});
}

std::int64_t KvBlocks::match(std::span<const std::int32_t> tokens, Table& table) {
  LANNER_CHECK(table.blocks_.empty());
  Node* node = &root_;
  for (std::size_t block = 0; (block + 1) * ops::kKvBlockTokens < tokens.size(); ++block) {
    const auto child = node->children.find(key_at(tokens, block));
    if (child == node->children.end()) break;
    node = child->second.get();
    reference(*node);
    table.blocks_.push_back(node->block);
    table.nodes_.push_back(node);
  }
  return static_cast<std::int64_t>(table.blocks_.size()) * ops::kKvBlockTokens;
}

bool KvBlocks::extend(std::int64_t tokens, Table& table) {
  const std::int64_t missing = blocks_for(tokens) - static_cast<std::int64_t>(table.blocks_.size());
  if (missing > available()) return false;
  for (std::int64_t i = 0; i < missing; ++i) {
    if (free_.empty()) evict_one();
    table.blocks_.push_back(free_.back());
    free_.pop_back();
  }
  return true;
}

void KvBlocks::evict_one() {
  LANNER_CHECK(!leaves_.empty());
  Node* node = leaves_.begin()->second;
  leaves_.erase(leaves_.begin());
  free_.push_back(node->block);
  --unreferenced_;
  Node* parent = node->parent;
  parent->children.erase(*node->key);
  if (parent != &root_ && evictable(*parent)) leaves_.insert({parent->last_used, parent});
}

void KvBlocks::publish(std::span<const std::int32_t> tokens, std::int64_t computed, Table& table) {
  if (!keep_finished_) return;
  const auto full = static_cast<std::size_t>(computed / ops::kKvBlockTokens);
  while (table.nodes_.size() < full) {
    const std::size_t index = table.nodes_.size();
    Node* parent = index == 0 ? &root_ : table.nodes_.back();
    const auto [place, inserted] = parent->children.try_emplace(key_at(tokens, index), nullptr);
    if (inserted) {
      place->second = std::make_unique<Node>();
      place->second->parent = parent;
      place->second->key = &place->first;
      place->second->block = table.blocks_[index];
      ++unreferenced_;  // until reference() below; it is no leaf to evict in between
    } else {
      // Another sequence computed the same tokens meanwhile: share its block, give ours back.
      if (evictable(*place->second)) leaves_.erase({place->second->last_used, place->second.get()});
      free_.push_back(table.blocks_[index]);
      table.blocks_[index] = place->second->block;
    }
    Node& node = *place->second;
    if (node.references++ == 0) --unreferenced_;
    node.last_used = ++clock_;
    table.nodes_.push_back(&node);
  }
}

void KvBlocks::release(Table& table) {
  for (std::size_t i = table.nodes_.size(); i < table.blocks_.size(); ++i) free_.push_back(table.blocks_[i]);
  // From the end, so that a parent becomes a leaf candidate after its children have been let go.
  for (auto node = table.nodes_.rbegin(); node != table.nodes_.rend(); ++node) dereference(**node);
  table.blocks_.clear();
  table.nodes_.clear();
}

}  // namespace lanner
