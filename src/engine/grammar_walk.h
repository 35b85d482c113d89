#pragma once
// A fake's way through a grammar: of the tokens that may come next it draws any one, and soon those that end. What a
// model would never write comes from it too, so that it shows whether a grammar lets nothing else through.
//
//   GrammarWalk walk(*grammar->begin(), {.vocab_size = 259, .closing = {'"', ']', '}'}, seed);
//   walk.next(stop_ids);       // a token; nothing: the answer is complete
//
// Threads: one at a time.

#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <vector>

#include "lanner/engine.h"

namespace lanner {

struct WalkOptions {
  std::int32_t vocab_size = 0;
  std::vector<std::int32_t> closing;  // tokens that bring the end nearer
  std::int32_t free_tokens = 48;      // from then on the walk takes an end, or else a closing token, wherever it may
};

class GrammarWalk {
 public:
  GrammarWalk(std::unique_ptr<TokenConstraint> constraint, WalkOptions options, std::uint64_t seed);

  Result<std::optional<std::int32_t>> next(std::span<const std::int32_t> stop_ids);

 private:
  bool allows(std::int32_t token) const;
  std::vector<std::int32_t> only_allowed(std::span<const std::int32_t> tokens) const;
  std::int32_t drawn_from(std::span<const std::int32_t> tokens);
  bool one_in(std::uint64_t count) { return random_() % count == 0; }

  std::unique_ptr<TokenConstraint> constraint_;
  WalkOptions options_;
  std::mt19937_64 random_;
  std::vector<std::uint32_t> allowed_;
  std::int32_t taken_ = 0;
  bool complete_ = false;
};

}  // namespace lanner
