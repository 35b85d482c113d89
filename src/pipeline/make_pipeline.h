#pragma once
// A Pipeline out of its parts: what Pipeline::open does once the model is open, and what tests do with a
// ScriptedEngine and a small tokenizer.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lanner/engine.h"
#include "lanner/pipeline.h"
#include "model/generation_config.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace lanner {

struct PipelineParts {
  std::unique_ptr<Engine> engine;
  std::shared_ptr<const Tokenizer> tokenizer;
  ChatTemplate chat_template;
  SpecialTokens special_tokens{};
  model::GenerationDefaults defaults{};
  std::string model_name{};
  std::string architecture{};
  std::string device{};
  std::string loading{};
  std::vector<std::string> notes{};
};

std::unique_ptr<Pipeline> make_pipeline(PipelineParts parts);

}  // namespace lanner
