#include "server/request_fields.h"

#include <array>

#include "server/common_fields.h"

namespace lanner::server {
namespace {

constexpr double kMostChoices = 128;

using K = FieldKind;

/// Where an answer ends, and how its text is written.
constexpr std::array kEnding{
    Field{"stop", K::kStops, "End before any of these texts", 0, 16},
    Field{"spaces_between_special_tokens", K::kBoolean, "Always so", 0, 0, false, "[true]"},
    Field{"include_stop_str_in_output", K::kBoolean, "Show what ended the answer"},
    Field{"min_new_tokens", K::kInteger, "Do not end before", 0, kAnySize},
    Field{"stop_token_ids", K::kTokens, "End at any of these tokens", 0, 64},
};

/// What OpenAI's two endpoints have in common.
constexpr std::array kOpenAi{
    Field{"model", K::kString, "The name that /v1/models shows; this one where it is left out"},
    Field{"n", K::kInteger, "How many answers", 1, kMostChoices},
    Field{"presence_penalty", K::kNumber, "Taken off the logit of a token that was generated before", -2, 2},
    Field{"frequency_penalty", K::kNumber, "The same for each time it was", -2, 2},
    Field{"logit_bias", K::kBiases, "Added to the logits of these tokens", 0, 1024},
    Field{"stream_options", K::kObject, R"({"include_usage": true} sends a last event with the counts)"},
    Field{"response_format", K::kObject,
          "What the answer must be: text, json_object, json_schema, regex_schema or grammar, by its type"},
    Field{"user", K::kString, "For the caller's own books: changes nothing", 0, 4096},
    Field{"session_id", K::kInteger, "Sessions are /v1/chat/interactive's", 0, 0, false, "[-1]"},
    Field{"repetition_ngram_size", K::kInteger, "Not available yet", 0, 0, false, "[0]"},
    Field{"repetition_ngram_threshold", K::kInteger, "Not available yet", 0, 0, false, "[0]"},
    Field{"return_token_ids", K::kBoolean, "Not available yet", 0, 0, false, "[false]"},
    Field{"adapter_name", K::kString, "Not available yet", 0, 0, false, "[\"\"]"},
};

constexpr std::array kChat{
    Field{"messages", K::kTalk, "The conversation. A string is taken as the prompt, without the chat template", 1,
          16384, true},
    Field{"max_completion_tokens", K::kInteger, "Longest answer; what the context leaves where it is not given", 1,
          kAnySize},
    Field{"max_tokens", K::kInteger, "The old name of max_completion_tokens", 1, kAnySize},
    Field{"logprobs", K::kBoolean, "Say how likely each token was"},
    Field{"top_logprobs", K::kInteger, "And this many others; needs logprobs", 0, 20},
    Field{"reasoning_effort", K::kString, "A variable of some chat templates", 0, 64},
    Field{"add_generation_prompt", K::kBoolean, "Begin an answer (the default)"},
    Field{"continue_final_message", K::kBoolean, "Go on with the last message instead of answering it"},
    Field{"tools", K::kList, "Functions that the model may call; needs --tool-call-parser", 0, 128},
    Field{"tool_choice", K::kChoice, "none, auto (the default), required, or the function that must be called"},
    Field{"parallel_tool_calls", K::kBoolean, "Several calls in one answer (the default)"},
    Field{"modalities", K::kList, "Only text", 0, 0, false, R"([["text"]])"},
    Field{"service_tier", K::kString, "There is one", 0, 0, false, R"(["auto", "default"])"},
    Field{"store", K::kBoolean, "Nothing is stored", 0, 0, false, "[false]"},
    Field{"metadata", K::kObject, "For the caller's own books: changes nothing", 0, 64},
    Field{"safety_identifier", K::kString, "For the caller's own books: changes nothing", 0, 4096},
    Field{"prompt_cache_key", K::kString, "Prompts are cached by what they have in common: changes nothing", 0, 4096},
    Field{"do_preprocess", K::kBoolean, "Give messages as a string for no template", 0, 0, false, "[true]"},
    Field{"return_logprob", K::kBoolean, "Use logprobs", 0, 0, false, "[false]"},
};

constexpr std::array kCompletion{
    Field{"prompt", K::kPrompt, "What to go on with: text, token ids, or a list of either", 1, kAnySize, true},
    Field{"max_tokens", K::kInteger, "Longest answer; what the context leaves where it is not given", 0, kAnySize},
    Field{"logprobs", K::kInteger, "Say how likely each token was, and this many others", 0, 20},
    Field{"echo", K::kBoolean, "Put the prompt in front of the answer; not together with logprobs"},
    Field{"suffix", K::kString, "Not available", 0, 0, false, "[\"\"]"},
    Field{"best_of", K::kInteger, "Not available", 0, 0, false, "[1]"},
};

constexpr std::array kGenerate{
    Field{"prompt", K::kString, "The prompt as text; this or input_ids", 1, kAnySize},
    Field{"input_ids", K::kTokens, "The prompt as token ids", 1, kAnySize},
    Field{"max_tokens", K::kInteger, "Longest answer; 128 where it is not given", 0, kAnySize},
    Field{"return_logprob", K::kBoolean, "Say how likely each token was"},
    Field{"session_id", K::kInteger, "Sessions are /v1/chat/interactive's", 0, 0, false, "[-1]"},
    Field{"image_data", K::kList, "Not available yet", 0, 0, false, "[[]]"},
};

constexpr std::array kInteractive{
    Field{"prompt", K::kTalk, "The new message, or several", 0, kAnySize, true},
    Field{"session_id", K::kInteger, "Which conversation; -1 draws a new one", -1, 9007199254740991.0},
    Field{"interactive_mode", K::kBoolean, "Keep the conversation for the next message"},
    Field{"cancel", K::kBoolean, "Stop the answer of this session that is being made"},
    Field{"request_output_len", K::kInteger, "Longest answer; 512 where it is not given", 0, kAnySize},
    Field{"image_url", K::kString, "Not available yet", 0, 0, false, "[\"\", []]"},
    Field{"adapter_name", K::kString, "Not available yet", 0, 0, false, "[\"\"]"},
};

constexpr std::array kEmbedding{
    Field{"pooling", K::kString, "Of the last hidden states: the mean, or the last token's", 0, 0, false,
          R"(["mean", "last"])"},
    Field{"dimensions", K::kInteger, "Not available: all are sent", 0, 0, false, "[]"},
    Field{"user", K::kString, "For the caller's own books: changes nothing", 0, 4096},
};

constexpr std::array kPpl{
    Field{"input", K::kPrompt, "Text or token ids, at least two tokens", 1, kAnySize, true},
    Field{"model", K::kString, "The name that /v1/models shows; this one where it is left out"},
};

constexpr std::array kEncode{
    Field{"input", K::kStrings, "The text or texts", 0, 1024, true},
    Field{"add_bos", K::kBoolean, "With the tokens that the tokenizer puts around a text (the default)"},
    Field{"do_preprocess", K::kBoolean, "Render the text with the chat template first"},
};

constexpr std::array kTokenize{
    Field{"prompt", K::kString, "The text; this or messages", 0, kAnySize},
    Field{"messages", K::kMessages, "A conversation, rendered by the chat template", 1, 16384},
    Field{"add_special_tokens", K::kBoolean, "With those that the tokenizer puts around a text (the default)"},
    Field{"model", K::kString, "The name that /v1/models shows; this one where it is left out"},
};

constexpr std::array kDetokenize{
    Field{"tokens", K::kTokens, "The ids", 0, 65'536, true},
    Field{"skip_special_tokens", K::kBoolean, "Leave special tokens out of the text; not so by default"},
    Field{"model", K::kString, "The name that /v1/models shows; this one where it is left out"},
};

constexpr std::array kAbort{
    Field{"abort_all", K::kBoolean, "Every answer that is being made"},
    Field{"session_id", K::kInteger, "The session whose answer is stopped", -1, 9007199254740991.0},
};

}  // namespace

std::span<const Fields> chat_fields() {
  static constexpr std::array<Fields, 5> kTables{kChat, kTemplate, kOpenAi, kDrawing, kEnding};
  return kTables;
}

std::span<const Fields> completion_fields() {
  static constexpr std::array<Fields, 4> kTables{kCompletion, kOpenAi, kDrawing, kEnding};
  return kTables;
}

std::span<const Fields> generate_fields() {
  static constexpr std::array<Fields, 3> kTables{kGenerate, kDrawing, kEnding};
  return kTables;
}

std::span<const Fields> interactive_fields() {
  static constexpr std::array<Fields, 3> kTables{kInteractive, kDrawing, kEnding};
  return kTables;
}

std::span<const Fields> embedding_fields() {
  static constexpr std::array<Fields, 2> kTables{kVectors, kEmbedding};
  return kTables;
}

std::span<const Fields> ppl_fields() {
  static constexpr std::array<Fields, 1> kTables{kPpl};
  return kTables;
}

std::span<const Fields> encode_fields() {
  static constexpr std::array<Fields, 1> kTables{kEncode};
  return kTables;
}

std::span<const Fields> tokenize_fields() {
  static constexpr std::array<Fields, 1> kTables{kTokenize};
  return kTables;
}

std::span<const Fields> abort_fields() {
  static constexpr std::array<Fields, 1> kTables{kAbort};
  return kTables;
}

std::span<const Fields> detokenize_fields() {
  static constexpr std::array<Fields, 1> kTables{kDetokenize};
  return kTables;
}

}  // namespace lanner::server
