#include "cli/engine_flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <utility>

#include "cli/arguments.h"
#include "cli/verbs.h"
#include "engine/open_engine.h"
#include "ops/backend.h"

namespace lanner::cli {
namespace {

constexpr const char* kEngineGroup = "Engine";
constexpr const char* kLaterGroup = "Not available yet in this version";

void add_own_flags(CLI::App& verb, EngineFlags& flags) {
  std::vector<CLI::Option*> options;
  options.push_back(verb.add_option("--cache-max-entry-count", flags.cache_max_entry_count,
                                    "Share of the memory that is free after the weights which the KV cache may take"));
  options.push_back(verb.add_option("--session-len", flags.session_len, "Longest context, prompt and answer together")
                        ->default_str("what the model was trained for"));
  options.push_back(verb.add_option("--max-prefill-token-num", flags.max_prefill_token_num,
                                    "Prompt tokens that are computed in one step")
                        ->default_str("512 on the CPU, up to 8192 on CUDA"));
  options.push_back(add_choice(verb, "--device", flags.device, {"auto", "cpu", "cuda", "ascend", "maca", "camb"},
                               "Where the model runs; auto: CUDA where there is a device"));
  options.push_back(
      add_choice(verb, "--dtype", flags.dtype, {"auto", "float16", "bfloat16", "float32"}, "Arithmetic and KV cache"));
  options.push_back(
      add_choice(verb, "--quant-policy", flags.quant_policy,
                 {"0", "none", "4", "int4", "8", "int8", "16", "fp8", "17", "fp8_e5m2", "42", "turbo_quant"},
                 "Codes of the KV cache: 8 or 4 bits; 0: none, numbers of 16 bits (the last four not yet)"));
  options.push_back(add_choice(verb, "--w4-prefill-copy", flags.w4_prefill_copy, {"auto", "on", "off"},
                               "On CUDA: weights of 4 and 8 bits once more in fp16, for prompts and many sequences; "
                               "auto: where they take at most a quarter of the KV cache's memory"));
  options.push_back(add_model_format_flag(verb, flags.model_format));
  options.push_back(
      verb.add_option("--threads", flags.threads, "Processor threads")->default_str("one for each fast core"));
  options.push_back(verb.add_flag("--pin-threads", flags.pin_threads,
                                  "Keep each on a processor of its own, where the model runs there"));
  options.push_back(add_choice(verb, "--numa", flags.numa, {"system", "interleave"},
                               "interleave: spread the memory over all memory nodes"));
  options.push_back(verb.add_flag(
      "--deterministic", flags.deterministic,
      "The same answer whatever else runs beside it (on a CPU without products of 16 bits always so; else "
      "slower)"));
  for (CLI::Option* option : options) option->group(kEngineGroup);
}

void add_compatible_flags(CLI::App& verb, EngineFlags& flags) {
  std::vector<CLI::Option*> options;
  options.push_back(add_choice(verb, "--backend", flags.backend, {"turbomind", "pytorch"}, "There is one engine"));
  options.push_back(verb.add_option("--tp", flags.tp, "Devices that share the model; only 1 so far"));
  options.push_back(add_choice(verb, "--communicator", flags.communicator, {"nccl", "native", "cuda-ipc"},
                               "Without effect on one device"));
  options.push_back(add_choice(verb, "--async", flags.async, {"0", "1"}, "Without effect"));
  options.push_back(verb.add_flag("--trust-remote-code", flags.trust_remote_code, "No code of a model is ever run"));
  options.push_back(verb.add_flag("--language-model-only", flags.language_model_only, "Always so until images come"));
  options.push_back(verb.add_option("--cp", flags.cp, "Ignored, with a warning"));
  options.push_back(verb.add_flag("--eager-mode", flags.eager_mode, "Ignored, with a warning"));
  options.push_back(verb.add_option("--dllm-block-length", flags.dllm_block_length, "Ignored, with a warning"));
  options.push_back(
      verb.add_option("--prefix-cache-state-budget", flags.prefix_cache_state_budget, "Ignored, with a warning"));
  options.push_back(verb.add_option("--prefix-cache-decode-state-interval", flags.prefix_cache_decode_state_interval,
                                    "Ignored, with a warning"));
  for (CLI::Option* option : options) option->group(kCompatibleGroup);
}

void add_later_flags(CLI::App& verb, EngineFlags& flags) {
  std::vector<CLI::Option*> options;
  options.push_back(verb.add_option("--adapters", flags.adapters, "LoRA adapters"));
  options.push_back(verb.add_option("--rope-scaling-factor", flags.rope_scaling_factor, "Dynamic NTK"));
  options.push_back(verb.add_option("--speculative-algorithm", flags.speculative_algorithm, "Speculative decoding"));
  options.push_back(verb.add_option("--speculative-draft-model", flags.speculative_draft_model, "Its draft model"));
  options.push_back(verb.add_option("--speculative-num-draft-tokens", flags.speculative_num_draft_tokens,
                                    "Tokens it drafts in one step"));
  for (CLI::Option* option : options) option->group(kLaterGroup);
}

/// What is a flag of LMDeploy but has nothing behind it here yet.
Status check_available(const EngineFlags& flags) {
  const std::string& format = flags.model_format;
  if (format == "compressed-tensors" || format == "fp8" || format == "mxfp4")
    return not_yet("--model-format " + format);
  if (flags.device == "cuda" && !ops::cuda_is_built()) {
    return unsupported("--device cuda: this program was built without CUDA (make cuda builds one with it)");
  }
  if (flags.tp < 1) return invalid_argument("--tp must be at least 1");
  if (flags.tp > 1) return not_yet(fmt::format("--tp {}", flags.tp));
  if (!flags.adapters.empty()) return not_yet("--adapters");
  if (flags.rope_scaling_factor != 0.0) return not_yet("--rope-scaling-factor");
  if (!flags.speculative_algorithm.empty()) return not_yet("--speculative-algorithm");
  if (!flags.speculative_draft_model.empty()) return not_yet("--speculative-draft-model");
  if (flags.speculative_num_draft_tokens != 1) return not_yet("--speculative-num-draft-tokens");
  return {};
}

Result<Device> device_of(const std::string& name) {
  if (name == "auto") return Device::kAuto;
  if (name == "cpu") return Device::kCpu;
  if (name == "cuda") return Device::kCuda;
  return not_yet("--device " + name);
}

/// "max_batch_size" to "--max-batch-size".
std::string flag_name(std::string_view option) {
  std::string flag = "--" + std::string(option);
  std::ranges::replace(flag, '_', '-');
  return flag;
}

void tell_about_flags(const EngineFlags& flags) {
  if (flags.quant_policy == "4") {
    note("--quant-policy 4 is a KV cache in int4; with LMDeploy 0.3 and before it was int8, which is 8 today");
  }
  if (!flags.backend.empty())
    note(fmt::format("--backend {}: there is one engine, the flag changes nothing", flags.backend));
  const std::array<std::pair<const char*, bool>, 5> ignored{{
      {"--cp", flags.cp != 1},
      {"--eager-mode", flags.eager_mode},
      {"--dllm-block-length", !flags.dllm_block_length.empty()},
      {"--prefix-cache-state-budget", !flags.prefix_cache_state_budget.empty()},
      {"--prefix-cache-decode-state-interval", !flags.prefix_cache_decode_state_interval.empty()},
  }};
  for (const auto& [name, given] : ignored) {
    if (given) warn(fmt::format("{} belongs to another engine and is ignored", name));
  }
}

WeightCopy weight_copy_of(const std::string& name) {
  if (name == "on") return WeightCopy::kOn;
  return name == "off" ? WeightCopy::kOff : WeightCopy::kAuto;
}

Result<QuantPolicy> quant_policy_of(const std::string& name) {
  if (name == "0" || name == "none") return QuantPolicy::kNone;
  if (name == "4" || name == "int4") return QuantPolicy::kInt4;
  if (name == "8" || name == "int8") return QuantPolicy::kInt8;
  for (const char* const later : {"16", "fp8", "17", "fp8_e5m2", "42", "turbo_quant"}) {
    if (name == later) return not_yet("--quant-policy " + name);
  }
  return invalid_argument("--quant-policy: unknown value " + name);
}

Result<ComputeType> compute_type(const std::string& name) {
  if (name == "auto") return ComputeType::kAuto;
  if (name == "float16") return ComputeType::kFloat16;
  if (name == "bfloat16") return ComputeType::kBFloat16;
  if (name == "float32") return ComputeType::kFloat32;
  return invalid_argument("--dtype: unknown type " + name);
}

}  // namespace

void add_hub_flags(CLI::App& verb, ModelFlags& flags) {
  constexpr const char* kHubGroup = "Models from a hub";
  verb.add_option("--revision", flags.revision, "Branch, tag or commit")->default_str("the newest")->group(kHubGroup);
  verb.add_option("--download-dir", flags.download_dir, "Folder for what is downloaded")
      ->default_str("the hub's cache")
      ->group(kHubGroup);
}

CLI::Option* add_model_format_flag(CLI::App& verb, std::string& model_format) {
  return add_choice(verb, "--model-format", model_format,
                    {"hf", "llama", "awq", "gptq", "compressed-tensors", "fp8", "mxfp4"},
                    "How a folder's weights are kept, where its config.json does not say: awq or gptq")
      ->default_str("as the model says");
}

void add_engine_flags(CLI::App& verb, EngineFlags& flags) {
  add_hub_flags(verb, flags);
  add_own_flags(verb, flags);
  add_compatible_flags(verb, flags);
  add_later_flags(verb, flags);
}

void add_request_flags(CLI::App& verb, EngineFlags& flags) {
  std::vector<CLI::Option*> options;
  options.push_back(verb.add_option("--max-batch-size", flags.max_batch_size, "Sequences that run at once")
                        ->default_str("128; on CUDA up to 1024, by the device"));
  options.push_back(verb.add_flag("--enable-prefix-caching", flags.enable_prefix_caching,
                                  "Reuse what prompts have in common (the default)"));
  options.push_back(
      verb.add_flag("--disable-prefix-caching", flags.disable_prefix_caching, "Compute every prompt from its start"));
  options.push_back(verb.add_option("--chat-template", flags.chat_template,
                                    "A built-in template's name, a .jinja file, a JSON file or JSON text")
                        ->default_str("the model's own"));
  for (CLI::Option* option : options) option->group(kEngineGroup);
}

Result<PipelineOptions> pipeline_options(const EngineFlags& flags) {
  LANNER_RETURN_IF_ERROR(check_available(flags));
  PipelineOptions options;
  LANNER_ASSIGN_OR_RETURN(options.engine.device, device_of(flags.device));
  LANNER_ASSIGN_OR_RETURN(options.engine.dtype, compute_type(flags.dtype));
  LANNER_ASSIGN_OR_RETURN(options.engine.quant_policy, quant_policy_of(flags.quant_policy));
  options.engine.w4_prefill_copy = weight_copy_of(flags.w4_prefill_copy);
  options.engine.model_format = flags.model_format;
  options.engine.cache_max_entry_count = flags.cache_max_entry_count;
  options.engine.session_len = flags.session_len;
  options.engine.max_batch_size = flags.max_batch_size;
  options.engine.max_prefill_token_num = flags.max_prefill_token_num;
  options.engine.enable_prefix_caching = !flags.disable_prefix_caching;
  options.engine.deterministic = flags.deterministic;
  options.engine.threads = flags.threads;
  options.engine.pin_threads = flags.pin_threads;
  options.engine.numa = flags.numa == "interleave" ? NumaPolicy::kInterleave : NumaPolicy::kSystem;
  options.chat_template = flags.chat_template;
  LANNER_RETURN_IF_ERROR(check_options(options.engine, flag_name));  // before a model is looked for
  if (flags.enable_prefix_caching && flags.disable_prefix_caching) {
    return invalid_argument("--enable-prefix-caching and --disable-prefix-caching exclude each other");
  }
  tell_about_flags(flags);
  return options;
}

}  // namespace lanner::cli
