#pragma once
// The layout of --help: every flag with its type and its default.

#include <memory>
#include <string>

namespace CLI {
class App;
class Formatter;
}  // namespace CLI

namespace lanner::cli {

std::shared_ptr<CLI::Formatter> make_help_formatter();

/// "lanner chat"
std::string full_name(const CLI::App& app);
/// "usage: lanner chat [options] [MODEL]\n"
std::string usage_line(const CLI::App& app);
std::string help_text(const CLI::App& app);

}  // namespace lanner::cli
