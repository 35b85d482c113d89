// What engine_flags.h says of finding and opening a model.

#include <fmt/format.h>

#include <filesystem>
#include <functional>
#include <utility>

#include "cli/engine_flags.h"
#include "cli/interrupts.h"
#include "cli/output.h"
#include "cli/progress_bar.h"
#include "cli/verbs.h"
#include "core/user_folders.h"
#include "net/hub.h"

namespace lanner::cli {
namespace {

constexpr const char* kDefaultModel = "lanner/models/smollm2-135m-instruct-q4_1.gguf";

Result<std::string> default_model() {
  const std::filesystem::path folder = user_cache_folder();
  if (folder.empty()) {
    return not_found("no MODEL is given, and neither HOME nor XDG_CACHE_HOME says where the default one is");
  }
  std::string path = (folder / kDefaultModel).string();
  std::error_code error;
  if (std::filesystem::exists(path, error)) return path;
  return not_found(
      fmt::format("the default model is not there ({}): run `make chat` to fetch it, or give a MODEL", path));
}

/// 1234567 as 1,234,567; not negative.
std::string grouped(std::int64_t number) {
  if (number < 1000) return std::to_string(number);
  return fmt::format("{},{:03}", grouped(number / 1000), number % 1000);
}

void print_opened(const std::string& model, const std::string& architecture, const std::string& device,
                  const std::string& loading, const MemoryPlan& plan) {
  write_stderr(printable(fmt::format("{}, {}, on {}\n", model, architecture, device)));
  const auto line = [](std::string_view what, std::int64_t bytes, const std::string& remark) {
    return fmt::format("{:<12}{:>10}{}\n", what, format_bytes(static_cast<double>(bytes)), remark);
  };
  write_stderr(line("weights", plan.weight_bytes, "") +
               (plan.copy_bytes > 0 ? line("in fp16", plan.copy_bytes, "  the same again, for many rows") : "") +
               line("workspace", plan.workspace_bytes, "") +
               line("KV cache", plan.kv_bytes,
                    fmt::format("  {} blocks, {} tokens in {}", grouped(plan.kv_blocks), grouped(plan.kv_tokens),
                                plan.kv_type)) +
               line("free memory", plan.free_bytes,
                    device.starts_with("cuda") ? "  of the device, before the KV cache" : "  before the KV cache") +
               fmt::format("{:<16}{}\n", "loading", printable(loading)));
}

}  // namespace

Result<std::string> resolve_model(const ModelFlags& flags) {
  if (flags.model.empty()) return default_model();
  ProgressBar bar("downloading");
  InterruptFlag interrupt;
  net::ModelRequest request{.model = flags.model, .revision = flags.revision, .download_dir = flags.download_dir};
  request.progress = [&](const net::DownloadProgress& progress) { bar.set(progress.share()); };
  request.note = [&](std::string_view text) {
    bar.clear();
    note(printable(text));
  };
  request.cancelled = &interrupt.flag();
  Result<std::string> path = net::find_model(request);
  if (path.ok() || path.status().code() != StatusCode::kCancelled) return path;
  bar.clear();
  note("stopped; what has come is kept, and the next start goes on from there");
  interrupt.end_program();
}

Result<std::unique_ptr<Pipeline>> open_with_progress(const std::string& path, PipelineOptions options, bool show) {
  Result<std::unique_ptr<Pipeline>> pipeline = internal_error("not opened");
  {
    ProgressBar bar("loading");
    if (show) options.load_progress = [&bar](double share) { bar.set(share); };
    options.engine.on_note = [](std::string_view text) { warn(printable(text)); };
    pipeline = Pipeline::open(path, options);
  }
  if (!pipeline.ok()) return pipeline;
  for (const std::string& text : (*pipeline)->notes()) note(text);
  if (show) {
    Pipeline& opened = **pipeline;
    print_opened(opened.model_name(), opened.architecture(), opened.device(), opened.loading(),
                 opened.engine().memory_plan());
  }
  return pipeline;
}

Result<OpenedEngine> open_engine_with_progress(const std::shared_ptr<const model::Checkpoint>& checkpoint,
                                               const std::string& name, const EngineOptions& options, bool show) {
  Result<OpenedEngine> opened = internal_error("not opened");
  {
    ProgressBar bar("loading");
    std::function<void(double)> progress;
    if (show) progress = [&bar](double share) { bar.set(share); };
    EngineOptions telling = options;
    telling.on_note = [](std::string_view text) { warn(printable(text)); };
    opened = open_engine(checkpoint, telling, progress);
  }
  if (!opened.ok()) return opened;
  for (const std::string& text : opened->notes) note(text);
  if (show) print_opened(name, opened->architecture, opened->device, opened->loading, opened->engine->memory_plan());
  return opened;
}

}  // namespace lanner::cli
