#pragma once
// The verbs of the program. A verb is one file in this folder and one row of the table in main.cpp.
//
// add_NAME(program, run) adds a subcommand with its flags to `program`. Parsing does no work: the callback of the
// subcommand (of the innermost one, where a group such as `eval` has several) only sets `run`, and main calls it
// once parsing has succeeded. What run returns is the exit code; report() turns a failure into the one line that
// users see.
//
//   void add_example(CLI::App& program, Run& run) {
//     auto options = std::make_shared<ExampleOptions>();
//     CLI::App* verb = program.add_subcommand("example", "One line of help");
//     verb->add_option("MODEL", options->model, "A model folder or GGUF file")->required();
//     verb->add_option("--runs", options->runs, "How often");   // defaults are captured and shown by --help
//     add_engine_flags(*verb, options->engine);                   // engine_flags.h
//     verb->callback([&run, options] { run = [options] { return run_example(*options); }; });
//   }
//
// Unique prefixes of flags, underscores for dashes, suggestions, usage errors (exit 2), the layout of --help and shell
// completion are made for all verbs from the tree of CLI::App (arguments.h, help.h, completion.cpp); a group that is
// called without a subcommand prints its help and ends with 0 when it sets no `run`.

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lanner/status.h"

namespace CLI {
class App;
}

namespace lanner::cli {

/// The work of a verb; returns the exit code.
using Run = std::function<int()>;

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;  // after one line "lanner: error: …" on stderr
inline constexpr int kExitUsage = 2;    // after the usage and a message on stderr
inline constexpr int kExitInterrupted = 130;

/// Prints "lanner: error: MESSAGE" on stderr and returns kExitFailure.
int report(const Status& status);
/// How a verb that ended so exits: kExitOk, or report().
int exit_code(const Status& status);
/// Prints "lanner: warning: MESSAGE" or "lanner: note: MESSAGE" on stderr.
void warn(std::string_view message);
void note(std::string_view message);

/// kUnsupported for what LMDeploy can do and this program cannot yet; `what` is the flag, with its value where that
/// matters.
Status not_yet(const std::string& what);

/// Runs a verb that is written in Python, in the place of this program; nothing for other verbs. Returns an exit code
/// only where it cannot.
std::optional<int> run_python_verb(const std::vector<std::string>& arguments);

void add_chat(CLI::App& program, Run& run);
void add_lite(CLI::App& program, Run& run);
void add_eval(CLI::App& program, Run& run);
void add_benchmark(CLI::App& program, Run& run);
void add_convert(CLI::App& program, Run& run);
void add_serve(CLI::App& program, Run& run);
/// After add_serve.
void add_python_verbs(CLI::App& program, Run& run);
void add_check_env(CLI::App& program, Run& run);
void add_list(CLI::App& program, Run& run);
void add_completion(CLI::App& program, Run& run);

}  // namespace lanner::cli
