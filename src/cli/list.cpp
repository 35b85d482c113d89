// lanner list: what can be opened.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "cli/output.h"
#include "cli/verbs.h"
#include "model/arch/registry.h"
#include "text/template_pieces.h"

namespace lanner::cli {
namespace {

/// One section for each thing that architectures were compared with, in the order in which the registry has them.
std::string architecture_table() {
  std::vector<std::string_view> sections;
  std::size_t name_columns = 0;
  std::size_t type_columns = 0;
  for (const auto& architecture : model::arch::kArchitectures) {
    if (std::ranges::find(sections, architecture.checked) == sections.end()) sections.push_back(architecture.checked);
    name_columns = std::max(name_columns, architecture.name.size());
    type_columns = std::max(type_columns, architecture.model_type.size());
  }
  std::string text;
  for (const std::string_view section : sections) {
    text += fmt::format("\nCompared: {}\n", section);
    for (const auto& architecture : model::arch::kArchitectures) {
      if (architecture.checked != section) continue;
      const std::string gguf = architecture.gguf.empty() ? "" : fmt::format(", GGUF ({})", architecture.gguf);
      text += fmt::format("  {:<{}}  {:<{}}  Hugging Face folder{}\n", architecture.name, name_columns,
                          architecture.model_type, type_columns, gguf);
    }
  }
  return text;
}

int run_list() {
  std::string text =
      "The supported architectures are, each with its model_type and the forms in which it can be opened:\n" +
      architecture_table();
  // The sentence of LMDeploy's `list`, which scripts look for.
  text += "\nThe supported chat template names are:\n";
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
