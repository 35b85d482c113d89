#pragma once
// What the runs of all methods have in common: calibration layer by layer, of which a file for each layer keeps the
// result, then the folder, shard by shard. Both go on where a killed run stopped.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/thread_pool.h"
#include "lanner/status.h"
#include "model/json_reader.h"
#include "quant/calibration.h"
#include "quant/plan.h"
#include "quant/quantized_folder.h"
#include "quant/work_folder.h"

namespace lanner::quant {

/// Hears of work that is done.
class Progress {
 public:
  explicit Progress(const std::function<void(double)>& report) : report_(report) {}
  void expect(double work) { total_ += work; }
  void add(double work);

 private:
  const std::function<void(double)>& report_;
  double total_ = 0;
  double done_ = 0;
};

/// Windows, threads and the files of hidden states.
CalibrationOptions calibration_options(const Options& options, const WorkFolder& folder);
/// The first layers of which the scratch file is there.
std::size_t done_layers(const WorkFolder& folder, std::size_t layers,
                        const std::function<std::string(std::size_t)>& file);

/// What must be the same for a run to be gone on with, as far as every calibration has it, and of a plan.
model::Json calibration_settings(const model::Checkpoint& checkpoint, const Options& options);
model::Json settings_of(const model::Checkpoint& checkpoint, const Plan& plan, const Options& options);

class QuantizeRun {
 public:
  /// Borrows all of them.
  QuantizeRun(const model::Checkpoint& checkpoint, const Plan& plan, const Options& options, WorkFolder& folder);
  virtual ~QuantizeRun() = default;
  QuantizeRun(const QuantizeRun&) = delete;
  QuantizeRun& operator=(const QuantizeRun&) = delete;

  /// Everything, up to WorkFolder::finish().
  Result<Outcome> run();

 protected:
  /// The name of the scratch file that is there when a layer is done.
  virtual std::string layer_file(std::size_t layer) const = 0;
  /// What those of all layers take.
  virtual std::int64_t layer_file_bytes(const std::vector<OutputShard>& shards) const = 0;
  /// How often a sample goes through a layer, and what each time costs beside layer_weights() for each token.
  virtual int passes(std::size_t layer) const = 0;
  virtual double extra_work_of_token(std::size_t layer) const = 0;
  /// What else a layer costs; the method adds that to progress() itself.
  virtual double work_behind(std::size_t layer) const = 0;
  /// observe, on_layer and what else the method wants of calibration, which begins with the layer `first`.
  virtual Status prepare(std::size_t first, CalibrationOptions& calibration) = 0;
  virtual Result<FolderContents> contents() = 0;

  const model::Checkpoint& checkpoint() const { return checkpoint_; }
  const Plan& plan() const { return plan_; }
  const Options& options() const { return options_; }
  const WorkFolder& folder() const { return folder_; }
  Progress& progress() { return progress_; }
  ThreadPool& pool() { return *pool_; }
  double layer_weights(std::size_t layer) const;
  /// Of a sample.
  std::int64_t tokens() const { return static_cast<std::int64_t>(options_.windows.front().size()); }

 private:
  Status check_room(const std::vector<OutputShard>& shards) const;
  /// Layers that are done already.
  std::size_t done_layers() const;
  double work_of_sample(std::size_t layer) const;
  void expect_work(std::size_t first_layer, const std::vector<OutputShard>& shards);
  Status calibrate_from(std::size_t first_layer);

  const model::Checkpoint& checkpoint_;
  const Plan& plan_;
  const Options& options_;
  WorkFolder& folder_;
  Progress progress_;
  std::unique_ptr<ThreadPool> pool_;
};

}  // namespace lanner::quant
