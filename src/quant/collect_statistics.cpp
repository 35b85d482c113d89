#include "quant/collect_statistics.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/mapped_file.h"
#include "core/processors.h"
#include "core/thread_pool.h"
#include "model/group_quantization.h"
#include "model/torch_writer.h"
#include "quant/awq_matrix.h"
#include "quant/channel_statistics.h"
#include "quant/layer_products.h"
#include "quant/plan.h"
#include "quant/quantize_run.h"
#include "quant/scale_search.h"
#include "quant/smoothing.h"
#include "quant/work_folder.h"

namespace lanner::quant {
namespace {

constexpr std::int64_t kSearchGroup = 128;  // as LMDeploy's, or the largest below that fits

enum class StatisticsFile : std::uint8_t { kInputs, kOutputs, kKeys, kValues };

/// What the numbers of a part are.
enum class Source : std::uint8_t { kRead, kProduct, kFinalNorm, kKeys, kValues };

/// One entry of one file.
struct Part {
  StatisticsFile file = StatisticsFile::kInputs;
  std::string name;
  std::int64_t channels = 0;
  Source source = Source::kRead;
  LinearInput input = LinearInput::kAttention;  // that is read, or that the product is of
  std::size_t linear = 0;                       // of a product
};

/// A module's name without what its tensor adds.
std::string module_name(const std::string& tensor) {
  const std::string_view module = model::module_of(tensor);
  return module.empty() ? tensor : std::string(module);
}

/// What the names of a layer's modules have in common.
std::string layer_name(const std::vector<LinearTensor>& linears) {
  std::string_view common = linears.front().name;
  for (const LinearTensor& linear : linears) {
    const auto [end, other] = std::ranges::mismatch(common, linear.name);
    common = common.substr(0, static_cast<std::size_t>(end - common.begin()));
  }
  return std::string(common.substr(0, common.rfind('.')));
}

/// Everything that is kept of a layer, in the order of its file.
std::vector<Part> parts_of(const model::DecoderSpec& spec, std::size_t index) {
  const model::LayerSpec& layer = spec.layers[index];
  const std::vector<LinearTensor> linears = linear_tensors(layer);
  std::vector<Part> parts;
  for (const auto& [norm, input] :
       {std::pair{&layer.attention_norm, LinearInput::kAttention}, std::pair{&layer.mlp_norm, LinearInput::kMlp}}) {
    const bool known = norm == &layer.mlp_norm && norm->weight == layer.attention_norm.weight;
    if (norm->weight.empty() || known) continue;
    parts.push_back({.file = StatisticsFile::kOutputs,
                     .name = module_name(norm->weight),
                     .channels = spec.hidden,
                     .source = Source::kRead,
                     .input = input});
  }
  for (std::size_t i = 0; i < linears.size(); ++i) {
    const LinearTensor& linear = linears[i];
    Part part{.name = module_name(linear.name), .channels = linear.cols, .input = input_of(layer, linear.name)};
    parts.push_back(part);
    part.file = StatisticsFile::kOutputs;
    part.channels = linear.rows;
    part.source = Source::kProduct;
    part.linear = i;
    parts.push_back(part);
  }
  const std::int64_t head_channels = spec.kv_heads * spec.head_dim;
  const std::string name = layer_name(linears);
  parts.push_back({.file = StatisticsFile::kKeys, .name = name, .channels = head_channels, .source = Source::kKeys});
  parts.push_back(
      {.file = StatisticsFile::kValues, .name = name, .channels = head_channels, .source = Source::kValues});
  if (index + 1 == spec.layers.size() && !spec.final_norm.weight.empty()) {
    parts.push_back({.file = StatisticsFile::kOutputs,
                     .name = module_name(spec.final_norm.weight),
                     .channels = spec.hidden,
                     .source = Source::kFinalNorm});
  }
  return parts;
}

/// Collects the parts of a layer.
class PartCollector {
 public:
  PartCollector(const model::Checkpoint& checkpoint, const model::DecoderSpec& spec, const Options& options)
      : checkpoint_(checkpoint), spec_(spec), options_(options) {}

  /// Before the samples of a layer.
  Status begin(std::size_t layer) {
    parts_ = parts_of(spec_, layer);
    collected_.clear();
    for (const Part& part : parts_) collected_.emplace_back(part.channels);
    read_ = make_layer_statistics(spec_.layers[layer]);
    const auto rows = static_cast<std::int64_t>(options_.windows.front().size());
    LANNER_ASSIGN_OR_RETURN(
        products_, LayerProducts::load(checkpoint_, spec_, layer, {.rows = rows, .threads = options_.threads}));
    return {};
  }

  void observe(LinearInput which, std::span<const float> values) {
    read_.at(static_cast<std::size_t>(which)).add(values);
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      const Part& part = parts_[i];
      if (part.source != Source::kProduct || part.input != which) continue;
      collected_[i].add(products_->product(part.linear, values));
    }
  }

  void observe_sample(const LayerRunner& runner, std::span<const float> hidden) {
    runner.read_keys_and_values(keys_, values_);
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      if (parts_[i].source == Source::kKeys) collected_[i].add(keys_);
      if (parts_[i].source == Source::kValues) collected_[i].add(values_);
      if (parts_[i].source == Source::kFinalNorm) collected_[i].add(products_->final_norm(hidden));
    }
  }

  /// What the layer's products have read.
  const LayerStatistics& read() const { return read_; }

  /// All parts of the layer. kCorrupt where one is no number.
  Result<std::string> finish() {
    std::string bytes;
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      const Part& part = parts_[i];
      const bool is_read = part.source == Source::kRead;
      const ChannelStatistics& one = is_read ? read_.at(static_cast<std::size_t>(part.input)) : collected_[i];
      if (!one.finite()) {
        return corrupt(fmt::format("{}: {}: computes values that are not finite", checkpoint_.path(), part.name));
      }
      one.append_to(bytes);
    }
    products_.reset();
    return bytes;
  }

 private:
  const model::Checkpoint& checkpoint_;
  const model::DecoderSpec& spec_;
  const Options& options_;
  std::vector<Part> parts_;
  LayerStatistics read_;
  std::vector<ChannelStatistics> collected_;  // of the parts, but for those that are read
  std::unique_ptr<LayerProducts> products_;
  std::vector<float> keys_;
  std::vector<float> values_;
};

/// What the four files hold, layer after layer.
class Tables {
 public:
  Tables(const model::DecoderSpec& spec, bool has_ratios) : spec_(spec), has_ratios_(has_ratios) {
    const std::vector<std::string> channels{"max", "min", "mean", "absmax", "absmean"};
    const std::vector<std::string> heads{"max", "min", "absmax"};
    for (std::size_t file = 0; file < tables_.size(); ++file) {
      for (const std::string& key : is_of_heads(file) ? heads : channels) tables_.at(file).push_back({key, {}});
    }
    if (has_ratios) tables_[0].push_back({"ratios", {}});
  }

  /// What collecting has left of a layer, in `path`.
  Status add(std::size_t layer, const std::string& path) {
    constexpr std::int64_t kMostBytes = std::int64_t{1} << 32;
    LANNER_ASSIGN_OR_RETURN(const std::string content, read_file(path, kMostBytes));
    std::string_view bytes = content;
    for (const Part& part : parts_of(spec_, layer)) {
      auto statistics = ChannelStatistics::take_from(bytes, part.channels);
      if (!statistics.ok()) return with_context(statistics.status(), path);
      add(part, *statistics);
    }
    return has_ratios_ ? add_ratios(layer, bytes, path) : Status();
  }

  Status write(const WorkFolder& folder) const {
    constexpr std::array kNames{"inputs_stats.pth", "outputs_stats.pth", "key_stats.pth", "value_stats.pth"};
    for (std::size_t file = 0; file < tables_.size(); ++file) {
      LANNER_RETURN_IF_ERROR(model::write_torch_file(folder.file(kNames.at(file)), tables_.at(file)));
    }
    return {};
  }

 private:
  static bool is_of_heads(std::size_t file) { return file >= static_cast<std::size_t>(StatisticsFile::kKeys); }

  void add(const Part& part, const ChannelStatistics& statistics) {
    const auto file = static_cast<std::size_t>(part.file);
    std::vector<std::int64_t> shape{part.channels};
    if (is_of_heads(file)) shape = {spec_.kv_heads, spec_.head_dim};
    for (auto& [key, values] : tables_.at(file)) {
      if (key == "ratios") continue;
      values.emplace_back(part.name, model::torch_tensor(numbers(key, statistics), shape));
    }
  }

  static std::vector<float> numbers(const std::string& key, const ChannelStatistics& statistics) {
    if (key == "max") return {statistics.greatest().begin(), statistics.greatest().end()};
    if (key == "min") return {statistics.least().begin(), statistics.least().end()};
    if (key == "mean") return statistics.mean();
    return key == "absmax" ? statistics.absolute_greatest() : statistics.absolute_mean();
  }

  Status add_ratios(std::size_t layer, std::string_view bytes, const std::string& path) {
    const auto groups = smoothing_groups(spec_, spec_.layers[layer]);
    std::vector<double> ratios(groups.size());
    if (bytes.size() != ratios.size() * sizeof(double)) return corrupt(path + ": ends too early");
    std::memcpy(ratios.data(), bytes.data(), bytes.size());
    for (const LinearTensor& linear : linear_tensors(spec_.layers[layer])) {
      model::TorchValue ratio;
      for (std::size_t i = 0; i < groups.size(); ++i) {
        const auto is_it = [&](const LinearTensor& one) { return one.name == linear.name; };
        if (std::ranges::any_of(groups[i].linears, is_it)) ratio = ratios[i];
      }
      tables_[0].back().second.emplace_back(module_name(linear.name), ratio);
    }
    return {};
  }

  const model::DecoderSpec& spec_;
  const bool has_ratios_;
  std::array<model::TorchTable, 4> tables_;  // of each StatisticsFile
};

/// One run of collect_statistics().
class CollectRun {
 public:
  CollectRun(const model::Checkpoint& checkpoint, const model::DecoderSpec& spec, const SmoothingOptions& options,
             const WorkFolder& folder)
      : checkpoint_(checkpoint),
        spec_(spec),
        options_(options),
        folder_(folder),
        collector_(checkpoint, spec, options),
        progress_(options.progress) {}

  Status run() {
    CalibrationOptions calibration = calibration_options(options_, folder_);
    if (!options_.resume) LANNER_RETURN_IF_ERROR(folder_.check_room(state_bytes(spec_, calibration)));
    if (options_.search_scale) {
      LANNER_ASSIGN_OR_RETURN(pool_,
                              ThreadPool::create(options_.threads > 0 ? options_.threads : available_processors()));
    }
    calibration.first_layer = done_layers(folder_, spec_.layers.size(), layer_file);
    expect_work(calibration.first_layer);
    if (calibration.first_layer < spec_.layers.size()) LANNER_RETURN_IF_ERROR(collect_from(calibration));
    Tables tables(spec_, options_.search_scale);
    for (std::size_t layer = 0; layer < spec_.layers.size(); ++layer) {
      LANNER_RETURN_IF_ERROR(tables.add(layer, folder_.scratch_file(layer_file(layer))));
    }
    return tables.write(folder_);
  }

 private:
  static std::string layer_file(std::size_t layer) { return fmt::format("layer-{:05}.statistics", layer); }

  /// Each product is computed twice: by the layer, and by itself.
  double work_of_sample(std::size_t layer) const {
    return 2 * layer_weights(spec_.layers[layer]) * static_cast<double>(options_.windows.front().size());
  }

  void expect_work(std::size_t first) {
    for (std::size_t layer = first; layer < spec_.layers.size(); ++layer) {
      progress_.expect(work_of_sample(layer) * static_cast<double>(options_.windows.size()));
      if (!options_.search_scale) continue;
      progress_.expect(work_of_search(scale_search(), spec_, spec_.layers[layer]));
    }
  }

  Status collect_from(CalibrationOptions& calibration) {
    std::size_t layer = calibration.first_layer;
    calibration.on_sample = [&] { progress_.add(work_of_sample(layer)); };
    calibration.observe = [&](LinearInput which, std::span<const float> values) { collector_.observe(which, values); };
    calibration.observe_sample = [&](const LayerRunner& runner, std::span<const float> hidden) {
      collector_.observe_sample(runner, hidden);
    };
    calibration.on_layer = [&](std::size_t done, const ReadInput& read_input) -> Status {
      LANNER_RETURN_IF_ERROR(finish_layer(done, read_input));
      layer = done + 1;
      return layer < spec_.layers.size() ? collector_.begin(layer) : Status();
    };
    LANNER_RETURN_IF_ERROR(collector_.begin(layer));
    return calibrate(checkpoint_, spec_, calibration);
  }

  Status finish_layer(std::size_t layer, const ReadInput& read_input) {
    LANNER_ASSIGN_OR_RETURN(std::string bytes, collector_.finish());
    if (options_.search_scale) {
      ScaleSearch search = scale_search();
      search.read_input = read_input;
      search.on_formula = [&] { progress_.add(work_of_formula(search, spec_.layers[layer])); };
      LANNER_ASSIGN_OR_RETURN(const auto formulas,
                              search_formulas(checkpoint_, spec_, layer, collector_.read(), search));
      for (const ScaleFormula& formula : formulas) {
        bytes.append(reinterpret_cast<const char*>(&formula.of_inputs), sizeof(double));
      }
    }
    return write_file_atomically(folder_.scratch_file(layer_file(layer)), bytes);
  }

  /// As LMDeploy's step has it: of weights of 4 bits.
  ScaleSearch scale_search() const {
    const Grouping grouping{.size = largest_group_size(spec_, kSearchGroup)};
    ScaleSearch search = make_scale_search(options_.windows, options_.threads);
    search.formulas = shared_formulas();
    search.group_size = grouping.size;
    search.round = [this, grouping](const DenseRows& matrix, std::span<const float> scales) {
      return rounded_weights(matrix, scales, grouping, *pool_);
    };
    return search;
  }

  const model::Checkpoint& checkpoint_;
  const model::DecoderSpec& spec_;
  const SmoothingOptions& options_;
  const WorkFolder& folder_;
  PartCollector collector_;
  Progress progress_;
  std::unique_ptr<ThreadPool> pool_;  // of a search; null without
};

}  // namespace

Status collect_statistics(const model::Checkpoint& checkpoint, const model::DecoderSpec& spec,
                          const SmoothingOptions& options) {
  if (options.windows.empty()) return invalid_argument("--calib-samples 0: leaves nothing to calibrate with");
  if (options.search_scale && largest_group_size(spec, kSearchGroup) == 0) {
    return unsupported(
        fmt::format("{}: no groups that scales could be searched for fit its matrices", checkpoint.path()));
  }
  model::Json settings = calibration_settings(checkpoint, options);
  settings["method"] = "calibrate";
  settings["search of scales"] = options.search_scale;
  LANNER_ASSIGN_OR_RETURN(WorkFolder folder, WorkFolder::open(options.destination, settings, options.resume));
  LANNER_RETURN_IF_ERROR(CollectRun(checkpoint, spec, options, folder).run());
  return folder.finish();
}

}  // namespace lanner::quant
