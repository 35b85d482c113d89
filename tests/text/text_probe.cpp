// The way into src/text for the Python comparison tests; nothing that ships.
//
//   text_probe encode  SOURCE [--literal] [--no-special]
//   text_probe decode  SOURCE [--skip-special]
//   text_probe stream  SOURCE [--skip-special]
//   text_probe render  --template VALUE
//
// Records come on stdin and go to stdout as a 32-bit little-endian length and that many bytes. encode reads UTF-8 and
// answers int32 ids; decode and stream read int32 ids and answer UTF-8, at once or token by token; render reads a JSON
// object with the members of ChatTemplateInputs and SpecialTokens and answers the prompt. An answer that begins with
// the length 0xFFFFFFFF is an error: a second record with its text follows.
// SOURCE is one of
//   --tokenizer FILE       a tokenizer.json
//   --sentencepiece FILE   a tokenizer.model, without rules of any class
//   --gguf FILE            the vocabulary of a GGUF file
//   --folder FOLDER        the tokenizer of a model folder; config.json may be missing
// VALUE is what --chat-template accepts.

#include <fmt/format.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "core/mapped_file.h"
#include "model/folder_tokenizer.h"
#include "model/gguf.h"
#include "model/gguf_vocabulary.h"
#include "text/chat_template.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

namespace lanner {
namespace {

constexpr std::uint32_t kErrorMark = 0xFFFFFFFF;

struct Options {
  std::string mode;
  std::string tokenizer_path;
  std::string sentencepiece_path;
  std::string gguf_path;
  std::string folder;
  std::string template_value;
  EncodeOptions encode;
  bool skip_special = false;
};

bool read_record(std::string& record) {
  std::uint32_t size = 0;
  if (std::fread(&size, sizeof size, 1, stdin) != 1) return false;
  record.resize(size);
  return size == 0 || std::fread(record.data(), size, 1, stdin) == 1;
}

void write_record(const void* data, std::size_t size) {
  const auto length = static_cast<std::uint32_t>(size);
  std::fwrite(&length, sizeof length, 1, stdout);
  if (size > 0) std::fwrite(data, size, 1, stdout);
}

void write_error(const Status& status) {
  std::fwrite(&kErrorMark, sizeof kErrorMark, 1, stdout);
  const std::string text = fmt::format("{}: {}", status_code_name(status.code()), status.message());
  write_record(text.data(), text.size());
}

Result<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return not_found(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

Result<std::shared_ptr<const Tokenizer>> load_sentencepiece(const std::string& path) {
  LANNER_ASSIGN_OR_RETURN(const std::string file, read_file(path));
  LANNER_ASSIGN_OR_RETURN(SentencePieceModel parsed, parse_sentencepiece_model(file));
  return Tokenizer::from_sentencepiece(std::move(parsed), {}, path);
}

Result<std::shared_ptr<const Tokenizer>> load_gguf(const std::string& path) {
  LANNER_ASSIGN_OR_RETURN(const auto file, MappedFile::open(path));
  LANNER_ASSIGN_OR_RETURN(const model::Gguf gguf, model::parse_gguf(file->bytes(), path));
  return model::gguf_tokenizer(gguf);
}

Result<std::shared_ptr<const Tokenizer>> load_folder(const std::string& folder) {
  const Result<std::string> config = read_file(folder + "/config.json");
  return model::open_folder_tokenizer(folder, config.ok() ? model::Json::parse(*config) : model::Json::object());
}

Result<std::shared_ptr<const Tokenizer>> load(const Options& options) {
  if (!options.sentencepiece_path.empty()) return load_sentencepiece(options.sentencepiece_path);
  if (!options.gguf_path.empty()) return load_gguf(options.gguf_path);
  if (!options.folder.empty()) return load_folder(options.folder);
  LANNER_ASSIGN_OR_RETURN(const std::string text, read_file(options.tokenizer_path));
  return Tokenizer::from_json(text, options.tokenizer_path);
}

Result<std::string> stream(const std::shared_ptr<const Tokenizer>& tokenizer, std::span<const std::int32_t> ids,
                           bool skip_special) {
  IncrementalDetokenizer detokenizer(tokenizer, skip_special);
  std::string text;
  for (const std::int32_t id : ids) {
    LANNER_ASSIGN_OR_RETURN(const std::string part, detokenizer.push(id));
    text += part;
  }
  return text + detokenizer.finish();
}

void answer(const std::shared_ptr<const Tokenizer>& tokenizer, const Options& options, const std::string& record) {
  if (options.mode == "encode") {
    const auto ids = tokenizer->encode(record, options.encode);
    if (!ids.ok()) return write_error(ids.status());
    return write_record(ids->data(), ids->size() * sizeof(std::int32_t));
  }
  std::vector<std::int32_t> ids(record.size() / sizeof(std::int32_t));
  if (!ids.empty()) std::memcpy(ids.data(), record.data(), ids.size() * sizeof(std::int32_t));
  const auto text = options.mode == "stream" ? stream(tokenizer, ids, options.skip_special)
                                             : tokenizer->decode(ids, options.skip_special);
  if (!text.ok()) return write_error(text.status());
  write_record(text->data(), text->size());
}

Result<std::string> render(const Options& options, const std::string& record) {
  const auto object = nlohmann::ordered_json::parse(record);
  const SpecialTokens tokens = {.bos = object.value("bos", ""), .eos = object.value("eos", "")};
  LANNER_ASSIGN_OR_RETURN(const ChatTemplate chat, ChatTemplate::from_option(options.template_value, tokens));
  ChatTemplateInputs inputs;
  inputs.messages = object.at("messages");
  if (object.contains("tools")) inputs.tools = object["tools"];
  inputs.add_generation_prompt = object.value("add_generation_prompt", true);
  if (object.contains("documents")) inputs.documents = object["documents"];
  inputs.continue_final_message = object.value("continue_final_message", false);
  if (object.contains("extra")) inputs.extra = object["extra"];
  return chat.render(inputs);
}

int render_all(const Options& options) {
  std::string record;
  while (read_record(record)) {
    const Result<std::string> prompt = render(options, record);
    if (prompt.ok())
      write_record(prompt->data(), prompt->size());
    else
      write_error(prompt.status());
  }
  return 0;
}

std::string* value_of(std::string_view flag, Options& options) {
  if (flag == "--tokenizer") return &options.tokenizer_path;
  if (flag == "--sentencepiece") return &options.sentencepiece_path;
  if (flag == "--gguf") return &options.gguf_path;
  if (flag == "--folder") return &options.folder;
  if (flag == "--template") return &options.template_value;
  return nullptr;
}

bool parse(int argc, char** argv, Options& options) {
  if (argc < 2) return false;
  options.mode = argv[1];
  for (int i = 2; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag == "--literal") {
      options.encode.parse_special = false;
    } else if (flag == "--no-special") {
      options.encode.add_special_tokens = false;
    } else if (flag == "--skip-special") {
      options.skip_special = true;
    } else if (std::string* const value = value_of(flag, options); value != nullptr && i + 1 < argc) {
      *value = argv[++i];
    } else {
      return false;
    }
  }
  return options.mode == "encode" || options.mode == "decode" || options.mode == "stream" || options.mode == "render";
}

int run(int argc, char** argv) {
  Options options;
  if (!parse(argc, argv, options)) {
    fmt::print(stderr, "usage: see the head of text_probe.cpp\n");
    return 2;
  }
  if (options.mode == "render") return render_all(options);
  const auto tokenizer = load(options);
  if (!tokenizer.ok()) {
    fmt::print(stderr, "{}: {}\n", status_code_name(tokenizer.status().code()), tokenizer.status().message());
    return 1;
  }
  std::string record;
  while (read_record(record)) answer(*tokenizer, options, record);
  return 0;
}

}  // namespace
}  // namespace lanner

int main(int argc, char** argv) {
  try {
    return lanner::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
