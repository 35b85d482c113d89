#include "model/folder_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/mapped_file.h"
#include "model/model_folder.h"

namespace lanner::model {
namespace {

constexpr std::int64_t kMaxTokenizerBytes = 256 << 20;
constexpr std::int64_t kMaxTokenId = (1 << 24) - 1;

/// The tokens that the files name by what they are for, in the order in which Transformers adds them.
constexpr std::array<std::string_view, 7> kNamedTokens{"bos_token", "eos_token", "unk_token", "sep_token",
                                                       "pad_token", "cls_token", "mask_token"};
constexpr std::array<std::string_view, 2> kTokenLists{"additional_special_tokens", "extra_special_tokens"};

/// Tokens that ChatGLM 2 and 3 add by their code. The texts of the last two occur inside words.
constexpr std::array<std::string_view, 9> kChatGlmTokens{
    "[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"};
constexpr std::array<std::string_view, 2> kOnlyBehind{"sop", "eop"};

constexpr int kQwenExtraTokens = 205;

/// The small files beside the vocabulary; empty objects where there are none.
struct SideFiles {
  std::string folder;
  Json config = Json::object();
  Json special_map = Json::object();
  Json added = Json::object();

  std::string path(std::string_view name) const { return fmt::format("{}/{}", folder, name); }
  std::string config_path() const { return path("tokenizer_config.json"); }
};

Result<SideFiles> read_side_files(const std::string& folder) {
  SideFiles files;
  files.folder = folder;
  LANNER_ASSIGN_OR_RETURN(files.config, read_optional_object(folder, "tokenizer_config.json"));
  LANNER_ASSIGN_OR_RETURN(files.special_map, read_optional_object(folder, "special_tokens_map.json"));
  LANNER_ASSIGN_OR_RETURN(files.added, read_optional_object(folder, "added_tokens.json"));
  return files;
}

/// A token as the files spell it: a text, or an object with content, lstrip, rstrip, single_word and special.
Result<AddedToken> read_token(const Json& value, const std::string& where) {
  AddedToken token;
  if (value.is_string()) {
    token.content = value.get<std::string>();
    return token;
  }
  if (!value.is_object()) return corrupt(fmt::format("{}: is neither a text nor an object", where));
  const JsonFields fields(value, where);
  LANNER_ASSIGN_OR_RETURN(token.content, fields.text("content"));
  LANNER_ASSIGN_OR_RETURN(token.lstrip, fields.boolean_or("lstrip", false));
  LANNER_ASSIGN_OR_RETURN(token.rstrip, fields.boolean_or("rstrip", false));
  LANNER_ASSIGN_OR_RETURN(token.single_word, fields.boolean_or("single_word", false));
  LANNER_ASSIGN_OR_RETURN(token.special, fields.boolean_or("special", true));
  return token;
}

/// The tokens that are added to a vocabulary, and the ids that they get.
class TokenList {
 public:
  /// `ids` are those of the vocabulary below; the first new token gets the id `next`.
  TokenList(std::unordered_map<std::string_view, std::int32_t> ids, std::int32_t next)
      : vocabulary_(std::move(ids)), next_(next) {}

  /// What is listed once more with the same id counts; another id is for AddedTokens to refuse.
  void add_with_id(AddedToken token) {
    next_ = std::max(next_, token.id + 1);
    const auto [known, fresh] = places_.emplace(token.content, tokens_.size());
    if (!fresh && tokens_[known->second].id == token.id) {
      tokens_[known->second] = std::move(token);
    } else {
      tokens_.push_back(std::move(token));
    }
  }

  /// The id that its text has already, or the next one.
  void add(AddedToken token) {
    if (const auto known = places_.find(token.content); known != places_.end()) {
      tokens_[known->second].special = tokens_[known->second].special || token.special;
      return;
    }
    const auto found = vocabulary_.find(token.content);
    token.id = found != vocabulary_.end() ? found->second : next_++;
    places_.emplace(token.content, tokens_.size());
    tokens_.push_back(std::move(token));
  }

  std::optional<std::int32_t> id(std::string_view content) const {
    if (const auto known = places_.find(std::string(content)); known != places_.end()) return tokens_[known->second].id;
    if (const auto found = vocabulary_.find(content); found != vocabulary_.end()) return found->second;
    return std::nullopt;
  }

  std::vector<AddedToken>& tokens() { return tokens_; }

 private:
  std::unordered_map<std::string_view, std::int32_t> vocabulary_;
  std::unordered_map<std::string, std::size_t> places_;  // in tokens_
  std::vector<AddedToken> tokens_;
  std::int32_t next_;
};

/// tokenizer_config.json's added_tokens_decoder, or what came before it: added_tokens.json.
Status add_listed_tokens(const SideFiles& files, TokenList& list) {
  const auto decoder = files.config.find("added_tokens_decoder");
  if (decoder != files.config.end() && !decoder->is_null()) {
    const std::string where = files.config_path() + ": added_tokens_decoder";
    if (!decoder->is_object()) return corrupt(where + ": is no object");
    for (const auto& [key, value] : decoder->items()) {
      const std::string here = fmt::format("{}: {}", where, printable(key));
      std::int32_t id = -1;
      const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
      if (error != std::errc() || end != key.data() + key.size() || id < 0 || id > kMaxTokenId) {
        return corrupt(fmt::format("{}: is no id from 0 to {}", here, kMaxTokenId));
      }
      LANNER_ASSIGN_OR_RETURN(AddedToken token, read_token(value, here));
      token.id = id;
      list.add_with_id(std::move(token));
    }
    return {};
  }
  const std::string where = files.path("added_tokens.json");
  for (const auto& [content, value] : files.added.items()) {
    AddedToken token;
    token.content = content;
    token.special = false;  // unless it is named as special, too
    // By the value at hand: to look each name up would go through the names before it.
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > std::uint64_t{kMaxTokenId}) {
      return corrupt(fmt::format("{}: {}: is no id from 0 to {}", where, printable(content), kMaxTokenId));
    }
    token.id = static_cast<std::int32_t>(value.get<std::uint64_t>());
    list.add_with_id(std::move(token));
  }
  return {};
}

/// A named token: from tokenizer_config.json, else from special_tokens_map.json; nothing when neither has it.
Result<std::optional<AddedToken>> named_token(const SideFiles& files, std::string_view name) {
  for (const auto& [file, path] : {std::pair{&files.config, files.config_path()},
                                   std::pair{&files.special_map, files.path("special_tokens_map.json")}}) {
    const auto found = file->find(name);
    if (found == file->end() || found->is_null()) continue;
    LANNER_ASSIGN_OR_RETURN(AddedToken token, read_token(*found, fmt::format("{}: {}", path, name)));
    token.special = true;
    if (!token.content.empty()) return std::optional(std::move(token));
  }
  return std::optional<AddedToken>();
}

Status add_token_lists(const SideFiles& files, TokenList& list) {
  for (const auto& [file, path] : {std::pair{&files.config, files.config_path()},
                                   std::pair{&files.special_map, files.path("special_tokens_map.json")}}) {
    for (const std::string_view name : kTokenLists) {
      const auto found = file->find(name);
      if (found == file->end() || found->is_null()) continue;
      const std::string where = fmt::format("{}: {}", path, name);
      if (!found->is_array() && !found->is_object()) return corrupt(where + ": is no list");
      for (const Json& value : *found) {
        LANNER_ASSIGN_OR_RETURN(AddedToken token, read_token(value, where));
        token.special = true;
        list.add(std::move(token));
      }
    }
  }
  return {};
}

/// The class that Transformers would take, without the "Fast" of its other form.
Result<std::string> tokenizer_class(const SideFiles& files) {
  const JsonFields fields(files.config, files.config_path());
  LANNER_ASSIGN_OR_RETURN(std::string name, fields.text_or("tokenizer_class", ""));
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  return name;
}

/// The ids of a list of texts, each of which has to be a token.
Result<std::vector<std::int32_t>> ids_of(std::initializer_list<std::string_view> texts, const TokenList& list,
                                         const std::string& where) {
  std::vector<std::int32_t> ids;
  for (const std::string_view text : texts) {
    const std::optional<std::int32_t> id = list.id(text);
    if (!id) return corrupt(fmt::format("{}: has no token '{}'", where, printable(text)));
    ids.push_back(*id);
  }
  return ids;
}

/// BOS and EOS around a text, as add_bos_token and add_eos_token ask for.
Status set_ends(const SideFiles& files, const TokenList& list, const std::string& bos, const std::string& eos,
                SentencePieceRules& rules) {
  const JsonFields fields(files.config, files.config_path());
  LANNER_ASSIGN_OR_RETURN(const bool add_bos, fields.boolean_or("add_bos_token", !bos.empty()));
  LANNER_ASSIGN_OR_RETURN(const bool add_eos, fields.boolean_or("add_eos_token", false));
  if (add_bos && bos.empty()) return fields.wrong("add_bos_token", "is set, but there is no bos_token");
  if (add_eos && eos.empty()) return fields.wrong("add_eos_token", "is set, but there is no eos_token");
  if (add_bos) {
    LANNER_ASSIGN_OR_RETURN(rules.ends.prefix_ids, ids_of({bos}, list, files.config_path()));
  }
  if (add_eos) {
    LANNER_ASSIGN_OR_RETURN(rules.ends.suffix_ids, ids_of({eos}, list, files.config_path()));
  }
  return {};
}

/// Where the dummy prefix goes: LlamaTokenizer's legacy and add_prefix_space.
Result<DummyPrefix> dummy_prefix(const SideFiles& files) {
  const JsonFields fields(files.config, files.config_path());
  LANNER_ASSIGN_OR_RETURN(const bool legacy, fields.boolean_or("legacy", true));
  LANNER_ASSIGN_OR_RETURN(const bool prefix, fields.boolean_or("add_prefix_space", true));
  if (!prefix) return DummyPrefix::kNever;
  return legacy ? DummyPrefix::kEveryStretch : DummyPrefix::kTextOnly;
}

std::unordered_map<std::string_view, std::int32_t> piece_ids(const SentencePieceModel& model) {
  std::unordered_map<std::string_view, std::int32_t> ids;
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    ids.emplace(model.pieces[id].text, static_cast<std::int32_t>(id));
  }
  return ids;
}

bool is_control(const SentencePieceModel& model, std::optional<std::int32_t> id) {
  if (!id || static_cast<std::size_t>(*id) >= model.pieces.size()) return false;
  const PieceType type = model.pieces[static_cast<std::size_t>(*id)].type;
  return type == PieceType::kControl || type == PieceType::kUnknown;
}

/// Everything that the files say of a SentencePiece model's use.
Result<SentencePieceRules> sentencepiece_rules(const SideFiles& files, const SentencePieceModel& model) {
  LANNER_ASSIGN_OR_RETURN(const std::string name, tokenizer_class(files));
  const bool chat_glm = name == "ChatGLMTokenizer";
  SentencePieceRules rules;
  TokenList list(piece_ids(model), static_cast<std::int32_t>(model.pieces.size()));
  if (chat_glm) {
    // Before what the files list, which repeats some of them.
    for (const std::string_view text : kChatGlmTokens) list.add({.content = std::string(text)});
  }
  LANNER_RETURN_IF_ERROR(add_listed_tokens(files, list));
  std::string bos;
  std::string eos;
  for (const std::string_view kind : kNamedTokens) {
    LANNER_ASSIGN_OR_RETURN(std::optional<AddedToken> token, named_token(files, kind));
    // Where the files do not say, the model's own control pieces stand for these three, as the classes' defaults do.
    if (!token && !chat_glm && !files.config.contains(kind)) {
      const std::string_view piece = kind == "bos_token"   ? std::string_view(model.bos_piece)
                                     : kind == "eos_token" ? std::string_view(model.eos_piece)
                                     : kind == "unk_token" ? std::string_view("<unk>")
                                                           : std::string_view();
      if (is_control(model, list.id(piece))) token = AddedToken{.content = std::string(piece)};
    }
    if (!token) continue;
    if (kind == "bos_token") bos = token->content;
    if (kind == "eos_token") eos = token->content;
    list.add(*std::move(token));
  }
  LANNER_RETURN_IF_ERROR(add_token_lists(files, list));
  LANNER_ASSIGN_OR_RETURN(rules.dummy_prefix, dummy_prefix(files));
  if (chat_glm) {
    LANNER_ASSIGN_OR_RETURN(rules.ends.prefix_ids, ids_of({"[gMASK]", "sop"}, list, files.config_path()));
    for (AddedToken& token : list.tokens()) {
      if (std::ranges::find(kOnlyBehind, token.content) != kOnlyBehind.end()) token.only_behind = true;
    }
  } else {
    LANNER_RETURN_IF_ERROR(set_ends(files, list, bos, eos, rules));
  }
  rules.added_tokens = std::move(list.tokens());
  return rules;
}

Result<std::shared_ptr<const Tokenizer>> open_sentencepiece(const SideFiles& files, const std::string& path,
                                                            std::string_view content) {
  Result<SentencePieceModel> model = parse_sentencepiece_model(content);
  if (!model.ok()) return with_context(model.status(), path);
  LANNER_ASSIGN_OR_RETURN(SentencePieceRules rules, sentencepiece_rules(files, *model));
  return Tokenizer::from_sentencepiece(*std::move(model), std::move(rules), path);
}

/// The first id behind a file of ranks: its tokens are numbered from 0 without a gap.
std::int32_t count_lines(std::string_view content) {
  return static_cast<std::int32_t>(std::ranges::count(content, '\n')) + (content.ends_with('\n') ? 0 : 1);
}

Result<std::shared_ptr<const Tokenizer>> open_qwen(const std::string& path, std::string_view content) {
  TiktokenRules rules{.pattern = std::string(kQwenWords), .normalize_nfc = true};
  std::vector<std::string> names{"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  for (int extra = 0; extra < kQwenExtraTokens; ++extra) names.push_back(fmt::format("<|extra_{}|>", extra));
  std::int32_t id = count_lines(content);
  for (std::string& name : names) rules.added_tokens.push_back({.id = id++, .content = std::move(name)});
  return Tokenizer::from_tiktoken(content, std::move(rules), path);
}

Result<std::shared_ptr<const Tokenizer>> open_glm4(const SideFiles& files, const std::string& path,
                                                   std::string_view content) {
  TokenList list({}, count_lines(content));
  LANNER_RETURN_IF_ERROR(add_listed_tokens(files, list));
  LANNER_RETURN_IF_ERROR(add_token_lists(files, list));
  TiktokenRules rules{.pattern = std::string(kGlm4Words)};
  LANNER_ASSIGN_OR_RETURN(rules.ends.prefix_ids, ids_of({"[gMASK]", "<sop>"}, list, files.config_path()));
  rules.added_tokens = std::move(list.tokens());
  return Tokenizer::from_tiktoken(content, std::move(rules), path);
}

/// Whether the first line is a token in base64, a blank and a number.
bool looks_like_ranks(std::string_view content) {
  const std::string_view line = content.substr(0, content.find_first_of("\r\n"));
  const std::size_t blank = line.find(' ');
  constexpr std::string_view kDigits = "0123456789";
  return blank != std::string_view::npos && blank > 0 && blank + 1 < line.size() &&
         line.find_first_not_of(kDigits, blank + 1) == std::string_view::npos;
}

Result<std::shared_ptr<const Tokenizer>> open_model_file(const SideFiles& files, const std::string& path) {
  LANNER_ASSIGN_OR_RETURN(const std::string content, read_file(path, kMaxTokenizerBytes));
  LANNER_ASSIGN_OR_RETURN(const std::string name, tokenizer_class(files));
  // A SentencePiece model begins with the key of its first piece, which is a line feed.
  if (!looks_like_ranks(content)) return open_sentencepiece(files, path, content);
  if (name == "ChatGLM4Tokenizer") return open_glm4(files, path, content);
  return unsupported(
      fmt::format("{}: holds ranks of the class '{}'; the classes that are known have them in "
                  "qwen.tiktoken, or are ChatGLM4Tokenizer",
                  path, printable(name)));
}

Result<std::shared_ptr<const Tokenizer>> open_any(const std::string& folder) {
  Result<std::string> path = model_file(folder, "tokenizer.json");
  if (path.ok()) {
    LANNER_ASSIGN_OR_RETURN(const std::string json, read_file(*path, kMaxTokenizerBytes));
    return Tokenizer::from_json(json, *path);
  }
  if (path.status().code() != StatusCode::kNotFound) return path.status();
  LANNER_ASSIGN_OR_RETURN(const SideFiles files, read_side_files(folder));
  path = model_file(folder, "tokenizer.model");
  if (path.ok()) return open_model_file(files, *path);
  if (path.status().code() != StatusCode::kNotFound) return path.status();
  path = model_file(folder, "qwen.tiktoken");
  if (path.ok()) {
    LANNER_ASSIGN_OR_RETURN(const std::string content, read_file(*path, kMaxTokenizerBytes));
    return open_qwen(*path, content);
  }
  if (path.status().code() != StatusCode::kNotFound) return path.status();
  return not_found(
      fmt::format("{}: has no tokenizer: neither tokenizer.json nor tokenizer.model nor qwen.tiktoken", folder));
}

/// The rows of the embedding, which a model with images keeps with its language part; nothing when it is not said.
std::optional<std::int64_t> vocabulary_rows(const Json& config) {
  const auto rows_of = [](const Json& object) -> std::optional<std::int64_t> {
    const auto found = object.find("vocab_size");
    if (found == object.end() || !found->is_number_integer()) return std::nullopt;
    return found->get<std::int64_t>();
  };
  for (const char* part : {"text_config", "llm_config", "language_config"}) {
    const auto found = config.find(part);
    if (found == config.end() || !found->is_object()) continue;
    if (const auto rows = rows_of(*found)) return rows;
  }
  return rows_of(config);
}

}  // namespace

Result<std::shared_ptr<const Tokenizer>> open_folder_tokenizer(const std::string& folder, const Json& config) {
  LANNER_ASSIGN_OR_RETURN(auto tokenizer, open_any(folder));
  const std::optional<std::int64_t> rows = vocabulary_rows(config);
  if (rows && tokenizer->vocab_size() > *rows) {
    const std::int32_t last = tokenizer->vocab_size() - 1;
    const Result<std::string> piece = tokenizer->piece(last);
    return corrupt(
        fmt::format("{}: the tokenizer's token {} ('{}') is past the {} rows of the model's embedding "
                    "(config.json: vocab_size)",
                    folder, last, printable(piece.ok() ? *piece : ""), *rows));
  }
  return tokenizer;
}

}  // namespace lanner::model
