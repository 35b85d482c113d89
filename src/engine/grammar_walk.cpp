#include "engine/grammar_walk.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace lanner {
namespace {

constexpr std::uint64_t kOneInEnds = 3;  // while the walk is free, an end is taken so often
constexpr std::uint64_t kOneInCloses = 6;

}  // namespace

GrammarWalk::GrammarWalk(std::unique_ptr<TokenConstraint> constraint, WalkOptions options, std::uint64_t seed)
    : constraint_(std::move(constraint)),
      options_(std::move(options)),
      random_(seed),
      allowed_((static_cast<std::size_t>(options_.vocab_size) + 31) / 32) {}

bool GrammarWalk::allows(std::int32_t token) const {
  if (token < 0 || token >= options_.vocab_size) return false;
  const auto at = static_cast<std::uint32_t>(token);
  return (allowed_[at / 32] >> (at % 32) & 1U) != 0;
}

std::vector<std::int32_t> GrammarWalk::only_allowed(std::span<const std::int32_t> tokens) const {
  std::vector<std::int32_t> left;
  std::ranges::copy_if(tokens, std::back_inserter(left), [&](std::int32_t token) { return allows(token); });
  return left;
}

std::int32_t GrammarWalk::drawn_from(std::span<const std::int32_t> tokens) {
  return tokens[static_cast<std::size_t>(random_() % tokens.size())];
}

Result<std::optional<std::int32_t>> GrammarWalk::next(std::span<const std::int32_t> stop_ids) {
  if (complete_) return std::optional<std::int32_t>();
  LANNER_RETURN_IF_ERROR(constraint_->allowed(allowed_));
  const bool free = taken_ < options_.free_tokens;
  const std::vector<std::int32_t> ends = only_allowed(stop_ids);
  const std::vector<std::int32_t> closing = only_allowed(options_.closing);
  std::vector<std::int32_t> any;
  for (std::int32_t token = 0; token < options_.vocab_size; ++token) {
    if (allows(token) && std::ranges::find(ends, token) == ends.end()) any.push_back(token);
  }
  if (!ends.empty() && (any.empty() || !free || one_in(kOneInEnds))) {
    complete_ = true;
    return std::optional(drawn_from(ends));
  }
  if (any.empty()) return internal_error("the grammar allows no token");
  const bool closes = !closing.empty() && (!free || one_in(kOneInCloses));
  const std::int32_t token = drawn_from(closes ? closing : any);
  LANNER_ASSIGN_OR_RETURN(complete_, constraint_->accept(token));
  ++taken_;
  return std::optional(token);
}

}  // namespace lanner
