#include <fmt/format.h>

#include <utility>

#include "engine/open_engine.h"
#include "lanner/pipeline.h"
#include "model/checkpoint.h"
#include "net/hub.h"
#include "pipeline/make_pipeline.h"
#include "text/template_choice.h"

namespace lanner {
namespace {

constexpr std::string_view kNoTemplate =
    "the model has no chat template: messages reach it as plain text (--chat-template sets one)";

std::string chosen_note(std::string_view name) {
  return fmt::format(
      "the model has no chat template: taking the built-in '{}', by its path or architecture (--chat-template sets "
      "one)",
      name);
}

/// What config.json calls the model's class; empty where it does not say.
std::string architecture_of(const model::Checkpoint& checkpoint) {
  const auto list = checkpoint.config().find("architectures");
  if (list == checkpoint.config().end() || !list->is_array() || list->empty()) return {};
  return list->front().is_string() ? list->front().get<std::string>() : std::string();
}

Result<ChatTemplate> choose_template(const model::Checkpoint& checkpoint, const std::string& option,
                                     std::vector<std::string>& notes) {
  if (!option.empty()) return ChatTemplate::from_option(option, checkpoint.special_tokens());
  const std::optional<std::string> source = checkpoint.chat_template();
  if (source) return ChatTemplate::from_jinja(*source, checkpoint.special_tokens(), checkpoint.path());
  const std::string_view name = builtin_template_for(checkpoint.path(), architecture_of(checkpoint));
  notes.emplace_back(name.empty() ? std::string(kNoTemplate) : chosen_note(name));
  return ChatTemplate::from_name(name.empty() ? "base" : name, checkpoint.special_tokens());
}

/// A path as it is; what a hub calls a model is looked for in its cache, and downloaded.
Result<std::string> find_model(const std::string& model, const PipelineOptions& options) {
  net::ModelRequest request{.model = model, .revision = options.revision, .download_dir = options.download_dir};
  request.note = options.on_note;
  if (options.download_progress) {
    request.progress = [&](const net::DownloadProgress& progress) { options.download_progress(progress.share()); };
  }
  return net::find_model(request);
}

}  // namespace

Result<std::unique_ptr<Pipeline>> Pipeline::open(const std::string& model, const PipelineOptions& options) {
  LANNER_ASSIGN_OR_RETURN(const model::ModelFormat format, model::model_format(options.engine.model_format));
  LANNER_ASSIGN_OR_RETURN(const std::string model_path, find_model(model, options));
  const DeviceWarmUp warm_up(options.engine.device);
  LANNER_ASSIGN_OR_RETURN(auto checkpoint, model::open_checkpoint(model_path, {.format = format}));
  // What is quick to check comes before the weights are loaded.
  std::vector<std::string> notes;
  LANNER_ASSIGN_OR_RETURN(auto chat_template, choose_template(*checkpoint, options.chat_template, notes));
  LANNER_ASSIGN_OR_RETURN(auto tokenizer, checkpoint->tokenizer());
  LANNER_ASSIGN_OR_RETURN(auto defaults, model::read_generation_defaults(*checkpoint));
  LANNER_ASSIGN_OR_RETURN(OpenedEngine opened, open_engine(checkpoint, options.engine, options.load_progress));
  notes.insert(notes.end(), opened.notes.begin(), opened.notes.end());
  return make_pipeline({.engine = std::move(opened.engine),
                        .tokenizer = std::move(tokenizer),
                        .chat_template = std::move(chat_template),
                        .special_tokens = checkpoint->special_tokens(),
                        .defaults = std::move(defaults),
                        .model_name = net::model_name(model_path),
                        .architecture = std::move(opened.architecture),
                        .device = std::move(opened.device),
                        .loading = std::move(opened.loading),
                        .notes = std::move(notes)});
}

}  // namespace lanner
