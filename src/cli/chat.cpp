// lanner chat: a conversation in the terminal, or one answer for piped input.

#include <memory>
#include <utility>

#include <CLI/CLI.hpp>

#include "cli/arguments.h"
#include "cli/chat_loop.h"
#include "cli/engine_flags.h"
#include "cli/output.h"
#include "cli/sampling_flags.h"
#include "cli/verbs.h"

namespace lanner::cli {
namespace {

struct ChatFlags {
  EngineFlags engine;
  SamplingFlags sampling;
  std::string system;
  std::string meta_instruction;  // the old name of system
  std::string cap;               // of v0.3.0; what it did is --chat-template's now
  std::string model_name;
  bool verbose = false;
};

Status check_old_flags(const ChatFlags& flags) {
  if (!flags.system.empty() && !flags.meta_instruction.empty()) {
    return invalid_argument("--system and --meta-instruction are the same: give one");
  }
  if (!flags.cap.empty() && flags.cap != "chat") return not_yet("--cap " + flags.cap);
  if (!flags.model_name.empty()) note("--model-name names the model of a server; in a chat it changes nothing");
  return {};
}

/// The exit code of the conversation, or why there was none.
Result<int> run_chat(const ChatFlags& flags) {
  LANNER_RETURN_IF_ERROR(check_old_flags(flags));
  LANNER_ASSIGN_OR_RETURN(GenerationConfig generation, generation_config(flags.sampling));
  LANNER_ASSIGN_OR_RETURN(PipelineOptions options, pipeline_options(flags.engine));
  LANNER_ASSIGN_OR_RETURN(const std::string path, resolve_model(flags.engine));
  const bool interactive = stdin_is_terminal();
  const bool show = flags.verbose || stderr_is_terminal();
  LANNER_ASSIGN_OR_RETURN(const auto pipeline, open_with_progress(path, std::move(options), show));

  Interrupts& interrupts = Interrupts::install();
  const std::unique_ptr<LineReader> lines = make_line_reader(interrupts);
  ChatLoop loop(*pipeline, *lines, interrupts,
                {.generation = std::move(generation),
                 .system = flags.system.empty() ? flags.meta_instruction : flags.system,
                 .verbose = flags.verbose,
                 .interactive = interactive});
  return loop.run();
}

}  // namespace

void add_chat(CLI::App& program, Run& run) {
  const auto flags = std::make_shared<ChatFlags>();
  flags->sampling.max_new_tokens = 4096;  // as LMDeploy's chat has it today
  CLI::App* verb = program.add_subcommand("chat", "Talk to a model in the terminal, or answer what is piped in");
  verb->add_option("MODEL", flags->engine.model, std::string(kModelHelp) + "; without it the small default model");
  verb->add_option("--system", flags->system, "System message")->default_str("the chat template's");
  verb->add_flag("--verbose", flags->verbose, "After each answer a line of figures on stderr");
  add_sampling_flags(*verb, flags->sampling);
  add_engine_flags(*verb, flags->engine);
  add_request_flags(*verb, flags->engine);
  verb->add_option("--meta-instruction", flags->meta_instruction, "The same as --system")->group(kCompatibleGroup);
  add_choice(*verb, "--cap", flags->cap, {"completion", "infilling", "chat", "python"}, "Only chat so far")
      ->group(kCompatibleGroup);
  verb->add_option("--model-name", flags->model_name, "Without effect")->group(kCompatibleGroup);
  verb->callback([&run, flags] {
    run = [flags] {
      const Result<int> code = run_chat(*flags);
      return code.ok() ? *code : report(code.status());
    };
  });
}

}  // namespace lanner::cli
