#include "quant/awq.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "core/fnv1a.h"
#include "core/mapped_file.h"
#include "core/processors.h"
#include "core/thread_pool.h"
#include "lanner/version.h"
#include "model/decoder_config.h"
#include "model/json_reader.h"
#include "model/model_folder.h"
#include "quant/awq_folder.h"
#include "quant/awq_matrix.h"
#include "quant/calibration.h"
#include "quant/scale_search.h"
#include "quant/smoothing.h"
#include "quant/work_folder.h"

namespace lanner::quant {
namespace {

namespace fs = std::filesystem;

// What a weight costs besides the tokens that it is multiplied with, as if it were so many of them.
constexpr double kTokensOfSmoothing = 60;
constexpr double kTokensOfRounding = 200;
// Of a search for scales: samples that are tried, and what loading a layer with other weights costs.
constexpr std::size_t kSearchedSamples = 4;
constexpr double kTokensOfLoading = 200;

/// Of the calibration text's tokens.
std::uint64_t hash_of(const std::vector<std::span<const std::int32_t>>& windows) {
  std::uint64_t hash = kFnvOffset;
  for (const std::span<const std::int32_t> window : windows) {
    hash = fnv1a({reinterpret_cast<const char*>(window.data()), window.size_bytes()}, hash);
  }
  return hash;
}

/// What must be the same for a run to be gone on with.
model::Json settings_of(const model::Checkpoint& checkpoint, const AwqPlan& plan, const AwqOptions& options) {
  std::error_code error;
  const fs::path path = fs::weakly_canonical(checkpoint.path(), error);
  return {{"version", std::string(version())},
          {"model", error ? checkpoint.path() : path.string()},
          {"model size", checkpoint.tensor_bytes()},
          {"calibration", fmt::format("{} samples, {:016x}", options.windows.size(), hash_of(options.windows))},
          {"search of scales", options.search_scale},
          {"group size", plan.group_size}};
}

std::string scales_name(std::size_t layer) { return fmt::format("layer-{:05}.scales", layer); }

/// Scales of one layer, one group behind the other.
Status write_scales(const std::string& path, const GroupScales& scales) {
  std::string bytes;
  for (const std::vector<float>& group : scales) {
    bytes.append(reinterpret_cast<const char*>(group.data()), group.size() * sizeof(float));
  }
  return write_file_atomically(path, bytes);
}

Result<GroupScales> read_scales(const std::string& path, const std::vector<SmoothingGroup>& groups) {
  std::int64_t count = 0;
  for (const SmoothingGroup& group : groups) count += group.linears.front().cols;
  const std::int64_t size = count * static_cast<std::int64_t>(sizeof(float));
  LANNER_ASSIGN_OR_RETURN(const std::string bytes, read_file(path, size));
  if (static_cast<std::int64_t>(bytes.size()) != size) return corrupt(fmt::format("{}: ends too early", path));
  GroupScales scales;
  const char* place = bytes.data();
  for (const SmoothingGroup& group : groups) {
    scales.emplace_back(static_cast<std::size_t>(group.linears.front().cols));
    std::memcpy(scales.back().data(), place, scales.back().size() * sizeof(float));
    place += scales.back().size() * sizeof(float);
  }
  return scales;
}

/// The share that is done of what this run has to do.
class Progress {
 public:
  explicit Progress(const std::function<void(double)>& report) : report_(report) {}
  void expect(double work) { total_ += work; }
  void add(double work) {
    done_ += work;
    if (report_ && total_ > 0) report_(std::min(done_ / total_, 1.0));
  }

 private:
  const std::function<void(double)>& report_;
  double total_ = 0;
  double done_ = 0;
};

/// One run of quantize_awq().
class AwqRun {
 public:
  AwqRun(const model::Checkpoint& checkpoint, const AwqPlan& plan, const AwqOptions& options, WorkFolder& folder)
      : checkpoint_(checkpoint), plan_(plan), options_(options), folder_(folder), progress_(options.progress) {}

  Result<AwqResult> run() {
    LANNER_ASSIGN_OR_RETURN(const model::TensorMap tensors, model::open_model_tensors(checkpoint_.path()));
    LANNER_ASSIGN_OR_RETURN(const std::vector<OutputShard> shards, plan_shards(tensors, plan_));
    LANNER_RETURN_IF_ERROR(check_room(shards));
    const std::size_t first = done_layers();
    expect_work(first, shards);
    LANNER_RETURN_IF_ERROR(calibrate_from(first));
    LANNER_ASSIGN_OR_RETURN(const SmoothingFactors factors, read_factors());
    const int threads = options_.threads > 0 ? options_.threads : available_processors();
    LANNER_ASSIGN_OR_RETURN(const auto pool, ThreadPool::create(threads));
    const auto on_tensor = [&](std::int64_t elements) {
      progress_.add(static_cast<double>(elements) * kTokensOfRounding);
    };
    LANNER_RETURN_IF_ERROR(write_shards(checkpoint_, plan_, shards, factors, folder_.path(), *pool, on_tensor));
    LANNER_RETURN_IF_ERROR(write_texts(checkpoint_, plan_, shards, folder_.path()));
    AwqResult result{.source_bytes = checkpoint_.tensor_bytes(), .bytes = shard_bytes(shards)};
    for (const OutputShard& shard : shards) {
      result.matrices += std::ranges::count_if(
          shard.tensors, [](const OutputTensor& one) { return one.kind == OutputTensor::Kind::kRounded; });
    }
    return result;
  }

 private:
  CalibrationOptions calibration_options() {
    CalibrationOptions calibration{.windows = options_.windows, .threads = options_.threads};
    calibration.states[0] = folder_.scratch_file("hidden-0");
    calibration.states[1] = folder_.scratch_file("hidden-1");
    return calibration;
  }

  Status check_room(const std::vector<OutputShard>& shards) {
    std::error_code error;
    if (options_.resume) return {};  // a part of it is there
    constexpr std::int64_t kTextBytes = 64 << 20;
    return folder_.check_room(shard_bytes(shards) + state_bytes(plan_.spec, calibration_options()) + kTextBytes);
  }

  /// Layers whose scales are there already.
  std::size_t done_layers() const {
    if (options_.windows.empty()) return plan_.spec.layers.size();
    std::error_code error;
    std::size_t layer = 0;
    while (layer < plan_.spec.layers.size() && fs::exists(folder_.scratch_file(scales_name(layer)), error)) ++layer;
    return layer;
  }

  double layer_weights(std::size_t layer) const {
    double weights = 0;
    for (const LinearTensor& linear : linear_tensors(plan_.spec.layers[layer])) {
      weights += static_cast<double>(linear.rows) * static_cast<double>(linear.cols);
    }
    return weights;
  }

  void expect_work(std::size_t first_layer, const std::vector<OutputShard>& shards) {
    for (std::size_t layer = first_layer; layer < plan_.spec.layers.size(); ++layer) {
      const auto tokens = static_cast<double>(options_.windows.size() * options_.windows.front().size());
      progress_.expect(layer_weights(layer) * (tokens + kTokensOfSmoothing));
      if (!options_.search_scale) continue;
      const std::size_t groups = smoothing_groups(plan_.spec, plan_.spec.layers[layer]).size();
      progress_.expect(work_of_ratio(layer) * kSearchedRatios * static_cast<double>(groups));
    }
    for (const OutputShard& shard : shards) {
      for (const OutputTensor& tensor : shard.tensors) {
        progress_.expect(static_cast<double>(elements_of(tensor)) * kTokensOfRounding);
      }
    }
  }

  Status calibrate_from(std::size_t first_layer) {
    if (first_layer == plan_.spec.layers.size()) return {};
    CalibrationOptions calibration = calibration_options();
    calibration.first_layer = first_layer;
    std::size_t layer = first_layer;
    calibration.on_sample = [&] {
      progress_.add(layer_weights(layer) * static_cast<double>(options_.windows.front().size()));
    };
    calibration.on_layer = [&](std::size_t done, const LayerStatistics& statistics,
                               const ReadInput& read_input) -> Status {
      std::vector<double> ratios;
      if (options_.search_scale) {
        LANNER_ASSIGN_OR_RETURN(ratios, search(done, statistics, read_input));
      }
      LANNER_ASSIGN_OR_RETURN(
          const GroupScales scales,
          scales_of_layer(checkpoint_, plan_.spec, plan_.spec.layers[done], statistics, plan_.group_size, ratios));
      progress_.add(layer_weights(done) * kTokensOfSmoothing);
      layer = done + 1;
      return write_scales(folder_.scratch_file(scales_name(done)), scales);
    };
    return calibrate(checkpoint_, plan_.spec, calibration);
  }

  ScaleSearch scale_search() const {
    return {.group_size = plan_.group_size,
            .rows = static_cast<std::int64_t>(options_.windows.front().size()),
            .samples = std::min(options_.windows.size(), kSearchedSamples),
            .threads = options_.threads};
  }

  /// What trying one ratio costs: about half a layer for each sample.
  double work_of_ratio(std::size_t layer) const {
    const ScaleSearch search = scale_search();
    return layer_weights(layer) *
           (0.5 * static_cast<double>(search.samples) * static_cast<double>(search.rows) + kTokensOfLoading);
  }

  Result<std::vector<double>> search(std::size_t layer, const LayerStatistics& statistics,
                                     const ReadInput& read_input) {
    ScaleSearch search = scale_search();
    search.read_input = read_input;
    search.on_ratio = [&] { progress_.add(work_of_ratio(layer)); };
    return search_ratios(checkpoint_, plan_.spec, layer, statistics, search);
  }

  Result<SmoothingFactors> read_factors() const {
    SmoothingFactors factors;
    if (options_.windows.empty()) return factors;
    for (std::size_t i = 0; i < plan_.spec.layers.size(); ++i) {
      const std::vector<SmoothingGroup> groups = smoothing_groups(plan_.spec, plan_.spec.layers[i]);
      LANNER_ASSIGN_OR_RETURN(const GroupScales scales, read_scales(folder_.scratch_file(scales_name(i)), groups));
      add_factors(groups, scales, factors);
    }
    return factors;
  }

  const model::Checkpoint& checkpoint_;
  const AwqPlan& plan_;
  const AwqOptions& options_;
  WorkFolder& folder_;
  Progress progress_;
};

}  // namespace

std::int64_t largest_group_size(const model::DecoderSpec& spec, std::int64_t most) {
  const auto fits = [&](std::int64_t group) {
    return group <= most && std::ranges::all_of(spec.layers, [&](const model::LayerSpec& layer) {
             return std::ranges::all_of(linear_tensors(layer),
                                        [&](const LinearTensor& linear) { return linear.cols % group == 0; });
           });
  };
  const auto* found = std::ranges::find_if(kGroupSizes, fits);
  return found == std::end(kGroupSizes) ? 0 : *found;
}

Result<AwqPlan> plan_awq(const model::Checkpoint& checkpoint, std::int64_t group_size) {
  const std::string& path = checkpoint.path();
  if (checkpoint.kind() != model::CheckpointKind::kFolder || checkpoint.is_packed()) {
    return unsupported(fmt::format("{}: only a Hugging Face folder can be quantized", path));
  }
  AwqPlan plan{.group_size = group_size};
  LANNER_ASSIGN_OR_RETURN(plan.spec, model::read_decoder_spec(checkpoint));
  for (const model::LayerSpec& layer : plan.spec.layers) {
    for (const LinearTensor& linear : linear_tensors(layer)) {
      const auto wrong = [&](std::string_view why) { return fmt::format("{}: {}: {}", path, linear.name, why); };
      // A quantized matrix has no tensor of this name, and unpacking it would take long.
      if (checkpoint.config().contains("quantization_config")) return unsupported(wrong("is quantized already"));
      if (linear.rows % kRowsOfWord != 0) {
        return unsupported(wrong(fmt::format("{} rows; AWQ needs a multiple of {}", linear.rows, kRowsOfWord)));
      }
      if (linear.cols % group_size != 0) {
        return invalid_argument(wrong(fmt::format("groups of {} do not fit its {} columns", group_size, linear.cols)));
      }
    }
  }
  return plan;
}

Result<AwqResult> quantize_awq(const model::Checkpoint& checkpoint, const AwqPlan& plan, const AwqOptions& options) {
  LANNER_ASSIGN_OR_RETURN(
      WorkFolder folder, WorkFolder::open(options.destination, settings_of(checkpoint, plan, options), options.resume));
  AwqRun run(checkpoint, plan, options, folder);
  LANNER_ASSIGN_OR_RETURN(const AwqResult result, run.run());
  LANNER_RETURN_IF_ERROR(folder.finish());
  return result;
}

}  // namespace lanner::quant
