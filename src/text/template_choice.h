#pragma once
// Which built-in chat template fits a checkpoint that brings none of its own.
//
// As in LMDeploy, the whole lower-cased path is searched for words, in order; the folders above the model's count too.
// Where the path says nothing, the architecture of config.json may. Pure functions.
//
//   builtin_template_for("/models/internlm2-chat-1_8b", "InternLM2ForCausalLM") == "internlm2"

#include <string_view>

namespace lanner {

/// The name of a built-in template; empty when neither path nor architecture says which.
std::string_view builtin_template_for(std::string_view model_path, std::string_view architecture);

}  // namespace lanner
