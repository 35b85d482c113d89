// The fields of /v1/messages, /v1/responses and /pooling.

#include <array>

#include "server/common_fields.h"
#include "server/request_fields.h"

namespace lanner::server {
namespace {

using K = FieldKind;

constexpr std::array kTalk{
    Field{"model", K::kString, "The name that /v1/models shows; this one where it is left out"},
    Field{"messages", K::kList, "The conversation. One that ends with the assistant's words is gone on with", 1, 16384,
          true},
    Field{"system", K::kItems, "What stands in front of the conversation: text, or blocks of it", 0, kAnySize},
    Field{"thinking", K::kObject,
          "Thoughts of models that have them: enabled (needs --reasoning-parser), disabled or adaptive, by its type; a "
          "budget changes nothing"},
    Field{"tools", K::kList, "Functions that the model may call; needs --tool-call-parser", 0, 128},
    Field{"tool_choice", K::kObject, "none, auto (the default), any or tool, by its type"},
    Field{"output_config", K::kObject,
          "format holds the answer to a JSON schema; effort is a variable of some chat templates"},
    Field{"context_management", K::kObject, "The conversation is taken as it is sent", 0, 0, false,
          R"([{}, {"edits": []}, {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}])"},
    Field{"thread", K::kObject, "Nothing is stored: send the conversation", 0, 0, false, "[]"},
    Field{"cache_control", K::kObject, "Prompts are cached by what they have in common: changes nothing", 0, 8},
};

constexpr std::array kMessage{
    Field{"max_tokens", K::kInteger, "Longest answer", 1, kAnySize, true},
    Field{"stop_sequences", K::kStops, "End before any of these texts", 0, 16},
    Field{"metadata", K::kObject, "For the caller's own books: changes nothing", 0, 64},
    Field{"service_tier", K::kString, "There is one", 0, 0, false, R"(["auto", "standard_only"])"},
};

constexpr std::array kResponse{
    Field{"model", K::kString, "The name that /v1/models shows; this one where it is left out"},
    Field{"input", K::kItems,
          "What to answer: text, or the messages, function calls and outputs, and thoughts of a conversation", 1, 16384,
          true},
    Field{"instructions", K::kString, "What stands in front of the conversation", 0, kAnySize},
    Field{"max_output_tokens", K::kInteger, "Longest answer; what the context leaves where it is not given", 1,
          kAnySize},
    Field{"stop", K::kStops, "End before any of these texts", 0, 16},
    Field{"include", K::kList, "message.output_text.logprobs says how likely each token was", 0, 0, false,
          R"([[], ["message.output_text.logprobs"], ["reasoning.encrypted_content"]])"},
    Field{"top_logprobs", K::kInteger, "And this many others", 0, 20},
    Field{"stream_options", K::kObject, R"(Only {"include_obfuscation": false})", 0, 8},
    Field{"reasoning", K::kObject, "The effort is a variable of some chat templates", 0, 8},
    Field{"text", K::kObject, "What the answer must be, by the type of its format: text, json_object or json_schema"},
    Field{"tools", K::kList, "Functions that the model may call; needs --tool-call-parser", 0, 128},
    Field{"tool_choice", K::kChoice, "none, auto (the default), required, or the function that must be called"},
    Field{"parallel_tool_calls", K::kBoolean, "Several calls in one answer (the default)"},
    Field{"store", K::kBoolean, "Nothing is stored", 0, 0, false, "[false]"},
    Field{"background", K::kBoolean, "Not available", 0, 0, false, "[false]"},
    Field{"previous_response_id", K::kString, "Nothing is stored: send the conversation", 0, 0, false, "[\"\"]"},
    Field{"truncation", K::kString, "A prompt is never cut", 0, 0, false, R"(["disabled"])"},
    Field{"service_tier", K::kString, "There is one", 0, 0, false, R"(["auto", "default"])"},
    Field{"metadata", K::kObject, "Comes back in the answer and changes nothing", 0, 64},
    Field{"user", K::kString, "For the caller's own books: changes nothing", 0, 4096},
    Field{"safety_identifier", K::kString, "For the caller's own books: changes nothing", 0, 4096},
    Field{"prompt_cache_key", K::kString, "Prompts are cached by what they have in common: changes nothing", 0, 4096},
};

constexpr std::array kPooling{
    Field{"pooling", K::kString, "Of the last hidden states: the last token's, or the mean", 0, 0, false,
          R"(["last", "mean"])"},
    Field{"normalize", K::kBoolean, "Scale each to length 1; not so by default"},
};

}  // namespace

std::span<const Fields> pooling_fields() {
  static constexpr std::array<Fields, 2> kTables{kVectors, kPooling};
  return kTables;
}

std::span<const Fields> message_fields() {
  static constexpr std::array<Fields, 4> kTables{kTalk, kMessage, kTemplate, kDrawing};
  return kTables;
}

std::span<const Fields> count_tokens_fields() {
  static constexpr std::array<Fields, 2> kTables{kTalk, kTemplate};
  return kTables;
}

std::span<const Fields> response_fields() {
  static constexpr std::array<Fields, 3> kTables{kResponse, kTemplate, kDrawing};
  return kTables;
}

}  // namespace lanner::server
