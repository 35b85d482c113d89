#pragma once
// What an answer may be, token by token: a JSON schema, a regular expression or a grammar, as masks over a vocabulary.
//
//   LANNER_ASSIGN_OR_RETURN(auto vocabulary, GrammarVocabulary::make(tokens, special, ends));     // once for a model
//   LANNER_ASSIGN_OR_RETURN(auto grammar, vocabulary->compile(GrammarKind::kRegex, "[0-9]+"));    // may be kept
//   LANNER_ASSIGN_OR_RETURN(GrammarState state, grammar->begin());                                // one an answer
//   state.allowed(words);  …  state.accept(token);                                                // for each token
//
// Grammars are llguidance's (docs/structured-output.md). Texts are not trusted: what is wrong with one is
// kInvalidArgument, one that is too complex kResourceExhausted.
//
// Threads: vocabulary and grammar are immutable and may be used from any thread; a state by one at a time.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lanner/status.h"
#include "text/lanner_text.h"

namespace lanner {

enum class GrammarKind : std::uint8_t {
  kJsonSchema = LANNER_GRAMMAR_JSON_SCHEMA,
  kRegex = LANNER_GRAMMAR_REGEX,  // of the whole answer
  kLark = LANNER_GRAMMAR_LARK,    // Lark's EBNF with llguidance's additions
};

/// Where JSON stands in a Lark grammar (%json), a member "x-guidance": {"whitespace_pattern": …} of its schema allows
/// this much blank between two parts. kJsonSchema does so itself: JSON_BLANKS in rust/src/grammar.rs.
inline constexpr std::string_view kJsonBlanks = R"((\r?\n[\x20\x09]{0,40}|[\x20\x09]{1,2}))";

struct GrammarDeleter {
  void operator()(LannerGrammar* grammar) const { lanner_grammar_free(grammar); }
  void operator()(LannerVocabulary* vocabulary) const { lanner_vocabulary_free(vocabulary); }
};
using GrammarHandle = std::unique_ptr<LannerGrammar, GrammarDeleter>;

/// A grammar that is being followed. After an error only destroying it makes sense.
class GrammarState {
 public:
  explicit GrammarState(GrammarHandle handle) : handle_(std::move(handle)) {}

  /// Sets the bits of the tokens that may come next, and clears the others: bit t % 32 of word t / 32.
  Status allowed(std::span<std::uint32_t> words);
  /// True when nothing may follow the token. One that was not allowed is an error.
  Result<bool> accept(std::int32_t token);

 private:
  GrammarHandle handle_;
};

class Grammar {
 public:
  explicit Grammar(GrammarHandle handle) : handle_(std::move(handle)) {}

  Result<GrammarState> begin() const;

 private:
  const GrammarHandle handle_;  // at its beginning
};

class GrammarVocabulary {
 public:
  /// `tokens` are the bytes that each id stands for, or, where `special` says so, the token's name; without either the
  /// token is never allowed. `ends` end an answer, where the grammar lets it end.
  static Result<std::shared_ptr<const GrammarVocabulary>> make(std::span<const std::string> tokens,
                                                               const std::vector<bool>& special,
                                                               std::span<const std::int32_t> ends);

  Result<std::shared_ptr<const Grammar>> compile(GrammarKind kind, std::string_view text) const;

 private:
  using Handle = std::unique_ptr<LannerVocabulary, GrammarDeleter>;
  explicit GrammarVocabulary(Handle handle) : handle_(std::move(handle)) {}

  const Handle handle_;
};

}  // namespace lanner
