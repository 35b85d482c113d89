#include "text/bpe_vocabulary.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string_view>

#include "text/pre_tokenizers.h"

namespace lanner {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kMaxTokens = 1 << 24;

Json step_to_json(const PreTokenizerStep& step) {
  switch (step.kind) {
    case PreTokenizerStep::Kind::kIndividualDigits: return {{"type", "Digits"}, {"individual_digits", true}};
    case PreTokenizerStep::Kind::kDigitRuns: return {{"type", "Digits"}, {"individual_digits", false}};
    case PreTokenizerStep::Kind::kPunctuationRuns: return {{"type", "Punctuation"}, {"behavior", "Contiguous"}};
    case PreTokenizerStep::Kind::kSplit: break;
  }
  return {{"type", "Split"},
          {"pattern", {{"Regex", std::string(step.pattern)}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

Json byte_level() {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", false}, {"use_regex", false}};
}

Json pre_tokenizer_to_json(const PreTokenizer& rules, bool add_prefix_space) {
  Json steps = Json::array();
  if (add_prefix_space) {
    // Before the first cut, or the blank would be put in front of every word.
    steps.push_back({{"type", "Metaspace"}, {"replacement", " "}, {"prepend_scheme", "first"}, {"split", false}});
  }
  for (const PreTokenizerStep& step : rules.steps) steps.push_back(step_to_json(step));
  steps.push_back(byte_level());
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

// GGUF files may hold empty pieces as padding; tokenizer.json needs distinct ones.
std::string piece_at(const BpeVocabulary& vocabulary, std::size_t id) {
  const std::string& piece = vocabulary.tokens[id];
  return piece.empty() ? fmt::format("[EMPTY_{}]", id) : piece;
}

Status check_special_id(const BpeVocabulary& vocabulary, const std::optional<std::int32_t>& id, std::string_view name) {
  if (id && (*id < 0 || static_cast<std::size_t>(*id) >= vocabulary.tokens.size())) {
    return corrupt(fmt::format("{} {} is not among the {} tokens", name, *id, vocabulary.tokens.size()));
  }
  return {};
}

Status check(const BpeVocabulary& vocabulary) {
  const std::size_t count = vocabulary.tokens.size();
  if (count == 0) return corrupt("the vocabulary is empty");
  if (count > kMaxTokens || vocabulary.merges.size() > kMaxTokens) {
    return corrupt(fmt::format("{} tokens and {} merges are more than the {} allowed", count, vocabulary.merges.size(),
                               kMaxTokens));
  }
  if (!vocabulary.token_types.empty() && vocabulary.token_types.size() != count) {
    return corrupt(fmt::format("{} token types for {} tokens", vocabulary.token_types.size(), count));
  }
  LANNER_RETURN_IF_ERROR(check_special_id(vocabulary, vocabulary.bos_id, "the BOS id"));
  return check_special_id(vocabulary, vocabulary.eos_id, "the EOS id");
}

Result<Json> vocab_to_json(const BpeVocabulary& vocabulary) {
  Json vocab = Json::object();
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const auto [place, inserted] = vocab.emplace(piece_at(vocabulary, id), id);
    if (!inserted) return corrupt(fmt::format("tokens {} and {} are the same", place->get<std::size_t>(), id));
  }
  return vocab;
}

Result<Json> merges_to_json(const BpeVocabulary& vocabulary) {
  Json merges = Json::array();
  for (std::size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
    const std::string_view merge = vocabulary.merges[rank];
    // The left part may itself begin with a blank, but not be empty.
    const std::size_t blank = merge.find(' ', 1);
    if (merge.size() < 3 || blank == std::string_view::npos || blank + 1 == merge.size()) {
      return corrupt(fmt::format("merge {} is not two pieces with a blank between them", rank));
    }
    merges.push_back({std::string(merge.substr(0, blank)), std::string(merge.substr(blank + 1))});
  }
  return merges;
}

Json added_tokens_to_json(const BpeVocabulary& vocabulary) {
  Json added = Json::array();
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const auto type =
        vocabulary.token_types.empty() ? PieceType::kNormal : static_cast<PieceType>(vocabulary.token_types[id]);
    const auto signed_id = static_cast<std::int32_t>(id);
    // BOS and EOS are special even in files that mark every token as normal.
    const bool special = type == PieceType::kControl || type == PieceType::kUnknown || vocabulary.bos_id == signed_id ||
                         vocabulary.eos_id == signed_id;
    if (!special && type != PieceType::kUserDefined) continue;
    added.push_back({{"id", id},
                     {"content", piece_at(vocabulary, id)},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", special}});
  }
  return added;
}

// BOS and EOS around the text, in the form that tokenizer.json knows.
Result<Json> post_processor_to_json(const BpeVocabulary& vocabulary, bool add_bos, bool add_eos) {
  if (!add_bos && !add_eos) return Json();
  Json single = Json::array();
  Json special_tokens = Json::object();
  const auto add = [&](std::int32_t id) {
    const std::string piece = piece_at(vocabulary, static_cast<std::size_t>(id));
    single.push_back({{"SpecialToken", {{"id", piece}, {"type_id", 0}}}});
    special_tokens[piece] = {{"id", piece}, {"ids", {id}}, {"tokens", {piece}}};
  };
  if (add_bos && !vocabulary.bos_id) return corrupt("asks for a BOS token in front but names none");
  if (add_eos && !vocabulary.eos_id) return corrupt("asks for an EOS token at the end but names none");
  if (add_bos) add(*vocabulary.bos_id);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  if (add_eos) add(*vocabulary.eos_id);
  Json pair = single;
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
  return Json{{"type", "TemplateProcessing"},
              {"single", std::move(single)},
              {"pair", std::move(pair)},
              {"special_tokens", std::move(special_tokens)}};
}

}  // namespace

Result<std::string> bpe_vocabulary_to_json(const BpeVocabulary& vocabulary) {
  LANNER_RETURN_IF_ERROR(check(vocabulary));
  LANNER_ASSIGN_OR_RETURN(const PreTokenizer* rules, find_pre_tokenizer(vocabulary.pre_tokenizer));
  // A file that says nothing gets its family's BOS only if it has one.
  const bool add_bos = vocabulary.add_bos.value_or(rules->add_bos && vocabulary.bos_id.has_value());
  const bool add_eos = vocabulary.add_eos.value_or(false);
  LANNER_ASSIGN_OR_RETURN(Json post_processor, post_processor_to_json(vocabulary, add_bos, add_eos));
  LANNER_ASSIGN_OR_RETURN(Json vocab, vocab_to_json(vocabulary));
  LANNER_ASSIGN_OR_RETURN(Json merges, merges_to_json(vocabulary));

  Json tokenizer = {{"version", "1.0"},
                    {"added_tokens", added_tokens_to_json(vocabulary)},
                    {"normalizer", rules->normalize_nfc ? Json{{"type", "NFC"}} : Json()},
                    {"pre_tokenizer", pre_tokenizer_to_json(*rules, vocabulary.add_prefix_space)},
                    {"post_processor", std::move(post_processor)},
                    {"decoder", byte_level()}};
  tokenizer["model"] = {{"type", "BPE"},
                        {"ignore_merges", rules->ignore_merges},
                        {"vocab", std::move(vocab)},
                        {"merges", std::move(merges)}};
  try {
    return tokenizer.dump();
  } catch (const Json::exception&) {  // the only exception that dump() throws: text that is not UTF-8
    return corrupt("a token or merge is not UTF-8");
  }
}

}  // namespace lanner
