#pragma once
// A Pipeline whose engine follows a script and whose tokens are bytes: id 65 is "A", and characters beyond ASCII take
// several tokens. For the tests of this room and of those above it.
//
//   TestPipeline test = make_test_pipeline(says("Hello"));
//   test.pipeline->generate({.messages = {{"user", "Hi"}}});
//   test.engine->requests();

#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/scripted_engine.h"
#include "pipeline/make_pipeline.h"

namespace lanner {

inline constexpr std::int32_t kTestEos = 256;    // "<eos>"
inline constexpr std::int32_t kTestImEnd = 257;  // "<|im_end|>"
inline constexpr std::int32_t kTestBos = 258;    // "<bos>", which the tokenizer puts in front

/// How byte-level BPE spells a byte: printable ones as they are, the others from U+0100 on.
inline std::string byte_piece(int byte, int& next_unprintable) {
  const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  const int point = printable ? byte : 256 + next_unprintable++;
  if (point < 0x80) return {static_cast<char>(point)};
  return {static_cast<char>(0xC0 | (point >> 6)), static_cast<char>(0x80 | (point & 0x3F))};
}

inline std::shared_ptr<const Tokenizer> make_byte_tokenizer() {
  using Json = nlohmann::ordered_json;
  Json vocabulary = Json::object();
  int next = 0;
  for (int byte = 0; byte < 256; ++byte) vocabulary[byte_piece(byte, next)] = byte;
  Json added = Json::array();
  const std::vector<std::pair<std::string, int>> special{
      {"<eos>", kTestEos}, {"<|im_end|>", kTestImEnd}, {"<bos>", kTestBos}};
  for (const auto& [text, id] : special) {
    added.push_back({{"id", id},
                     {"content", text},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const Json byte_level{
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  const Json bos_id{{"SpecialToken", {{"id", "<bos>"}, {"type_id", 0}}}};
  const auto sequence = [](const char* id) { return Json{{"Sequence", {{"id", id}, {"type_id", 0}}}}; };
  const Json post{
      {"type", "TemplateProcessing"},
      {"single", Json::array({bos_id, sequence("A")})},
      {"pair", Json::array({bos_id, sequence("A"), sequence("B")})},
      {"special_tokens",
       {{"<bos>", {{"id", "<bos>"}, {"ids", Json::array({kTestBos})}, {"tokens", Json::array({"<bos>"})}}}}}};
  const Json file{{"version", "1.0"},
                  {"truncation", nullptr},
                  {"padding", nullptr},
                  {"added_tokens", added},
                  {"normalizer", nullptr},
                  {"pre_tokenizer", byte_level},
                  {"post_processor", post},
                  {"decoder", byte_level},
                  {"model",
                   {{"type", "BPE"},
                    {"dropout", nullptr},
                    {"unk_token", nullptr},
                    {"continuing_subword_prefix", nullptr},
                    {"end_of_word_suffix", nullptr},
                    {"fuse_unk", false},
                    {"byte_fallback", false},
                    {"vocab", vocabulary},
                    {"merges", Json::array()}}}};
  auto tokenizer = Tokenizer::from_json(file.dump(), "test tokenizer");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  return *tokenizer;
}

inline std::vector<std::int32_t> byte_tokens(std::string_view text) {
  std::vector<std::int32_t> ids;
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

/// Goes on until it is cancelled.
inline Script endless(const Request& /*request*/) {
  Script script;
  script.tokens = {byte_tokens("x")};
  script.endless = true;
  script.delay = std::chrono::milliseconds(1);
  return script;
}

/// An engine that says this and then the end-of-text token, whatever it is asked.
inline ScriptedEngine::Author says(const std::string& text) {
  std::vector<std::int32_t> ids = byte_tokens(text);
  ids.push_back(kTestEos);
  return [ids = std::move(ids)](const Request&) {
    Script script;
    script.tokens = {ids};
    return script;
  };
}

struct TestPipeline {
  ScriptedEngine* engine;  // the pipeline's
  std::unique_ptr<Pipeline> pipeline;
};

inline constexpr std::string_view kTestTemplate =
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>";

inline TestPipeline make_test_pipeline(ScriptedEngine::Author author, const ScriptedEngineOptions& options = {},
                                       std::string_view jinja = kTestTemplate,
                                       model::GenerationDefaults defaults = {.eos_ids = {kTestEos}}) {
  const SpecialTokens special{.bos = "<bos>", .eos = "<eos>"};
  auto chat_template = ChatTemplate::from_jinja(jinja, special, "test template");
  EXPECT_TRUE(chat_template.ok()) << chat_template.status().message();
  auto engine = std::make_unique<ScriptedEngine>(std::move(author), options);
  ScriptedEngine* raw = engine.get();
  return {raw, make_pipeline({.engine = std::move(engine),
                              .tokenizer = make_byte_tokenizer(),
                              .chat_template = *std::move(chat_template),
                              .special_tokens = special,
                              .defaults = std::move(defaults),
                              .model_name = "test",
                              .architecture = "TestForCausalLM",
                              .device = "script"})};
}

}  // namespace lanner
