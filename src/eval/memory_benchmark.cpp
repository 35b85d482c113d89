#include "eval/memory_benchmark.h"

#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <fstream>
#include <utility>

#include "engine/open_engine.h"
#include "ops/backend.h"

namespace lanner::eval {

std::optional<std::int64_t> resident_bytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    if (word != "RssAnon:") continue;
    std::int64_t kibibytes = 0;
    if (status >> kibibytes) return kibibytes * 1024;
  }
  return std::nullopt;
}

namespace {

/// Gives back what the engine before has left with the allocator, so that it does not count again.
void trim_heap() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

}  // namespace

Result<MemoryFigures> measure_memory(const std::shared_ptr<const model::Checkpoint>& checkpoint,
                                     const MemoryBenchmarkOptions& options) {
  MemoryFigures figures;
  const std::size_t total = options.policies.size() * options.ratios.size();
  for (const QuantPolicy policy : options.policies) {
    for (const double ratio : options.ratios) {
      EngineOptions engine = options.engine;
      engine.quant_policy = policy;
      engine.cache_max_entry_count = ratio;
      trim_heap();
      const std::int64_t free_before = engine.device == Device::kCpu ? 0 : ops::cuda_free_bytes(0);
      LANNER_ASSIGN_OR_RETURN(const OpenedEngine opened, open_engine(checkpoint, engine, nullptr));
      MemoryUse use{.ratio = ratio, .plan = opened.engine->memory_plan(), .resident_bytes = {}};
      if (opened.ran_on == Device::kCpu) {
        use.resident_bytes = resident_bytes();
      } else if (free_before > 0) {
        use.resident_bytes = free_before - ops::cuda_free_bytes(0);
      }
      figures.uses.push_back(std::move(use));
      figures.architecture = opened.architecture;
      figures.device = opened.device;
      for (const std::string& note : opened.notes) {
        if (std::ranges::find(figures.notes, note) == figures.notes.end()) figures.notes.push_back(note);
      }
      if (options.progress) {
        options.progress(static_cast<std::int64_t>(figures.uses.size()), static_cast<std::int64_t>(total));
      }
    }
  }
  return figures;
}

LineChart memory_chart(const std::string& title, const MemoryFigures& figures) {
  constexpr double kGigabyte = 1e9;
  LineChart chart{.title = title, .x_label = "cache-max-entry-count", .y_label = "memory in GB", .series = {}};
  std::vector<ChartSeries> resident;
  for (const MemoryUse& use : figures.uses) {
    const std::string planned_name = use.plan.kv_type + " planned";
    if (chart.series.empty() || chart.series.back().name != planned_name) {
      chart.series.push_back({.name = planned_name, .dashed = true, .color = chart.series.size(), .points = {}});
      resident.push_back({.name = use.plan.kv_type + " resident", .color = resident.size(), .points = {}});
    }
    chart.series.back().points.push_back({use.ratio, static_cast<double>(use.planned_bytes()) / kGigabyte});
    if (use.resident_bytes) {
      resident.back().points.push_back({use.ratio, static_cast<double>(*use.resident_bytes) / kGigabyte});
    }
  }
  for (ChartSeries& series : resident) {
    if (!series.points.empty()) chart.series.push_back(std::move(series));
  }
  return chart;
}

}  // namespace lanner::eval
