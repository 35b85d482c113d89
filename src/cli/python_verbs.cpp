// lanner serve gradio, lanner deploy: verbs that are written in Python, in the package `lanner`.
//
// They are handed over before anything is parsed, since their flags are the package's to know: to the Python beside
// this program, where pip put both, else to the one on PATH.

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "cli/output.h"
#include "cli/verbs.h"

namespace lanner::cli {
namespace {

struct PythonVerb {
  std::string_view group;  // empty: of the program itself
  std::string_view name;
  const char* help;
};

constexpr std::array<PythonVerb, 2> kVerbs{{
    {"serve", "gradio", "A chat page of Gradio before a server or a model (needs the Python package)"},
    {"", "deploy", "A folder that runs a model's chat page on a host of demos (needs the Python package)"},
}};

std::string spelled(const PythonVerb& verb) {
  return verb.group.empty() ? std::string(verb.name) : fmt::format("{} {}", verb.group, verb.name);
}

bool begins_with(const std::vector<std::string>& arguments, const PythonVerb& verb) {
  if (verb.group.empty()) return !arguments.empty() && arguments[0] == verb.name;
  return arguments.size() >= 2 && arguments[0] == verb.group && arguments[1] == verb.name;
}

// A package that lacks this verb's own dependencies says so itself.
// The current folder may be anybody's: nothing is imported from it.
constexpr const char* kRun = R"(import sys
if sys.path and sys.path[0] == "":
    del sys.path[0]
try:
    from lanner.__main__ import main
except ModuleNotFoundError:
    sys.exit("lanner: error: this verb needs the Python package: pip install 'lanner[ui]'")
sys.exit(main()))";

/// Returns only where there is no Python.
int run_python(const std::vector<std::string>& arguments) {
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  std::string python = (program.parent_path() / "python3").string();
  if (error || access(python.c_str(), X_OK) != 0) python = "python3";
  if (!error) setenv("LANNER_PROGRAM", program.c_str(), /*overwrite=*/0);
  std::vector<std::string> words{python, "-c", kRun};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::signal(SIGPIPE, SIG_DFL);  // main() ignores it; a program that follows expects the default
  execvp(python.c_str(), argv.data());
  return report(not_found(fmt::format("{}: {}", python, std::generic_category().message(errno))));
}

}  // namespace

std::optional<int> run_python_verb(const std::vector<std::string>& arguments) {
  for (const PythonVerb& verb : kVerbs) {
    if (begins_with(arguments, verb)) return run_python(arguments);
  }
  return std::nullopt;
}

void add_python_verbs(CLI::App& program, Run& run) {
  for (const PythonVerb& verb : kVerbs) {
    CLI::App* group = verb.group.empty() ? &program : program.get_subcommand(std::string(verb.group));
    CLI::App* added = group->add_subcommand(std::string(verb.name), verb.help);
    added->callback([&run, name = spelled(verb)] {
      run = [name] { return report(invalid_argument(fmt::format("write `lanner {}` without flags before it", name))); };
    });
  }
}

}  // namespace lanner::cli
