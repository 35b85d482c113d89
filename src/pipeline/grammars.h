#pragma once
// The grammars of one model: its vocabulary made ready at the first use, and what was compiled last kept, since clients
// send the same schema with every request.
//
// Threads: any.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "lanner/engine.h"
#include "lanner/status.h"
#include "text/grammar.h"

namespace lanner {

/// What a vocabulary is made of: see GrammarVocabulary::make().
struct GrammarTokens {
  std::vector<std::string> tokens;
  std::vector<bool> special;
  std::vector<std::int32_t> ends;
};

class Grammars {
 public:
  /// `read` is called once, when the first grammar is compiled.
  explicit Grammars(std::function<GrammarTokens()> read) : read_(std::move(read)) {}

  Result<std::shared_ptr<const TokenGrammar>> compile(GrammarKind kind, const std::string& text);

 private:
  struct Kept {
    GrammarKind kind;
    std::string text;
    std::shared_ptr<const TokenGrammar> grammar;
  };

  Result<std::shared_ptr<const GrammarVocabulary>> vocabulary();
  std::shared_ptr<const TokenGrammar> find(GrammarKind kind, const std::string& text);
  void keep(Kept kept);

  const std::function<GrammarTokens()> read_;
  std::mutex reading_;  // before mutex_
  std::mutex mutex_;
  // Under mutex_:
  std::shared_ptr<const GrammarVocabulary> vocabulary_;
  std::list<Kept> kept_;  // the last used first
};

}  // namespace lanner
