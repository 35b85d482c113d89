#pragma once
// The command line as users of argparse know it, on top of CLI11: flags may be shortened as long as they are
// unambiguous, written with underscores, and stand anywhere: a list of whole numbers ends at the first word that is
// none, and behind a flag that takes no value may stand True or False. A mistake ends with the usage, the cause and the
// nearest name that exists.

#include <cstdint>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace lanner::cli {

/// Parses `arguments` (without the program's name) with `program`. Returns -1 when the verb is to be run, else the
/// exit code: 0 after help or version on stdout, 2 after a usage error on stderr.
int parse_arguments(CLI::App& program, std::vector<std::string> arguments);

/// The long names, without dashes, of the flags of one verb.
std::vector<std::string> flag_names(const CLI::App& app);
/// The verbs of the program or of a group.
std::vector<const CLI::App*> verbs_of(const CLI::App& app);

/// The group in --help of what is there for scripts alone.
inline constexpr const char* kCompatibleGroup = "Accepted for scripts written for LMDeploy";

/// A flag, or an argument, with a few possible values; they are its type in --help.
CLI::Option* add_choice(CLI::App& verb, const std::string& name, std::string& value,
                        const std::vector<std::string>& choices, const std::string& description);
/// Refuses other numbers. A check of CLI11's own would add its name to the type in --help.
CLI::Option* limit(CLI::Option* option, std::int64_t least, std::int64_t most);

/// The number of letters to insert, remove, change or swap with a neighbour to get from one word to the other.
std::size_t edit_distance(const std::string& a, const std::string& b);
/// The candidate that `word` was probably meant to be, or an empty string.
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

}  // namespace lanner::cli
