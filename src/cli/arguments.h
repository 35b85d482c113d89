#pragma once
// The command line as users of argparse know it, on top of CLI11: flags may be shortened as long as they are
// unambiguous, written with underscores, and stand anywhere; a mistake ends with the usage, the cause and the nearest
// name that exists.

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace lanner::cli {

/// Parses `arguments` (without the program's name) with `program`. Returns -1 when the verb is to be run, else the
/// exit code: 0 after help or version on stdout, 2 after a usage error on stderr.
int parse_arguments(CLI::App& program, std::vector<std::string> arguments);

/// The number of letters to insert, remove, change or swap with a neighbour to get from one word to the other.
std::size_t edit_distance(const std::string& a, const std::string& b);
/// The candidate that `word` was probably meant to be, or an empty string.
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

}  // namespace lanner::cli
