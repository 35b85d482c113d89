#include <utility>

#include "engine/open_engine.h"
#include "lanner/pipeline.h"
#include "model/checkpoint.h"
#include "net/hub.h"
#include "pipeline/choose_template.h"
#include "pipeline/make_pipeline.h"

namespace lanner {
namespace {

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
  LANNER_ASSIGN_OR_RETURN(auto chosen, choose_template(*checkpoint, options.chat_template));
  std::vector<std::string> notes;
  if (!chosen.note.empty()) notes.push_back(std::move(chosen.note));
  LANNER_ASSIGN_OR_RETURN(auto tokenizer, checkpoint->tokenizer());
  LANNER_ASSIGN_OR_RETURN(auto defaults, model::read_generation_defaults(*checkpoint));
  LANNER_ASSIGN_OR_RETURN(OpenedEngine opened, open_engine(checkpoint, options.engine, options.load_progress));
  notes.insert(notes.end(), opened.notes.begin(), opened.notes.end());
  return make_pipeline({.engine = std::move(opened.engine),
                        .tokenizer = std::move(tokenizer),
                        .chat_template = std::move(chosen.chat_template),
                        .special_tokens = checkpoint->special_tokens(),
                        .defaults = std::move(defaults),
                        .model_name = net::model_name(model_path),
                        .architecture = std::move(opened.architecture),
                        .device = std::move(opened.device),
                        .loading = std::move(opened.loading),
                        .notes = std::move(notes)});
}

}  // namespace lanner
