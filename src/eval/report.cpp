#include "eval/report.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>

#include "core/cpu_info.h"
#include "core/mapped_file.h"
#include "core/processors.h"
#include "lanner/version.h"

namespace lanner::eval {

std::string dtype_name(ComputeType type) {
  switch (type) {
    case ComputeType::kAuto: return "auto";
    case ComputeType::kFloat32: return "float32";
    case ComputeType::kFloat16: return "float16";
    case ComputeType::kBFloat16: return "bfloat16";
  }
  return "unknown";
}

nlohmann::ordered_json report_head(const std::string& kind, const Pipeline& pipeline, const EngineOptions& options) {
  return report_head(
      kind, {.model = pipeline.model_name(), .architecture = pipeline.architecture(), .device = pipeline.device()},
      options);
}

nlohmann::ordered_json report_head(const std::string& kind, const ReportSubject& subject,
                                   const EngineOptions& options) {
  const int threads = options.threads > 0 ? options.threads : available_processors();
  nlohmann::ordered_json head;
  head["kind"] = kind;
  head["date"] = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
  head["lanner"] = version();
  head["machine"] = {{"cpu", cpu_model_name()}, {"isa", cpu_isa_name(selected_cpu_isa())}, {"threads", threads}};
  head["model"] = subject.model;
  head["architecture"] = subject.architecture;
  head["device"] = subject.device;
  head["settings"] = {{"dtype", dtype_name(options.dtype)},
                      {"quant_policy", static_cast<int>(options.quant_policy)},
                      {"session_len", options.session_len},
                      {"max_batch_size", nullptr},
                      {"max_prefill_token_num", nullptr},
                      {"pin_threads", options.pin_threads},
                      {"numa", options.numa == NumaPolicy::kInterleave ? "interleave" : "system"}};
  if (options.max_batch_size) head["settings"]["max_batch_size"] = *options.max_batch_size;
  if (options.max_prefill_token_num) head["settings"]["max_prefill_token_num"] = *options.max_prefill_token_num;
  return head;
}

Status write_report(const nlohmann::ordered_json& report, const std::string& path) {
  const std::string text = report.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  return write_file_atomically(path, text);
}

}  // namespace lanner::eval
