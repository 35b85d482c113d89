#pragma once
// The flags of every verb that opens a model, with the names and meanings of LMDeploy's.
//
//   EngineFlags flags;                       // lives until the verb runs
//   verb->add_option("MODEL", flags.model, kModelHelp);
//   add_engine_flags(*verb, flags);          // and add_request_flags
//   …
//   LANNER_ASSIGN_OR_RETURN(PipelineOptions options, pipeline_options(flags));
//   LANNER_ASSIGN_OR_RETURN(std::string path, resolve_model(flags));
//   LANNER_ASSIGN_OR_RETURN(auto pipeline, open_with_progress(path, options, /*show_plan=*/true));

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/open_engine.h"
#include "lanner/pipeline.h"
#include "lanner/status.h"
#include "model/checkpoint.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace lanner::cli {

/// Which model.
struct ModelFlags {
  std::string model;         // a path, or what a hub calls it
  std::string revision;      // on the hub; empty: the newest
  std::string download_dir;  // empty: the hub's cache
};

struct EngineFlags : ModelFlags {
  double cache_max_entry_count = EngineOptions{}.cache_max_entry_count;
  int session_len = 0;
  std::optional<int> max_batch_size;
  std::optional<int> max_prefill_token_num;  // none: by the device
  std::string device = "auto";
  std::string dtype = "auto";
  std::string model_format;
  int threads = 0;
  bool pin_threads = false;
  std::string numa = "system";
  bool deterministic = false;
  bool enable_prefix_caching = false;  // the default already; accepted for scripts
  bool disable_prefix_caching = false;
  std::string quant_policy = "0";
  std::string w4_prefill_copy = "auto";
  std::string chat_template;
  // Accepted in one or two values so far; pipeline_options() says what is missing for the others.
  std::string backend;
  std::string async = "1";
  std::string communicator;
  std::string speculative_algorithm;
  std::string speculative_draft_model;
  std::vector<std::string> adapters;
  int tp = 1;
  int cp = 1;
  int speculative_num_draft_tokens = 1;
  double rope_scaling_factor = 0.0;
  bool trust_remote_code = false;
  bool language_model_only = false;
  // Of LMDeploy's other engine: accepted with a warning.
  bool eager_mode = false;
  std::string dllm_block_length;
  std::string prefix_cache_state_budget;
  std::string prefix_cache_decode_state_interval;
};

/// What MODEL may be.
inline constexpr const char* kModelHelp = "A Hugging Face model folder, a GGUF file, or ORG/NAME on a hub";

/// --revision and --download-dir.
void add_hub_flags(CLI::App& verb, ModelFlags& flags);
CLI::Option* add_model_format_flag(CLI::App& verb, std::string& model_format);
/// What an engine is set up with, those three included.
void add_engine_flags(CLI::App& verb, EngineFlags& flags);
/// What only a verb that answers requests leaves to its user: batch size, prefix cache, chat template. A verb that
/// measures settles them itself.
void add_request_flags(CLI::App& verb, EngineFlags& flags);

/// Checks the flags. Notes and warnings about values that change nothing go to stderr. kUnsupported for what is not
/// available yet.
Result<PipelineOptions> pipeline_options(const EngineFlags& flags);

/// The path of the model to open: of flags.model where that is one or what a hub calls a model, which may be
/// downloaded, with notes and a progress bar on stderr; when empty, of the default one that `make chat` fetches.
Result<std::string> resolve_model(const ModelFlags& flags);

/// Pipeline::open. `show` (usually: stderr is a terminal, or --verbose): a progress bar while it loads, where stderr is
/// a terminal, and then the memory plan, both on stderr.
Result<std::unique_ptr<Pipeline>> open_with_progress(const std::string& path, PipelineOptions options, bool show);
/// open_engine, for verbs that measure, in the same way; `name` is what the model is called.
Result<OpenedEngine> open_engine_with_progress(const std::shared_ptr<const model::Checkpoint>& checkpoint,
                                               const std::string& name, const EngineOptions& options, bool show);

}  // namespace lanner::cli
