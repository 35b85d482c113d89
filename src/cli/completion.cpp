// lanner completion SHELL: a script that completes verbs and flags, made from the tree that parses them.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "cli/arguments.h"
#include "cli/output.h"
#include "cli/verbs.h"

namespace lanner::cli {
namespace {

struct VerbWords {
  std::string path;  // "eval perplexity"; empty for the program itself
  const CLI::App* app;
};

void collect(const CLI::App& app, const std::string& path, std::vector<VerbWords>& all) {
  all.push_back({path, &app});
  for (const CLI::App* verb : verbs_of(app)) {
    collect(*verb, path.empty() ? verb->get_name() : path + " " + verb->get_name(), all);
  }
}

std::string words_of(const CLI::App& app) {
  std::string words;
  for (const CLI::App* verb : verbs_of(app)) words += verb->get_name() + " ";
  for (const std::string& flag : flag_names(app)) words += "--" + flag + " ";
  if (!words.empty()) words.pop_back();
  return words;
}

/// Between single quotes, for any of the shells.
std::string quoted(const std::string& text) {
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? std::string("’") : std::string(1, c);
  return result + "'";
}

/// bash and, through its own emulation, zsh: the verb so far picks a list of words.
std::string bash_script(const std::vector<VerbWords>& all) {
  std::string verbs;
  std::string cases;
  for (const VerbWords& entry : all) {
    if (!entry.path.empty()) verbs += quoted(entry.path) + "|";
    cases += fmt::format("    {}) words={} ;;\n", quoted(entry.path), quoted(words_of(*entry.app)));
  }
  if (!verbs.empty()) verbs.pop_back();
  return fmt::format(R"(# lanner: completion for bash. Load it with: source <(lanner completion bash)
_lanner() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" verb='' next word words=''
  COMPREPLY=()
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    next="${{verb:+$verb }}$word"
    case "$next" in {}) verb="$next" ;; esac
  done
  case "$verb" in
{}  esac
  while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -W "$words" -- "$current")
}}
complete -o default -o bashdefault -F _lanner lanner
)",
                     verbs, cases);
}

std::string zsh_script(const std::vector<VerbWords>& all) {
  return "#compdef lanner\n# lanner: completion for zsh. Load it with: source <(lanner completion zsh)\n"
         "autoload -Uz bashcompinit && bashcompinit\n" +
         bash_script(all);
}

std::string fish_script(const std::vector<VerbWords>& all) {
  std::string script = "# lanner: completion for fish. Load it with: lanner completion fish | source\n";
  for (const VerbWords& entry : all) {
    std::string condition;
    for (const CLI::App* app = entry.app; app->get_parent() != nullptr; app = app->get_parent()) {
      condition = fmt::format("__fish_seen_subcommand_from {}{}{}", app->get_name(), condition.empty() ? "" : "; and ",
                              condition);
    }
    std::string siblings;
    for (const CLI::App* verb : verbs_of(*entry.app)) siblings.append(" ").append(verb->get_name());
    const std::string none_yet =
        fmt::format("{}{}not __fish_seen_subcommand_from{}", condition, condition.empty() ? "" : "; and ", siblings);
    for (const CLI::App* verb : verbs_of(*entry.app)) {
      script += fmt::format("complete -c lanner -f -n {} -a {} -d {}\n", quoted(none_yet), verb->get_name(),
                            quoted(verb->get_description()));
    }
    for (const CLI::Option* option : entry.app->get_options()) {
      for (const std::string& name : option->get_lnames()) {
        script +=
            fmt::format("complete -c lanner -n {} -l {}{} -d {}\n",
                        quoted(condition.empty() ? "not __fish_seen_subcommand_from" + siblings : condition), name,
                        option->get_items_expected_min() > 0 ? " -r" : "", quoted(option->get_description()));
      }
    }
  }
  return script;
}

int run_completion(const CLI::App& program, const std::string& shell) {
  std::vector<VerbWords> all;
  collect(program, "", all);
  const std::string script = shell == "bash" ? bash_script(all) : shell == "zsh" ? zsh_script(all) : fish_script(all);
  return report_write(write_stdout(script));
}

}  // namespace

void add_completion(CLI::App& program, Run& run) {
  const auto shell = std::make_shared<std::string>();
  CLI::App* verb = program.add_subcommand("completion", "Print a completion script for a shell: bash, zsh or fish");
  add_choice(*verb, "SHELL", *shell, {"bash", "zsh", "fish"}, "bash, zsh or fish")->required();
  verb->callback([&program, &run, shell] { run = [&program, shell] { return run_completion(program, *shell); }; });
}

}  // namespace lanner::cli
