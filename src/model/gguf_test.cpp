#include "model/gguf.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "model/decoder_config.h"
#include "model/file_builders.h"
#include "model/generation_config.h"
#include "model/gguf_checkpoint.h"
#include "model/gguf_metadata.h"
#include "model/gguf_vocabulary.h"

namespace lanner::model {
namespace {

constexpr std::uint32_t kF32Type = 0;

Status parse_status(const std::string& file) { return parse_gguf(as_bytes(file), "x.gguf").status(); }
Status parse_status(const GgufBuilder& gguf) { return parse_status(gguf.file()); }

/// A file with two tensors, one of each kind of metadata value that matters.
GgufBuilder small_file() {
  GgufBuilder gguf;
  gguf.add_string("general.architecture", "llama");
  gguf.add_u32("number", 7);
  gguf.add_strings("names", {"a", "", "ccc"});
  gguf.add_integers("integers", {1, -2});
  gguf.add_tensor("a", {3}, kF32Type, std::string(12, 'a'));
  gguf.add_tensor("b", {32, 2}, ggml::kQ8_0, std::string(68, 'b'));
  return gguf;
}

TEST(Gguf, ReadsMetadataAndTensors) {
  const std::string file = small_file().file();
  const auto gguf = parse_gguf(as_bytes(file), "x.gguf");
  ASSERT_TRUE(gguf.ok()) << gguf.status().message();
  EXPECT_EQ(std::get<std::uint64_t>(gguf->metadata.at("number").value), 7U);
  const auto& names = std::get<GgufArray>(gguf->metadata.at("names").value);
  EXPECT_EQ(*gguf_strings(names, ""), (std::vector<std::string_view>{"a", "", "ccc"}));
  EXPECT_EQ(gguf_integers(names, "").status().code(), StatusCode::kCorrupt);
  const auto& integers = std::get<GgufArray>(gguf->metadata.at("integers").value);
  EXPECT_EQ(*gguf_integers(integers, ""), (std::vector<std::int64_t>{1, -2}));
  const GgufTensor& b = gguf->tensors.at("b");
  EXPECT_EQ(b.shape, (std::vector<std::int64_t>{2, 32}));
  EXPECT_EQ(b.type.name, "Q8_0");
  EXPECT_EQ(b.bytes.size(), 68U);
  EXPECT_EQ(b.bytes.front(), std::byte{'b'});
}

TEST(Gguf, EveryTruncationIsRefused) {
  const std::string file = small_file().file();
  for (std::size_t size = 0; size < file.size(); ++size) {
    const std::string part = file.substr(0, size);  // a copy: reading past it is an error under ASan
    EXPECT_EQ(parse_status(part).code(), StatusCode::kCorrupt) << size;
  }
}

TEST(Gguf, EveryBitFlipIsRefusedOrReadable) {
  const std::string file = small_llama_gguf({"a", "b", "c", "d"}).file();
  const std::size_t table = 1900;  // header, metadata and tensor table; the rest are weights
  ASSERT_LT(table, file.size());
  for (std::size_t bit = 0; bit < 8 * table; bit += 5) {  // every place in a byte takes its turn
    std::string broken = file;
    broken[bit / 8] = static_cast<char>(broken[bit / 8] ^ (1 << (bit % 8)));
    const auto checkpoint = make_gguf_checkpoint(as_bytes(broken), nullptr, "x.gguf");
    if (!checkpoint.ok()) continue;
    (void)read_decoder_spec(**checkpoint).ok();
    (void)read_generation_defaults(**checkpoint).ok();
    (void)(*checkpoint)->special_tokens();
  }
}

TEST(Gguf, RefusesVersions) {
  GgufBuilder gguf = small_file();
  gguf.version = 2;
  EXPECT_TRUE(parse_status(gguf).ok());
  for (const std::uint32_t version : {0U, 1U, 4U, 0x03000000U, 0x02000000U}) {
    gguf.version = version;
    EXPECT_EQ(parse_status(gguf).code(), StatusCode::kUnsupported) << version;
  }
  EXPECT_NE(parse_status(gguf).message().find("big-endian"), std::string::npos);
  gguf.magic ^= 1;
  EXPECT_EQ(parse_status(gguf).code(), StatusCode::kCorrupt);
}

TEST(Gguf, RefusesCounts) {
  GgufBuilder gguf = small_file();
  for (const std::uint64_t count : {std::uint64_t{200'001}, UINT64_MAX, std::uint64_t{1} << 32}) {
    gguf.tensor_count = count;
    EXPECT_EQ(parse_status(gguf).code(), StatusCode::kCorrupt);
    std::swap(gguf.tensor_count, gguf.metadata_count);
    EXPECT_EQ(parse_status(gguf).code(), StatusCode::kCorrupt);
    std::swap(gguf.tensor_count, gguf.metadata_count);
  }
}

/// A file whose only metadata value is these bytes of this type.
Status parse_value(std::uint32_t type, std::string_view bytes) {
  GgufBuilder gguf;
  gguf.add_key("key", type);
  gguf.add_raw(bytes);
  return parse_status(gguf);
}

std::string words(const std::vector<std::uint64_t>& values) {
  std::string bytes;
  for (const std::uint64_t value : values) append(bytes, value);
  return bytes;
}

TEST(Gguf, RefusesMetadataLengths) {
  EXPECT_EQ(parse_value(GgufBuilder::kString, words({UINT64_MAX})).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_value(GgufBuilder::kString, words({UINT64_MAX - 60})).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_value(GgufBuilder::kString, words({1000})).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_value(7, "\x02").code(), StatusCode::kCorrupt);  // neither true nor false
  EXPECT_EQ(parse_value(13, words({0, 0})).code(), StatusCode::kCorrupt);
  std::string huge_array;
  append(huge_array, std::uint32_t{10});  // 2^61 numbers of 8 bytes: 0 modulo 2^64
  EXPECT_EQ(parse_value(GgufBuilder::kArray, huge_array + words({std::uint64_t{1} << 61, 0})).code(),
            StatusCode::kCorrupt);
}

TEST(Gguf, LimitsArrayDepth) {
  const auto nested = [](int depth) {
    std::string bytes;
    for (int i = 0; i < depth; ++i) {
      append(bytes, i + 1 < depth ? GgufBuilder::kArray : std::uint32_t{0});
      append(bytes, std::uint64_t{i + 1 < depth ? 1U : 0U});
    }
    return bytes;
  };
  EXPECT_TRUE(parse_value(GgufBuilder::kArray, nested(4)).ok());
  EXPECT_EQ(parse_value(GgufBuilder::kArray, nested(5)).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_value(GgufBuilder::kArray, nested(100'000)).code(), StatusCode::kCorrupt);
}

TEST(Gguf, RefusesDuplicates) {
  GgufBuilder metadata = small_file();
  metadata.add_u32("number", 8);
  EXPECT_EQ(parse_status(metadata).message(), "x.gguf: number: is there twice");
  GgufBuilder tensors = small_file();
  tensors.add_tensor("a", {1}, kF32Type, "aaaa");
  EXPECT_EQ(parse_status(tensors).message(), "x.gguf: a: is there twice");
}

TEST(Gguf, ChecksAlignment) {
  for (const std::uint32_t alignment : {0U, 3U, 48U, 131072U, 0xFFFFFFFFU}) {
    GgufBuilder gguf = small_file();
    gguf.add_u32("general.alignment", alignment);
    EXPECT_EQ(parse_status(gguf).code(), StatusCode::kCorrupt) << alignment;
  }
  GgufBuilder gguf;
  gguf.alignment = 64;
  gguf.add_u32("general.alignment", 64);
  gguf.add_tensor("a", {3}, kF32Type, std::string(12, 'a'));
  gguf.add_tensor("b", {1}, kF32Type, "bbbb");
  EXPECT_TRUE(parse_status(gguf).ok());
  GgufBuilder crooked;
  crooked.add_table_row("a", {1}, kF32Type, 4);
  crooked.add_data(64);
  EXPECT_NE(parse_status(crooked).message().find("multiple of 32"), std::string::npos);
}

Status parse_row(const std::vector<std::uint64_t>& dimensions, std::uint32_t type, std::uint64_t offset) {
  GgufBuilder gguf;
  gguf.add_table_row("t", dimensions, type, offset);
  gguf.add_data(128);
  return parse_status(gguf);
}

TEST(Gguf, RefusesExtents) {
  EXPECT_TRUE(parse_row({32}, kF32Type, 0).ok());
  EXPECT_EQ(parse_row({32}, kF32Type, 32).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_row({33}, kF32Type, 0).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_row({8}, kF32Type, 1ULL << 40).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_row({8}, kF32Type, UINT64_MAX - 31).code(), StatusCode::kCorrupt);  // offset + size wraps to 0
}

TEST(Gguf, RefusesShapes) {
  EXPECT_EQ(parse_row({}, kF32Type, 0).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_row({1, 1, 1, 1, 1}, kF32Type, 0).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_row({0, 4}, kF32Type, 0).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_row({UINT64_MAX}, kF32Type, 0).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_row({1ULL << 62, 4}, kF32Type, 0).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_row({1ULL << 32, 1ULL << 32}, kF32Type, 0).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_row({1ULL << 31, 1ULL << 31, 4}, 24, 0).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_row({16}, ggml::kQ8_0, 0).code(), StatusCode::kCorrupt);  // half a block
  EXPECT_EQ(parse_row({32}, 4, 0).code(), StatusCode::kUnsupported);        // a type that was removed
}

TEST(Gguf, RefusesOverlaps) {
  GgufBuilder gguf;
  gguf.add_table_row("a", {16}, kF32Type, 0);
  gguf.add_table_row("b", {8}, kF32Type, 32);
  gguf.add_data(128);
  EXPECT_NE(parse_status(gguf).message().find("overlaps"), std::string::npos);
  GgufBuilder reversed;
  reversed.add_table_row("b", {8}, kF32Type, 32);
  reversed.add_table_row("a", {8}, kF32Type, 0);
  reversed.add_data(64);
  EXPECT_TRUE(parse_status(reversed).ok());
}

TEST(GgufCheckpoint, RefusesWrongShapesTypesAndNames) {
  GgufBuilder builder = small_file();
  builder.add_tensor("q2", {256, 1}, 10, std::string(84, 'c'));
  builder.add_tensor("nan", {1}, kF32Type, std::string("\x00\x00\xc0\x7f", 4));
  const std::string file = builder.file();
  const auto checkpoint = make_gguf_checkpoint(as_bytes(file), nullptr, "x.gguf");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  const Checkpoint& model = **checkpoint;
  EXPECT_TRUE(model.matrix("b", 2, 32).ok());
  EXPECT_EQ(model.matrix("b", 32, 2).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(model.matrix("a", 1, 3).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(model.matrix("c", 1, 3).status().message(), "x.gguf: c: is missing");
  EXPECT_EQ(model.matrix("q2", 1, 256).status().code(), StatusCode::kUnsupported);
  EXPECT_EQ(model.check_matrix("q2", 1, 256).code(), StatusCode::kUnsupported);
  EXPECT_TRUE(model.vector("a", 3).ok());
  EXPECT_EQ(model.vector("a", 4).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(model.vector("nan", 1).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(model.tensor_bytes(), 12 + 68 + 84 + 4);
}

TEST(GgufMetadata, BecomesConfigJson) {
  const std::string file = small_llama_gguf({"a", "b", "c", "d"}).file();
  const auto checkpoint = make_gguf_checkpoint(as_bytes(file), nullptr, "x.gguf");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  const Json expected = Json::parse(R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
      "num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2,
      "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "max_position_embeddings": 128, "rope_theta": 500000.0,
      "tie_word_embeddings": true, "vocab_size": 4})");
  EXPECT_EQ((*checkpoint)->config(), expected) << (*checkpoint)->config().dump();
  const auto spec = read_decoder_spec(**checkpoint);
  ASSERT_TRUE(spec.ok()) << spec.status().message();
  EXPECT_EQ(spec->head, spec->embedding);
  EXPECT_EQ(spec->norm_eps, 1e-5);
  EXPECT_EQ(spec->layers[0].q.row_order, RowOrder::kPairwiseRope);
  EXPECT_EQ(spec->layers[0].k.row_order, RowOrder::kPairwiseRope);
  EXPECT_EQ(spec->layers[0].q.heads, 2);
  EXPECT_EQ(spec->layers[0].k.heads, 1);
  EXPECT_EQ(spec->layers[0].v.row_order, RowOrder::kPlain);
}

TEST(GgufMetadata, ReadsVocabularyAndSpecialTokens) {
  GgufBuilder builder = small_llama_gguf({"a", "<|eot_id|>", "<|im_end|>", "d"});
  builder.add_integers("tokenizer.ggml.token_type", {1, 3, 1, 3});
  builder.add_u32("tokenizer.ggml.bos_token_id", 0);
  builder.add_u32("tokenizer.ggml.eos_token_id", 3);
  builder.add_u32("tokenizer.ggml.padding_token_id", 0xFFFFFFFFU);
  builder.add_u32("tokenizer.ggml.unknown_token_id", 400);
  const std::string file = builder.file();
  const auto gguf = parse_gguf(as_bytes(file), "x.gguf");
  ASSERT_TRUE(gguf.ok()) << gguf.status().message();
  const auto vocabulary = gguf_bpe_vocabulary(*gguf);
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.status().message();
  EXPECT_EQ(vocabulary->tokens.size(), 4U);
  EXPECT_EQ(vocabulary->token_types, (std::vector<std::int32_t>{1, 3, 1, 3}));
  EXPECT_EQ(vocabulary->bos_id, 0);
  EXPECT_FALSE(vocabulary->add_bos.has_value());
  const SpecialTokens special = gguf_special_tokens(*gguf);
  EXPECT_EQ(special.bos, "a");
  EXPECT_EQ(special.eos, "d");
  EXPECT_EQ(special.pad, "");
  EXPECT_EQ(special.unk, "");
  // Token 2 spells <|im_end|> but is no control token.
  EXPECT_EQ((*gguf_generation_config(*gguf))["eos_token_id"], Json::parse("[3, 1]"));
}

TEST(GgufMetadata, RefusesOtherVocabulariesByName) {
  GgufBuilder builder;
  builder.add_string("tokenizer.ggml.model", "rwkv");
  const std::string file = builder.file();
  const auto gguf = parse_gguf(as_bytes(file), "x.gguf");
  const Status status = gguf_tokenizer(*gguf).status();
  EXPECT_EQ(status.code(), StatusCode::kUnsupported);
  EXPECT_NE(status.message().find("'rwkv'"), std::string::npos);
}

TEST(GgufMetadata, RefusesContradictions) {
  const auto open_status = [](const GgufBuilder& builder) {
    const std::string file = builder.file();
    return make_gguf_checkpoint(as_bytes(file), nullptr, "x.gguf").status();
  };
  GgufBuilder no_architecture;
  EXPECT_EQ(open_status(no_architecture).message(), "x.gguf: general.architecture: is missing");
  GgufBuilder split = small_llama_gguf({"a", "b"});
  split.add_u32("split.count", 3);
  EXPECT_EQ(open_status(split).code(), StatusCode::kUnsupported);
  GgufBuilder more_tokens;
  more_tokens.add_string("general.architecture", "llama");
  more_tokens.add_strings("tokenizer.ggml.tokens", {"a", "b", "c"});
  more_tokens.add_tensor("token_embd.weight", {4, 2}, kF32Type, std::string(32, '\0'));
  EXPECT_EQ(open_status(more_tokens).code(), StatusCode::kCorrupt);
  GgufBuilder uneven;
  uneven.add_string("general.architecture", "llama");
  uneven.add_integers("llama.attention.head_count_kv", {1, 2});
  EXPECT_NE(open_status(uneven).message().find("layer to layer"), std::string::npos);
}

TEST(GgufMetadata, NamesUnknownArchitectures) {
  GgufBuilder builder;
  builder.add_string("general.architecture", "mystery");
  const std::string file = builder.file();
  const auto checkpoint = make_gguf_checkpoint(as_bytes(file), nullptr, "x.gguf");
  ASSERT_TRUE(checkpoint.ok());
  const Status status = read_decoder_spec(**checkpoint).status();
  EXPECT_EQ(status.code(), StatusCode::kUnsupported);
  EXPECT_EQ(status.message(), "x.gguf: general.architecture: 'mystery' is not known; `lanner list` says which are");
}

using Numbers = std::vector<std::pair<std::string, std::uint32_t>>;

/// What is said of a file without tensors, with these numbers in its metadata.
std::string error_with(const Numbers& numbers, const std::string& scaling_type = "none") {
  GgufBuilder builder;
  builder.add_string("general.architecture", "llama");
  builder.add_strings("tokenizer.ggml.tokens", {"a", "b"});
  builder.add_string("llama.rope.scaling.type", scaling_type);
  for (const auto& [key, value] : numbers) builder.add_u32("llama." + key, value);
  const std::string file = builder.file();
  const auto checkpoint = make_gguf_checkpoint(as_bytes(file), nullptr, "x.gguf");
  const Status status = checkpoint.ok() ? read_decoder_spec(**checkpoint).status() : checkpoint.status();
  return std::string(status.message());
}

TEST(GgufMetadata, MissingKeysAreNamedAsInTheFile) {
  const Numbers needed{
      {"embedding_length", 32}, {"feed_forward_length", 64}, {"attention.head_count", 2}, {"block_count", 1}};
  for (const auto& [missing, value] : needed) {
    Numbers others = needed;
    std::erase_if(others, [&](const auto& number) { return number.first == missing; });
    EXPECT_EQ(error_with(others), "x.gguf: llama." + missing + ": is missing");
  }
  EXPECT_EQ(error_with({{"rope.dimension_count", 16}}), "x.gguf: llama.embedding_length: is missing");
  EXPECT_EQ(error_with(needed, "linear"), "x.gguf: llama.rope.scaling.factor: is missing");
  GgufBuilder no_vocabulary;
  no_vocabulary.add_string("general.architecture", "llama");
  const std::string file = no_vocabulary.file();
  const auto checkpoint = make_gguf_checkpoint(as_bytes(file), nullptr, "x.gguf");
  EXPECT_EQ(read_decoder_spec(**checkpoint).status().message(), "x.gguf: token_embd.weight: is missing");
}

TEST(GgufMetadata, WrongValuesAreNamedAsInTheFile) {
  const auto with = [](const std::string& key, std::uint32_t value, const std::string& scaling_type = "none") {
    Numbers numbers{{"embedding_length", 64}, {"feed_forward_length", 64}, {"attention.head_count", 4},
                    {"block_count", 1},       {"rope.scaling.factor", 2},  {"context_length", 128}};
    std::erase_if(numbers, [&](const auto& number) { return number.first == key; });
    numbers.emplace_back(key, value);
    return error_with(numbers, scaling_type);
  };
  EXPECT_EQ(with("block_count", 0), "x.gguf: llama.block_count: 0 is not in 1..1024");
  EXPECT_EQ(with("attention.head_count", 3),
            "x.gguf: llama.embedding_length: 64 is not a multiple of llama.attention.head_count 3");
  EXPECT_EQ(with("attention.head_count_kv", 3),
            "x.gguf: llama.attention.head_count_kv: 3 does not divide llama.attention.head_count 4");
  EXPECT_EQ(with("expert_count", 8), "x.gguf: llama.expert_count: mixture of experts is not implemented");
  EXPECT_EQ(with("rope.dimension_count", 8).find("x.gguf: llama.rope.dimension_count: "), 0U);
  EXPECT_EQ(with("rope.scaling.factor", 0, "linear").find("x.gguf: llama.rope.scaling.factor: 0 is not in "), 0U);
  EXPECT_EQ(with("rope.scaling.original_context_length", 0, "yarn")
                .find("x.gguf: llama.rope.scaling.original_context_length: 0 is not in "),
            0U);
  EXPECT_EQ(with("rope.scaling.attn_factor", 2, "yarn"),
            "x.gguf: llama.rope.scaling.attn_factor: only 1 is implemented");
  EXPECT_EQ(with("block_count", 1, "other").find("x.gguf: llama.rope.scaling.type: 'other' is not "), 0U);
  EXPECT_EQ(with("block_count", 1, "longrope"), "x.gguf: rope_factors_short.weight: is missing");
}

/// What is said of a small Llama with these factors of LongRoPE, 8 pairs a head.
std::string longrope_error(std::uint32_t type, std::uint64_t pairs, const std::string& bytes) {
  GgufBuilder builder = small_llama_gguf({"a", "b"});
  builder.add_f32("llama.rope.scaling.attn_factor", 1.25F);
  for (const char* name : {"rope_factors_short.weight", "rope_factors_long.weight"}) {
    builder.add_tensor(name, {pairs}, type, bytes);
  }
  const std::string file = builder.file();
  const auto checkpoint = make_gguf_checkpoint(as_bytes(file), nullptr, "x.gguf");
  if (!checkpoint.ok()) return std::string(checkpoint.status().message());
  const auto spec = read_decoder_spec(**checkpoint);
  if (!spec.ok()) return std::string(spec.status().message());
  const RopeSpec& rope = spec->ropes.front();
  EXPECT_EQ(rope.kind, RopeKind::kLongRope);
  EXPECT_EQ(rope.attention_factor, 1.25);
  EXPECT_EQ(rope.long_factors, std::vector<double>(8, 2.0));
  return "";
}

TEST(GgufMetadata, LongRopeListsAreTensors) {
  std::string twos;
  for (int i = 0; i < 8; ++i) twos += std::string("\0\0\0\x40", 4);  // 2.0F
  EXPECT_EQ(longrope_error(kF32Type, 8, twos), "");
  EXPECT_EQ(longrope_error(kF32Type, 7, twos.substr(4)),
            "x.gguf: rope_factors_short.weight: is not a list of 8 numbers");
  EXPECT_EQ(longrope_error(kF32Type, 8, std::string(32, '\0')).find("x.gguf: rope_factors_short.weight: holds 0,"), 0U);
  EXPECT_EQ(longrope_error(kF32Type, 513, std::string(4 * 513, '\0')),
            "x.gguf: rope_factors_short.weight: is not a factor for each pair of a head");
  EXPECT_EQ(longrope_error(ggml::kQ8_0, 32, std::string(34, '\0')),
            "x.gguf: rope_factors_short.weight: is not a dense tensor");
}

TEST(GgufMetadata, ErrorsWithTheNameOfAnArchitectureAreOneLine) {
  GgufBuilder builder;
  builder.add_string("general.architecture", "a\nb");
  builder.add_u32("a\nb.rope.dimension_count", 16);
  const std::string file = builder.file();
  const auto checkpoint = make_gguf_checkpoint(as_bytes(file), nullptr, "x.gguf");
  EXPECT_EQ(checkpoint.status().message(), "x.gguf: a?b.embedding_length: is missing");
}

}  // namespace
}  // namespace lanner::model
