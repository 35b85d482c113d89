#include "pipeline/grammars.h"

#include <algorithm>
#include <utility>

namespace lanner {
namespace {

constexpr std::size_t kMostKept = 32;
constexpr std::size_t kLongestKeptText = 64 << 10;

/// A grammar of text/ as the engine knows it.
class Constraint final : public TokenConstraint {
 public:
  explicit Constraint(GrammarState state) : state_(std::move(state)) {}
  Status allowed(std::span<std::uint32_t> words) override { return state_.allowed(words); }
  Result<bool> accept(std::int32_t token) override { return state_.accept(token); }

 private:
  GrammarState state_;
};

class CompiledGrammar final : public TokenGrammar {
 public:
  explicit CompiledGrammar(std::shared_ptr<const Grammar> grammar) : grammar_(std::move(grammar)) {}
  Result<std::unique_ptr<TokenConstraint>> begin() const override {
    LANNER_ASSIGN_OR_RETURN(GrammarState state, grammar_->begin());
    return std::unique_ptr<TokenConstraint>(std::make_unique<Constraint>(std::move(state)));
  }

 private:
  const std::shared_ptr<const Grammar> grammar_;
};

}  // namespace

Result<std::shared_ptr<const TokenGrammar>> Grammars::compile(GrammarKind kind, const std::string& text) {
  if (auto known = find(kind, text)) return known;
  LANNER_ASSIGN_OR_RETURN(const auto vocabulary, this->vocabulary());
  LANNER_ASSIGN_OR_RETURN(auto grammar, vocabulary->compile(kind, text));
  std::shared_ptr<const TokenGrammar> compiled = std::make_shared<const CompiledGrammar>(std::move(grammar));
  if (text.size() <= kLongestKeptText) keep({kind, text, compiled});
  return compiled;
}

Result<std::shared_ptr<const GrammarVocabulary>> Grammars::vocabulary() {
  const std::lock_guard one_at_a_time(reading_);
  {
    const std::lock_guard lock(mutex_);
    if (vocabulary_ != nullptr) return vocabulary_;
  }
  const GrammarTokens tokens = read_();
  LANNER_ASSIGN_OR_RETURN(auto made, GrammarVocabulary::make(tokens.tokens, tokens.special, tokens.ends));
  const std::lock_guard lock(mutex_);
  vocabulary_ = made;
  return made;
}

std::shared_ptr<const TokenGrammar> Grammars::find(GrammarKind kind, const std::string& text) {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find_if(kept_, [&](const Kept& k) { return k.kind == kind && k.text == text; });
  if (found == kept_.end()) return nullptr;
  kept_.splice(kept_.begin(), kept_, found);
  return kept_.front().grammar;
}

void Grammars::keep(Kept kept) {
  const std::lock_guard lock(mutex_);
  kept_.push_front(std::move(kept));
  if (kept_.size() > kMostKept) kept_.pop_back();
}

}  // namespace lanner
