// lanner lite: a smaller model out of a large one.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/arguments.h"
#include "cli/calibration_tokens.h"
#include "cli/engine_flags.h"
#include "cli/interrupts.h"
#include "cli/lite_report.h"
#include "cli/output.h"
#include "cli/progress_bar.h"
#include "cli/verbs.h"
#include "eval/memory_benchmark.h"
#include "model/decoder_config.h"
#include "quant/awq.h"
#include "quant/calibration_windows.h"
#include "quant/collect_statistics.h"
#include "quant/gptq.h"
#include "quant/smooth_quant.h"
#include "quant/work_folder.h"

namespace lanner::cli {
namespace {

struct LiteFlags {
  ModelFlags source;
  std::string work_dir = "./work_dir";
  std::string calib_dataset = "wikitext2";
  std::int64_t calib_samples = 128;
  std::int64_t calib_seqlen = 2048;
  std::int64_t w_bits = 4;
  std::int64_t w_group_size = 128;
  std::string quant_dtype = "int8";
  int threads = 0;
  bool resume = false;
  bool search_scale = false;
  bool no_report = false;
  std::int64_t report_windows = LiteReport{}.windows;
  // LMDeploy's: accepted where they ask for what happens anyway.
  bool w_sym = false;
  std::int64_t batch_size = 1;
  std::string dtype = "auto";
  std::string device = "auto";
  bool trust_remote_code = false;
};

/// What was typed, with another value of one flag (which has none where it is empty): ready to be pasted into a shell.
std::string command_with(const CLI::App& verb, const std::string& model, const std::string& flag,
                         const std::string& value) {
  const auto quoted = [](const std::string& word) {
    constexpr const char* kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=:,+@%";
    if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) return word;
    std::string result = "'";
    for (const char letter : word) result += letter == '\'' ? std::string("'\\''") : std::string(1, letter);
    return result + "'";
  };
  std::string command = "lanner lite " + verb.get_name() + " " + quoted(model);
  for (const CLI::Option* option : verb.get_options()) {
    const std::string name = option->get_name();
    if (option->count() == 0 || !name.starts_with("--") || name == flag) continue;
    command += " " + name;
    if (option->get_items_expected_max() == 0) {
      if (option->results().back() == "false") command += "=false";
      continue;
    }
    for (const std::string& word : option->results()) command += " " + quoted(word);
  }
  return command + " " + flag + (value.empty() ? "" : " " + value);
}

/// What the verb does, of which Ctrl-C says how to go on with it.
void set_work(CLI::App& verb, Run& run, const std::shared_ptr<LiteFlags>& flags, const std::function<Status()>& work) {
  verb.callback([&verb, &run, flags, work] {
    run = [&verb, flags, work] {
      const std::string part = quant::WorkFolder::partial_path(flags->work_dir);
      const std::string command = command_with(verb, flags->source.model, "--resume", "");
      const ResumableWork resumable(
          part, printable(fmt::format("lanner: interrupted: {} is left; to go on: {}", part, command)));
      return exit_code(work());
    };
  });
}

/// Those of all verbs that calibrate.
Status check_calibration_flags(const LiteFlags& flags) {
  if (flags.device == "cuda") return not_yet("--device cuda");
  if (flags.batch_size != 1) note("--batch-size is not needed: samples go through a layer one after the other");
  return {};
}

Status check_flags(const LiteFlags& flags, quant::Method method) {
  if (method == quant::Method::kSmoothQuant) {
    if (flags.quant_dtype == "int8") return check_calibration_flags(flags);
    return unsupported(
        fmt::format("--quant-dtype {}: weights of 8 bits are int8 here; fp8 cannot be written or computed "
                    "with yet",
                    flags.quant_dtype));
  }
  if (flags.w_bits != 4) {
    return unsupported(method == quant::Method::kAwq
                           ? fmt::format("--w-bits {}: AWQ has a layout for 4 bits alone", flags.w_bits)
                           : fmt::format("--w-bits {}: GPTQ folders are written with 4 bits alone", flags.w_bits));
  }
  if (flags.dtype == "bfloat16")
    note("--dtype bfloat16: what stays in 16 bits is written as float16, which 4 bits need");
  return check_calibration_flags(flags);
}

/// The error for a group size that does not fit, with the command that does.
Status wrong_group(const CLI::App& verb, const LiteFlags& flags, const model::DecoderSpec& spec) {
  const std::int64_t largest = quant::largest_group_size(spec, std::max<std::int64_t>(flags.w_group_size, 32));
  const std::string problem =
      fmt::format("--w-group-size {}: does not fit the matrices of this model", flags.w_group_size);
  if (largest == 0) return unsupported(problem + ", and neither do 128, 64 or 32");
  return invalid_argument(
      fmt::format("{}; the largest that does is {}: {}", problem, largest,
                  command_with(verb, flags.source.model, "--w-group-size", std::to_string(largest))));
}

/// The text's windows; `tokens` keeps what they point to.
Result<std::vector<std::span<const std::int32_t>>> calibration_windows(const LiteFlags& flags,
                                                                       const model::Checkpoint& checkpoint,
                                                                       std::int64_t most_seqlen,
                                                                       std::vector<std::int32_t>& tokens) {
  if (flags.calib_samples == 0) return std::vector<std::span<const std::int32_t>>();
  LANNER_ASSIGN_OR_RETURN(CalibrationTokens text, read_calibration_tokens(flags.calib_dataset, checkpoint));
  tokens = std::move(text.tokens);
  const std::int64_t seqlen = std::min(flags.calib_seqlen, most_seqlen);
  if (seqlen < flags.calib_seqlen) note(fmt::format("samples have {} tokens, the model's longest context", seqlen));
  auto windows = quant::draw_windows(tokens, flags.calib_samples, seqlen);
  if (!windows.ok()) return with_context(windows.status(), text.path);
  return windows;
}

/// What may make the result better.
std::string advice(const LiteFlags& flags, quant::Method method) {
  const bool int8 = method == quant::Method::kSmoothQuant;
  std::string text = int8 ? "8 bits lose little in most models" : "small models lose most by 4 bits";
  if (!int8 && flags.w_group_size > 32) text += "; try --w-group-size 32";
  if (flags.calib_samples == 0) text += "; try --calib-samples 128";
  const bool can_search = method != quant::Method::kGptq && !flags.search_scale;
  if (flags.calib_samples > 0 && can_search) text += "; try --search-scale";
  return text;
}

/// The most memory that the process has had to itself whenever somebody looked. Pages of mapped files are not counted:
/// the system takes them back when it wants to, which is how a model larger than memory can be read.
class MemoryWatch {
 public:
  void look() { most_bytes_ = std::max(most_bytes_, eval::resident_bytes().value_or(0)); }
  double most_bytes() const { return static_cast<double>(most_bytes_); }

 private:
  std::int64_t most_bytes_ = 0;
};

/// Shows how far a run has come, and how much it takes.
class RunWatch {
 public:
  explicit RunWatch(std::string what) : bar_(std::move(what)) {}

  std::function<void(double)> progress() {
    return [this](double share) {
      bar_.set(share);
      memory_.look();
    };
  }
  /// "took 12 s and at most 1.2 GB of memory, …"; wipes the bar.
  std::string finish() {
    bar_.clear();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    return fmt::format("took {:.0f} s and at most {} of memory, besides the pages of the model's files", seconds,
                       format_bytes(memory_.most_bytes()));
  }

 private:
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  ProgressBar bar_;
  MemoryWatch memory_;
};

/// What a run is told; its windows point into `tokens`.
Result<quant::SmoothingOptions> run_options(const LiteFlags& flags, const model::Checkpoint& checkpoint,
                                            const model::DecoderSpec& spec, std::vector<std::int32_t>& tokens) {
  quant::SmoothingOptions options;
  options.destination = flags.work_dir;
  options.search_scale = flags.search_scale;
  options.threads = flags.threads;
  options.resume = flags.resume;
  LANNER_ASSIGN_OR_RETURN(options.windows, calibration_windows(flags, checkpoint, spec.max_position, tokens));
  return options;
}

std::string weights_text(const quant::Plan& plan) {
  if (plan.method == quant::Method::kSmoothQuant) return "8 bits, a scale for each row";
  return fmt::format("4 bits, groups of {}", plan.grouping.size);
}

/// As --model-format wants it; empty where the folder says it alone.
std::string format_name(quant::Method method) {
  return method == quant::Method::kSmoothQuant ? "" : quant::method_name(method);
}

Result<quant::Outcome> quantize(const model::Checkpoint& checkpoint, const quant::Plan& plan,
                                const quant::SmoothingOptions& options) {
  switch (plan.method) {
    case quant::Method::kAwq: return quant::quantize_awq(checkpoint, plan, options);
    case quant::Method::kGptq: return quant::quantize_gptq(checkpoint, plan, options);
    case quant::Method::kSmoothQuant: return quant::quantize_smooth(checkpoint, plan, options);
  }
  return internal_error("there is no such method");
}

Status run_quantizer(const CLI::App& verb, const LiteFlags& flags, quant::Method method) {
  LANNER_RETURN_IF_ERROR(check_flags(flags, method));
  RunWatch watch("quantizing");
  LANNER_ASSIGN_OR_RETURN(const std::string path, resolve_model(flags.source));
  LANNER_ASSIGN_OR_RETURN(const auto checkpoint, model::open_checkpoint(path));
  LANNER_ASSIGN_OR_RETURN(const model::DecoderSpec spec, model::read_decoder_spec(*checkpoint));
  quant::Grouping grouping;
  if (method != quant::Method::kSmoothQuant) {
    if (quant::largest_group_size(spec, flags.w_group_size) != flags.w_group_size) {
      return wrong_group(verb, flags, spec);
    }
    grouping = {.size = flags.w_group_size, .symmetric = flags.w_sym || method == quant::Method::kGptq};
  }
  LANNER_ASSIGN_OR_RETURN(const quant::Plan plan, quant::make_plan(*checkpoint, method, grouping));
  std::vector<std::int32_t> tokens;
  LANNER_ASSIGN_OR_RETURN(quant::SmoothingOptions options, run_options(flags, *checkpoint, spec, tokens));
  options.progress = watch.progress();
  LANNER_ASSIGN_OR_RETURN(const quant::Outcome outcome, quantize(*checkpoint, plan, options));
  const std::string format = format_name(method);
  LANNER_RETURN_IF_ERROR(write_stdout(printable(
      fmt::format("{}: {} matrices in {}; {} became {}\n{}\ntalk to it: lanner chat {}{}\n", flags.work_dir,
                  outcome.matrices, weights_text(plan), format_bytes(static_cast<double>(outcome.source_bytes)),
                  format_bytes(static_cast<double>(outcome.bytes)), watch.finish(), flags.work_dir,
                  format.empty() ? "" : " --model-format " + format))));
  if (flags.no_report) return {};
  return print_lite_report({.source = flags.source,
                            .result = flags.work_dir,
                            .model_format = format,
                            .windows = flags.report_windows,
                            .seqlen = std::min(LiteReport{}.seqlen, spec.max_position),
                            .threads = flags.threads,
                            .advice = advice(flags, method)});
}

Status run_calibrate(const LiteFlags& flags) {
  LANNER_RETURN_IF_ERROR(check_calibration_flags(flags));
  RunWatch watch("calibrating");
  LANNER_ASSIGN_OR_RETURN(const std::string path, resolve_model(flags.source));
  LANNER_ASSIGN_OR_RETURN(const auto checkpoint, model::open_checkpoint(path));
  LANNER_ASSIGN_OR_RETURN(const model::DecoderSpec spec, quant::read_plain_spec(*checkpoint));
  std::vector<std::int32_t> tokens;
  LANNER_ASSIGN_OR_RETURN(quant::SmoothingOptions options, run_options(flags, *checkpoint, spec, tokens));
  options.progress = watch.progress();
  LANNER_RETURN_IF_ERROR(quant::collect_statistics(*checkpoint, spec, options));
  return write_stdout(printable(fmt::format(
      "{}: what {} layers read and make, of {} samples of {} tokens\n{}\n"
      "a quantized KV cache needs no such files (--quant-policy of chat and serve), nor do other verbs of "
      "lite\n",
      flags.work_dir, spec.layers.size(), options.windows.size(), options.windows.front().size(), watch.finish())));
}

void add_calibration_flags(CLI::App& verb, LiteFlags& flags, const std::string& samples_help) {
  verb.add_option("MODEL", flags.source.model, "A Hugging Face model folder, or ORG/NAME on a hub")->required();
  verb.add_option("--work-dir", flags.work_dir, "The folder to write; it must not be there, or be empty");
  verb.add_option("--calib-dataset", flags.calib_dataset,
                  "The text to calibrate with: wikitext2, which comes with the program; ptb, c4 or pileval from a data "
                  "folder; a text file, or a .jsonl file of {\"text\": …} or {\"messages\": […]} lines");
  limit(verb.add_option("--calib-samples", flags.calib_samples, samples_help), 0, 1 << 20);
  limit(verb.add_option("--calib-seqlen", flags.calib_seqlen, "Tokens of a piece"), 1, 1 << 20);
  limit(verb.add_option("--threads", flags.threads, "Processor threads")->default_str("one for each fast core"), 0,
        1024);
  verb.add_flag("--resume", flags.resume, "Go on with what a killed run has left in WORK_DIR.part");
  add_hub_flags(verb, flags.source);
}

/// LMDeploy's before 0.4, which wrote the ranges of keys and values into a converted model. They are found while the
/// cache is written now, there as here.
struct KvQparamsFlags {
  std::vector<std::string> folders;
  int kv_bits = 8;
  bool kv_sym = false;
  int num_tp = 1;
  std::vector<std::string> tm_params;
};

void add_kv_qparams(CLI::App& group, Run& run) {
  const auto flags = std::make_shared<KvQparamsFlags>();
  CLI::App* verb = group.add_subcommand("kv_qparams", "Not needed any more, and does nothing but say so");
  verb->add_option("FOLDERS", flags->folders, "WORK_DIR TURBOMIND_DIR")->expected(0, 2);
  std::vector<CLI::Option*> options;
  options.push_back(verb->add_option("--kv-bits", flags->kv_bits, "Without effect"));
  options.push_back(verb->add_flag("--kv-sym", flags->kv_sym, "Without effect"));
  options.push_back(verb->add_option("--num-tp", flags->num_tp, "Without effect"));
  options.push_back(verb->add_option("--tm-params", flags->tm_params, "Without effect"));
  for (CLI::Option* option : options) option->group(kCompatibleGroup);
  verb->callback([&run, flags] {
    run = [flags] {
      const std::string place = flags->folders.empty() ? "" : " to " + flags->folders.back();
      note(
          printable(fmt::format("kv_qparams is not needed: a quantized KV cache finds the ranges of keys and values "
                                "while it is written (--quant-policy of chat and serve); nothing was done{}",
                                place)));
      return kExitOk;
    };
  });
}

void add_report_flags(CLI::App& verb, LiteFlags& flags) {
  verb.add_flag("--no-report", flags.no_report, "Do not measure at the end how good the result is");
  limit(verb.add_option("--report-windows", flags.report_windows, "Pieces of 1,024 tokens on which it is measured"), 1,
        1 << 20);
}

void add_search_flag(CLI::App& verb, LiteFlags& flags) {
  verb.add_flag("--search-scale", flags.search_scale,
                "Try out how smoothing is best shared between inputs and weights, which takes longer");
}

/// LMDeploy's, which change nothing here.
void add_compatible_flags(CLI::App& verb, LiteFlags& flags) {
  std::vector<CLI::Option*> options;
  options.push_back(limit(verb.add_option("--batch-size", flags.batch_size, "Without effect"), 1, 1 << 20));
  options.push_back(
      add_choice(verb, "--dtype", flags.dtype, {"auto", "float16", "bfloat16"}, "What stays in 16 bits is float16"));
  options.push_back(verb.add_flag("--trust-remote-code", flags.trust_remote_code, "No code of a model is ever run"));
  options.push_back(add_choice(verb, "--device", flags.device, {"auto", "cpu", "cuda"}, "Only the CPU so far"));
  for (CLI::Option* option : options) option->group(kCompatibleGroup);
}

constexpr const char* kSamplesOrNone = "Pieces of that text; 0: round without calibration";

/// The flags of the quantizers to 4 bits.
void add_weight_flags(CLI::App& verb, LiteFlags& flags) {
  add_calibration_flags(verb, flags, kSamplesOrNone);
  add_report_flags(verb, flags);
  verb.add_option("--w-bits", flags.w_bits, "Bits of a weight; only 4");
  verb.add_option("--w-group-size", flags.w_group_size, "Input channels that share a scale: 128, 64 or 32");
  add_compatible_flags(verb, flags);
}

void add_auto_awq(CLI::App& group, Run& run) {
  const auto flags = std::make_shared<LiteFlags>();
  CLI::App* verb = group.add_subcommand("auto_awq", "Weights of 4 bits by AWQ, as a Hugging Face folder");
  add_weight_flags(*verb, *flags);
  verb->add_flag("--w-sym", flags->w_sym, "Steps on both sides of zero alike: every zero point is 8");
  add_search_flag(*verb, *flags);
  set_work(*verb, run, flags, [flags, verb] { return run_quantizer(*verb, *flags, quant::Method::kAwq); });
}

void add_auto_gptq(CLI::App& group, Run& run) {
  const auto flags = std::make_shared<LiteFlags>();
  CLI::App* verb = group.add_subcommand("auto_gptq", "Weights of 4 bits by GPTQ, as a Hugging Face folder");
  add_weight_flags(*verb, *flags);
  set_work(*verb, run, flags, [flags, verb] { return run_quantizer(*verb, *flags, quant::Method::kGptq); });
}

void add_smooth_quant(CLI::App& group, Run& run) {
  const auto flags = std::make_shared<LiteFlags>();
  CLI::App* verb = group.add_subcommand("smooth_quant", "Weights of 8 bits (W8A8 int8), as a Hugging Face folder");
  add_calibration_flags(*verb, *flags, kSamplesOrNone);
  add_report_flags(*verb, *flags);
  add_choice(*verb, "--quant-dtype", flags->quant_dtype, {"int8", "float8_e4m3fn", "float8_e5m2", "fp8"},
             "What weights become; only int8 so far");
  add_search_flag(*verb, *flags);
  add_compatible_flags(*verb, *flags);
  set_work(*verb, run, flags, [flags, verb] { return run_quantizer(*verb, *flags, quant::Method::kSmoothQuant); });
}

void add_calibrate(CLI::App& group, Run& run) {
  const auto flags = std::make_shared<LiteFlags>();
  CLI::App* verb = group.add_subcommand("calibrate", "What a model's layers read and make, as files of PyTorch");
  add_calibration_flags(*verb, *flags, "Pieces of that text");
  add_search_flag(*verb, *flags);
  add_compatible_flags(*verb, *flags);
  set_work(*verb, run, flags, [flags] { return run_calibrate(*flags); });
}

}  // namespace

void add_lite(CLI::App& program, Run& run) {
  CLI::App* group = program.add_subcommand("lite", "Make a model smaller");
  add_auto_awq(*group, run);
  add_auto_gptq(*group, run);
  add_smooth_quant(*group, run);
  add_calibrate(*group, run);
  add_kv_qparams(*group, run);
}

}  // namespace lanner::cli
