#include "cli/help.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <string_view>

#include "cli/arguments.h"

namespace lanner::cli {
namespace {

bool takes_value(const CLI::Option& option) {
  return option.get_type_size() > 0 && option.get_items_expected_min() > 0;
}

class HelpFormatter final : public CLI::Formatter {
 public:
  HelpFormatter() {
    column_width(36);
    label("Positionals", "Arguments");
  }

  std::string make_usage(const CLI::App* app, std::string /*name*/) const override { return "\n" + usage_line(*app); }

  /// Subcommands inherit the program's examples, where they would only be noise.
  std::string make_footer(const CLI::App* app) const override {
    return app->get_parent() == nullptr ? CLI::Formatter::make_footer(app) : "";
  }

  std::string make_option_opts(const CLI::Option* option) const override {
    if (option->get_positional() || !takes_value(*option)) return "";
    const bool repeats = option->get_items_expected_max() > 1;
    return fmt::format(" {}{}", option->get_type_name(), repeats ? " ..." : "");
  }

  std::string make_option_desc(const CLI::Option* option) const override {
    std::string text = option->get_description();
    const std::string value = option->get_default_str();
    if (takes_value(*option) && !value.empty() && value != "[]" && value != "\"\"") {
      text += fmt::format(" (default: {})", value);
    }
    return text;
  }
};

}  // namespace

std::shared_ptr<CLI::Formatter> make_help_formatter() { return std::make_shared<HelpFormatter>(); }

std::string full_name(const CLI::App& app) {
  return app.get_parent() == nullptr ? app.get_name() : full_name(*app.get_parent()) + " " + app.get_name();
}

std::string usage_line(const CLI::App& app) {
  std::string line = "usage: " + full_name(app);
  if (!verbs_of(app).empty()) return line + " VERB ...\n";
  line += " [options]";
  for (const CLI::Option* option : app.get_options()) {
    if (!option->get_positional()) continue;
    const std::string name = option->get_name(true, false);
    line += option->get_required() ? " " + name : fmt::format(" [{}]", name);
  }
  return line + "\n";
}

std::string help_text(const CLI::App& app) {
  std::string text = app.help(full_name(app));
  // CLI11 leaves two empty lines between groups, and some at the end.
  for (std::size_t at = text.find("\n\n\n"); at != std::string::npos; at = text.find("\n\n\n", at)) text.erase(at, 1);
  constexpr std::string_view kSubcommands = "\nSubcommands:\n";
  const std::size_t verbs = text.find(kSubcommands);
  if (verbs != std::string::npos) text.replace(verbs, kSubcommands.size(), "\nVerbs:\n");
  while (text.ends_with("\n\n")) text.pop_back();
  return text;
}

}  // namespace lanner::cli
