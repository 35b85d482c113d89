#pragma once
// What every measurement's JSON says besides its figures: machine, program, model, when.

#include <nlohmann/json.hpp>
#include <string>

#include "lanner/options.h"
#include "lanner/pipeline.h"
#include "lanner/status.h"

namespace lanner::eval {

/// What was measured.
struct ReportSubject {
  std::string model;
  std::string architecture;
  std::string device;
};

/// {"kind", "date" (UTC), "lanner" (version), "machine": {"cpu", "isa", "threads"}, "model", "architecture", "device",
/// "settings": {"dtype", "quant_policy", "session_len", "max_batch_size", "max_prefill_token_num", "pin_threads"}}
/// (null: by the device)
nlohmann::ordered_json report_head(const std::string& kind, const ReportSubject& subject, const EngineOptions& options);
nlohmann::ordered_json report_head(const std::string& kind, const Pipeline& pipeline, const EngineOptions& options);

/// "auto", "float32", …: the values of --dtype.
std::string dtype_name(ComputeType type);

/// Writes a file beside `path` and renames it, so that `path` is old or new but never half.
Status write_report(const nlohmann::ordered_json& report, const std::string& path);

}  // namespace lanner::eval
