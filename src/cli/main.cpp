// The program: a table of verbs. Each is one file of this folder.

#include <array>
#include <csignal>
#include <exception>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>

#include "cli/arguments.h"
#include "cli/help.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "lanner/version.h"

namespace lanner::cli {
namespace {

using AddVerb = void (*)(CLI::App& program, Run& run);

constexpr std::array<AddVerb, 10> kVerbs{add_chat,      add_serve,   add_python_verbs, add_lite, add_eval,
                                         add_benchmark, add_convert, add_check_env,    add_list, add_completion};

constexpr const char* kDescription = "Lanner runs and measures large language models.";
constexpr const char* kExamples = R"(Examples:
  lanner chat                                  talk to the small default model (`make chat` fetches it)
  lanner chat path/to/model.gguf               a GGUF file, or a Hugging Face folder
  lanner chat org/name                         a model on the Hugging Face hub, downloaded once
  lanner chat MODEL --cache-max-entry-count 0.4 --session-len 4096
  echo "What is the capital of France?" | lanner chat MODEL
  lanner check_env                             what this machine offers
  lanner VERB --help                           the flags of a verb

Flags may be shortened (--cache-max 0.4) and written with underscores.)";

/// The innermost verb that was named.
const CLI::App& chosen(const CLI::App& app) {
  const auto verbs = app.get_subcommands();
  return verbs.empty() ? app : chosen(*verbs.back());
}

int run_program(const std::vector<std::string>& arguments) {
  if (const std::optional<int> code = run_python_verb(arguments)) return *code;
  CLI::App program(kDescription, "lanner");
  program.formatter(make_help_formatter());
  program.option_defaults()->always_capture_default();
  program.set_version_flag("-v,--version", version(), "Print the version");
  program.set_help_flag("-h,--help", "Print this help");
  program.footer(kExamples);
  Run run;
  for (const AddVerb add : kVerbs) add(program, run);
  const int code = parse_arguments(program, arguments);
  if (code >= 0) return code;
  // A group without a verb.
  if (!run) return report_write(write_stdout(help_text(chosen(program))));
  return run();
}

}  // namespace
}  // namespace lanner::cli

int main(int argc, char** argv) {
  // A reader that goes away is an error of write(), which output.cpp tells apart from others.
  std::signal(SIGPIPE, SIG_IGN);
  try {
    return lanner::cli::run_program({argv + 1, argv + argc});
  } catch (const std::bad_alloc&) {
    return lanner::cli::report(lanner::resource_exhausted("out of memory"));
  } catch (const std::exception& error) {
    return lanner::cli::report(lanner::internal_error(error.what()));
  }
}
