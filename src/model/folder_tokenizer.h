#pragma once
// The tokenizer of a Hugging Face model folder.
//
// Of several files the first of these counts: tokenizer.json, tokenizer.model (SentencePiece, or glm-4's ranks),
// qwen.tiktoken. Beside the last two, tokenizer_config.json, special_tokens_map.json and added_tokens.json say which
// tokens are added, whether BOS and EOS go around a text, and how the class that Transformers would take behaves.

#include <memory>
#include <string>

#include "lanner/status.h"
#include "model/json_reader.h"
#include "text/tokenizer.h"

namespace lanner::model {

/// `config` is the folder's config.json. kNotFound when there is no tokenizer, kCorrupt also when a token's id is past
/// the model's vocabulary, kUnsupported for a file of ranks of an unknown class.
Result<std::shared_ptr<const Tokenizer>> open_folder_tokenizer(const std::string& folder, const Json& config);

}  // namespace lanner::model
