// lanner list: what can be opened.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>
#include <vector>

#include "cli/output.h"
#include "cli/verbs.h"
#include "model/arch/registry.h"
#include "text/template_pieces.h"

namespace lanner::cli {
namespace {

int run_list() {
  std::string text = "The supported architectures are:\n";
  for (const auto& architecture : model::arch::kArchitectures) {
    const std::string files = architecture.gguf.empty()
                                  ? "Hugging Face folders"
                                  : fmt::format("Hugging Face folders, GGUF ({})", architecture.gguf);
    text += fmt::format("{}  (model_type {}): {}; checked: {}\n", architecture.name, architecture.model_type, files,
                        architecture.checked);
  }
  // The sentence of LMDeploy's `list`, which scripts look for.
  text += "The supported chat template names are:\n";
  std::vector<std::string> names;
  for (const TemplatePieces& pieces : builtin_templates()) names.push_back(pieces.names.front());
  std::ranges::sort(names);
  for (const std::string& name : names) text += name + "\n";
  return report_write(write_stdout(text));
}

}  // namespace

void add_list(CLI::App& program, Run& run) {
  CLI::App* verb = program.add_subcommand("list", "List the architectures and chat templates that are supported");
  verb->callback([&run] { run = run_list; });
}

}  // namespace lanner::cli
