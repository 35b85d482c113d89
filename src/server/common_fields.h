#pragma once
// Fields that requests of several protocols have.

#include <array>

#include "server/fields.h"

namespace lanner::server {

inline constexpr double kAnySize = 1 << 30;

/// How tokens are drawn.
inline constexpr std::array kDrawing{
    Field{"temperature", FieldKind::kNumber, "Spread of the choice; 0 is greedy", 0, 2},
    Field{"top_p", FieldKind::kNumber, "Choose among the best tokens that have this share together", 0, 1},
    Field{"top_k", FieldKind::kInteger, "Choose among this many best tokens; 0 and -1 are all", -1, kAnySize},
    Field{"min_p", FieldKind::kNumber, "Leave out tokens below this share of the best one", 0, 1},
    Field{"repetition_penalty", FieldKind::kNumber, "Above 1: avoid tokens that were there already", 0.01, 100},
    Field{"ignore_eos", FieldKind::kBoolean, "Go on where the model would end"},
    Field{"skip_special_tokens", FieldKind::kBoolean, "Leave special tokens out of the text (the default)"},
    Field{"seed", FieldKind::kInteger, "Repeat the same choices"},
    Field{"stream", FieldKind::kBoolean, "Send the answer as it comes"},
};

inline constexpr std::array kTemplate{
    Field{"chat_template_kwargs", FieldKind::kObject, "More variables for the chat template", 0, 64},
    Field{"enable_thinking", FieldKind::kBoolean, "A variable of some chat templates"},
};

/// What vectors are wanted of.
inline constexpr std::array kVectors{
    Field{"input", FieldKind::kPrompt, "Text, token ids, or a list of either", 1, kAnySize, true},
    Field{"model", FieldKind::kString, "The name that /v1/models shows; this one where it is left out"},
    Field{"encoding_format", FieldKind::kString, "float, or base64 of 32-bit floats, least byte first", 0, 0, false,
          R"(["float", "base64"])"},
};

}  // namespace lanner::server
