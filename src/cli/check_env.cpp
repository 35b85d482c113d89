// lanner check_env: what was built, and what this machine offers.

#include <fmt/format.h>
#include <sys/utsname.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/output.h"
#include "cli/verbs.h"
#include "core/cpu_info.h"
#include "core/mapped_file.h"
#include "core/processors.h"
#include "lanner/version.h"
#include "ops/backend.h"

namespace lanner::cli {
namespace {

using Facts = nlohmann::ordered_json;

struct CheckEnvFlags {
  bool json = false;
  std::string dump_file;
};

/// The first line of a small file of the kernel's, or "none".
std::string kernel_value(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  return std::getline(file, line) && !line.empty() ? line : "none";
}

void add_cuda_facts(const ops::CudaSupport& support, Facts& facts) {
  facts["CUDA available"] = support.built && support.problem.empty();
  facts["CUDA"] = support.problem;
  if (!support.built) return;
  const std::string driver = support.driver.empty() ? "none" : "for CUDA " + support.driver;
  facts["CUDA"] = fmt::format("built with {}, driver {}{}", support.runtime, driver,
                              support.problem.empty() ? "" : "; " + support.problem);
  for (std::size_t index = 0; index < support.devices.size(); ++index) {
    const ops::CudaSupport::Device& device = support.devices[index];
    facts[fmt::format("CUDA device {}", index)] =
        fmt::format("{}, {}, compute capability {}, {} multiprocessors{}", device.name,
                    format_bytes(static_cast<double>(device.memory_bytes)), device.capability, device.multiprocessors,
                    device.usable ? "" : " (too old: 8.0 is the least)");
  }
}

Facts collect_facts() {
  utsname system{};
  const bool known = ::uname(&system) == 0;
  Facts facts;
  facts["lanner"] = version();
  facts["build"] = LANNER_BUILD_TYPE;
  facts["compiler"] = LANNER_COMPILER;
  facts["platform"] = known ? fmt::format("{} {} {}", system.sysname, system.release, system.machine) : "unknown";
  facts["processor"] = cpu_model_name();
  facts["instructions"] = cpu_isa_name(selected_cpu_isa());
  facts["instructions available"] = cpu_isa_name(detected_cpu_isa());
  facts["threads"] = available_processors();
  facts["memory available"] = format_bytes(static_cast<double>(available_memory_bytes()));
  facts["cgroup memory.max"] = kernel_value("/sys/fs/cgroup/memory.max");
  facts["cgroup cpu.max"] = kernel_value("/sys/fs/cgroup/cpu.max");
  add_cuda_facts(ops::cuda_support(), facts);
  return facts;
}

std::string as_lines(const Facts& facts) {
  std::string text;
  for (const auto& [key, value] : facts.items()) {
    text += fmt::format("{}: {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
  }
  return text;
}

int run_check_env(const CheckEnvFlags& flags) {
  const Facts facts = collect_facts();
  const std::string json = facts.dump(2, ' ', false, Facts::error_handler_t::replace) + "\n";
  if (!flags.dump_file.empty()) {
    const bool as_json = flags.dump_file.ends_with(".json");
    // The lines are YAML as they are.
    if (!as_json && !flags.dump_file.ends_with(".yml") && !flags.dump_file.ends_with(".yaml")) {
      return report(unsupported("--dump-file: the name must end in .json, .yml or .yaml"));
    }
    const Status status = write_file_atomically(flags.dump_file, as_json ? json : as_lines(facts));
    if (!status.ok()) return report(status);
  }
  return report_write(write_stdout(flags.json ? json : as_lines(facts)));
}

}  // namespace

void add_check_env(CLI::App& program, Run& run) {
  const auto flags = std::make_shared<CheckEnvFlags>();
  CLI::App* verb = program.add_subcommand("check_env", "Show what was built and what this machine offers");
  verb->add_flag("--json", flags->json, "As one JSON object");
  verb->add_option("--dump-file", flags->dump_file, "Also write it to this .json or .yml file");
  verb->callback([&run, flags] { run = [flags] { return run_check_env(*flags); }; });
}

}  // namespace lanner::cli
