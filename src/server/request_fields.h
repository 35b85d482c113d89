#pragma once
// The fields of every endpoint's body. docs/serving.md tells them to users; /openapi.json is made from them.

#include <span>

#include "server/fields.h"

namespace lanner::server {

std::span<const Fields> chat_fields();
std::span<const Fields> completion_fields();
std::span<const Fields> message_fields();
std::span<const Fields> count_tokens_fields();
std::span<const Fields> response_fields();
std::span<const Fields> generate_fields();
std::span<const Fields> interactive_fields();
std::span<const Fields> embedding_fields();
std::span<const Fields> pooling_fields();
std::span<const Fields> ppl_fields();
std::span<const Fields> encode_fields();
std::span<const Fields> tokenize_fields();
std::span<const Fields> detokenize_fields();
std::span<const Fields> abort_fields();

}  // namespace lanner::server
