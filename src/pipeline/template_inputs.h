#pragma once
// What a request gives the chat template: its messages and the JSON that came with them, checked. Pure functions.

#include "lanner/pipeline.h"
#include "text/chat_template.h"

namespace lanner {

/// kInvalidArgument, naming the message or the field, for text that is not UTF-8 and JSON of another shape.
Result<ChatTemplateInputs> template_inputs(const GenerationRequest& request);

}  // namespace lanner
