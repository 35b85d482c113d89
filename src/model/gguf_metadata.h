#pragma once
// What a GGUF file says about its model, under the names that Hugging Face uses for it.
//
// llama.block_count becomes num_hidden_layers and so on, whatever the architecture. A missing key stays missing: who
// needs it says so. The vocabulary is read by gguf_vocabulary.h.

#include <optional>
#include <string>

#include "lanner/status.h"
#include "model/gguf.h"
#include "model/json_reader.h"
#include "text/chat_template.h"

namespace lanner::model {

/// The equal of config.json.
Result<Json> gguf_config(const Gguf& gguf);
/// The fields of a gguf_config(), with the file's own keys in errors.
JsonFields gguf_config_fields(const Json& config, const std::string& path);
/// The equal of generation_config.json: eos_token_id, with every token that ends a turn.
Result<Json> gguf_generation_config(const Gguf& gguf);

/// Empty texts where the file names no such token or names one that is not in its vocabulary.
SpecialTokens gguf_special_tokens(const Gguf& gguf);
std::optional<std::string> gguf_chat_template(const Gguf& gguf);

}  // namespace lanner::model
