// lanner convert: a model in the form that starts fastest.

#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include <CLI/CLI.hpp>

#include "cli/arguments.h"
#include "cli/engine_flags.h"
#include "cli/output.h"
#include "cli/progress_bar.h"
#include "cli/verbs.h"
#include "model/convert.h"
#include "model/packed_file.h"

namespace lanner::cli {
namespace {

struct ConvertFlags {
  std::vector<std::string> words;  // MODEL, or LMDeploy's NAME MODEL
  ModelFlags source;               // its name is the last of the words
  std::string destination = "workspace";
  std::string model_format;
  int threads = 0;
  // LMDeploy's: accepted where they ask for what happens anyway.
  int tp = 1;
  int group_size = 0;
  std::string tokenizer_path;
  std::string quant_path;
  std::string chat_template;
  std::string dtype = "auto";
};

Status check_flags(const ConvertFlags& flags) {
  if (flags.tp != 1) return not_yet(fmt::format("--tp {}", flags.tp));
  if (flags.words.size() == 2)
    note(fmt::format("the name {} is not needed: the model says what it is", flags.words[0]));
  if (flags.group_size != 0) note("--group-size is not needed: the model says it");
  if (!flags.chat_template.empty()) note("--chat-template is for chat; a converted model keeps its own");
  if (flags.dtype != "auto") note("--dtype is for chat; a converted model keeps its own precision");
  for (const auto& [name, value] :
       {std::pair{"--tokenizer-path", flags.tokenizer_path}, std::pair{"--quant-path", flags.quant_path}}) {
    if (!value.empty()) warn(fmt::format("{} is ignored: what belongs to a model lies in its folder", name));
  }
  return {};
}

Status run_convert(const ConvertFlags& flags) {
  LANNER_RETURN_IF_ERROR(check_flags(flags));
  model::ConvertOptions options{.destination = flags.destination, .threads = flags.threads};
  LANNER_ASSIGN_OR_RETURN(options.format, model::model_format(flags.model_format));
  ModelFlags source = flags.source;
  source.model = flags.words.back();
  LANNER_ASSIGN_OR_RETURN(options.source, resolve_model(source));
  {
    ProgressBar bar("converting");
    options.progress = [&bar](double share) { bar.set(share); };
    LANNER_RETURN_IF_ERROR(model::convert_model(options));
  }
  std::error_code error;
  const auto bytes =
      std::filesystem::file_size(std::filesystem::path(flags.destination) / model::kPackedFileName, error);
  return write_stdout(printable(fmt::format("{}: {} of weights in the order of this program's kernels\n",
                                            flags.destination, format_bytes(static_cast<double>(bytes)))));
}

}  // namespace

void add_convert(CLI::App& program, Run& run) {
  const auto flags = std::make_shared<ConvertFlags>();
  CLI::App* verb = program.add_subcommand("convert", "Write a model in the form that starts fastest on a CPU");
  verb->add_option("MODEL", flags->words, std::string(kModelHelp) + "; in front of it may stand a name")
      ->required()
      ->expected(1, 2);
  verb->add_option("--dst-path", flags->destination, "The folder to write; it must not be there, or be empty");
  add_model_format_flag(*verb, flags->model_format);
  limit(verb->add_option("--threads", flags->threads, "Processor threads")->default_str("all"), 0, 1024);
  add_hub_flags(*verb, flags->source);
  std::vector<CLI::Option*> options;
  options.push_back(verb->add_option("--tp", flags->tp, "Devices that share the model; only 1 so far"));
  options.push_back(verb->add_option("--group-size", flags->group_size, "Without effect"));
  options.push_back(verb->add_option("--tokenizer-path", flags->tokenizer_path, "Ignored, with a warning"));
  options.push_back(verb->add_option("--quant-path", flags->quant_path, "Ignored, with a warning"));
  options.push_back(verb->add_option("--chat-template", flags->chat_template, "Without effect"));
  options.push_back(
      add_choice(*verb, "--dtype", flags->dtype, {"auto", "float16", "bfloat16", "float32"}, "Without effect"));
  for (CLI::Option* option : options) option->group(kCompatibleGroup);
  verb->callback([&run, flags] { run = [flags] { return exit_code(run_convert(*flags)); }; });
}

}  // namespace lanner::cli
