#include "quant/quantize_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "core/fnv1a.h"
#include "core/processors.h"
#include "lanner/version.h"
#include "model/model_folder.h"
#include "quant/smoothing.h"

namespace lanner::quant {
namespace {

namespace fs = std::filesystem;

// What writing a weight costs, as if it were multiplied with so many tokens.
constexpr double kTokensOfRounding = 200;

/// Of the calibration text's tokens.
std::uint64_t hash_of(const std::vector<std::span<const std::int32_t>>& windows) {
  std::uint64_t hash = kFnvOffset;
  for (const std::span<const std::int32_t> window : windows) {
    hash = fnv1a({reinterpret_cast<const char*>(window.data()), window.size_bytes()}, hash);
  }
  return hash;
}

}  // namespace

void Progress::add(double work) {
  done_ += work;
  if (report_ && total_ > 0) report_(std::min(done_ / total_, 1.0));
}

model::Json calibration_settings(const model::Checkpoint& checkpoint, const Options& options) {
  std::error_code error;
  const fs::path path = fs::weakly_canonical(checkpoint.path(), error);
  return {{"version", std::string(version())},
          {"model", error ? checkpoint.path() : path.string()},
          {"model size", checkpoint.tensor_bytes()},
          {"calibration", fmt::format("{} samples, {:016x}", options.windows.size(), hash_of(options.windows))}};
}

model::Json settings_of(const model::Checkpoint& checkpoint, const Plan& plan, const Options& options) {
  model::Json settings = calibration_settings(checkpoint, options);
  settings["method"] = method_name(plan.method);
  settings["symmetry"] = plan.grouping.symmetric;
  settings["group size"] = plan.grouping.size;
  return settings;
}

QuantizeRun::QuantizeRun(const model::Checkpoint& checkpoint, const Plan& plan, const Options& options,
                         WorkFolder& folder)
    : checkpoint_(checkpoint), plan_(plan), options_(options), folder_(folder), progress_(options.progress) {}

Result<Outcome> QuantizeRun::run() {
  LANNER_ASSIGN_OR_RETURN(const model::TensorMap tensors, model::open_model_tensors(checkpoint_.path()));
  LANNER_ASSIGN_OR_RETURN(const std::vector<OutputShard> shards, plan_shards(tensors, plan_));
  LANNER_RETURN_IF_ERROR(check_room(shards));
  LANNER_ASSIGN_OR_RETURN(pool_, ThreadPool::create(options_.threads > 0 ? options_.threads : available_processors()));
  const std::size_t first = done_layers();
  expect_work(first, shards);
  LANNER_RETURN_IF_ERROR(calibrate_from(first));
  LANNER_ASSIGN_OR_RETURN(const FolderContents made, contents());
  const auto on_tensor = [&](std::int64_t elements) {
    progress_.add(static_cast<double>(elements) * kTokensOfRounding);
  };
  LANNER_RETURN_IF_ERROR(write_shards(checkpoint_, plan_, shards, made, folder_.path(), on_tensor));
  LANNER_RETURN_IF_ERROR(write_texts(checkpoint_, plan_, shards, folder_.path()));
  Outcome outcome{.source_bytes = checkpoint_.tensor_bytes(), .bytes = shard_bytes(shards)};
  for (const OutputShard& shard : shards) {
    outcome.matrices += std::ranges::count_if(
        shard.tensors, [](const OutputTensor& one) { return one.kind == OutputTensor::Kind::kRounded; });
  }
  LANNER_RETURN_IF_ERROR(folder_.finish());
  return outcome;
}

double QuantizeRun::layer_weights(std::size_t layer) const { return quant::layer_weights(plan_.spec.layers[layer]); }

CalibrationOptions calibration_options(const Options& options, const WorkFolder& folder) {
  CalibrationOptions calibration{.windows = options.windows, .threads = options.threads};
  calibration.states[0] = folder.scratch_file("hidden-0");
  calibration.states[1] = folder.scratch_file("hidden-1");
  return calibration;
}

std::size_t done_layers(const WorkFolder& folder, std::size_t layers,
                        const std::function<std::string(std::size_t)>& file) {
  std::error_code error;
  std::size_t layer = 0;
  while (layer < layers && fs::exists(folder.scratch_file(file(layer)), error)) ++layer;
  return layer;
}

Status QuantizeRun::check_room(const std::vector<OutputShard>& shards) const {
  if (options_.resume) return {};  // a part of it is there
  constexpr std::int64_t kTextBytes = 64 << 20;
  const std::int64_t scratch = options_.windows.empty() ? 0 : layer_file_bytes(shards);
  return folder_.check_room(shard_bytes(shards) + state_bytes(plan_.spec, calibration_options(options_, folder_)) +
                            scratch + kTextBytes);
}

std::size_t QuantizeRun::done_layers() const {
  if (options_.windows.empty()) return plan_.spec.layers.size();
  return quant::done_layers(folder_, plan_.spec.layers.size(), [this](std::size_t layer) { return layer_file(layer); });
}

double QuantizeRun::work_of_sample(std::size_t layer) const {
  return static_cast<double>(tokens()) * (layer_weights(layer) + extra_work_of_token(layer));
}

void QuantizeRun::expect_work(std::size_t first_layer, const std::vector<OutputShard>& shards) {
  for (std::size_t layer = first_layer; layer < plan_.spec.layers.size(); ++layer) {
    const auto samples = static_cast<double>(options_.windows.size());
    progress_.expect(work_of_sample(layer) * samples * passes(layer) + work_behind(layer));
  }
  for (const OutputShard& shard : shards) {
    for (const OutputTensor& tensor : shard.tensors) {
      progress_.expect(static_cast<double>(elements_of(tensor)) * kTokensOfRounding);
    }
  }
}

Status QuantizeRun::calibrate_from(std::size_t first_layer) {
  if (first_layer == plan_.spec.layers.size()) return {};
  CalibrationOptions calibration = calibration_options(options_, folder_);
  calibration.first_layer = first_layer;
  std::size_t layer = first_layer;
  calibration.on_sample = [&] { progress_.add(work_of_sample(layer)); };
  LANNER_RETURN_IF_ERROR(prepare(first_layer, calibration));
  calibration.on_layer = [&, finish = std::move(calibration.on_layer)](std::size_t done, const ReadInput& read_input) {
    const Status status = finish(done, read_input);
    layer = done + 1;
    return status;
  };
  return calibrate(checkpoint_, plan_.spec, calibration);
}

}  // namespace lanner::quant
