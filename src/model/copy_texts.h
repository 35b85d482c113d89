#pragma once
// The files of a model folder beside its weights, for whoever writes the model anew in another form.

#include <string>

#include "lanner/status.h"

namespace lanner::model {

/// Copies configuration, tokenizer, templates and a model's own Python files: regular files of those kinds of at most
/// 256 MiB; neither weights nor indexes of weights.
Status copy_texts(const std::string& folder, const std::string& target);

}  // namespace lanner::model
