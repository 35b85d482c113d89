#include "engine/open_engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "core/numa.h"
#include "engine/batching_engine.h"
#include "model/decoder_config.h"

namespace lanner {
namespace {

constexpr std::int64_t kLeastSessionTokens = 2048;  // the KV cache holds one sequence of this length, or of session_len
constexpr std::int64_t kCpuPrefillTokens = 512;
constexpr std::int64_t kGivenShare = 32;  // of the slots: see SchedulerLimits::given_at_once
constexpr std::int64_t kCudaPrefillTokens = 8192;
constexpr std::int64_t kWorkspaceShare = 8;  // of the free memory, which steps of many rows may take unasked

std::string mebibytes(std::int64_t bytes) { return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20)); }

using Clock = std::chrono::steady_clock;

/// What opening an engine took, up to now.
struct LoadTimes {
  Clock::time_point begin = Clock::now();
  Clock::time_point device_open;
  Clock::time_point weights_loaded;

  std::string text(std::int64_t weight_bytes) const {
    const auto seconds = [](Clock::duration time) { return std::chrono::duration<double>(time).count(); };
    const Clock::time_point end = Clock::now();
    const double weights = seconds(weights_loaded - device_open);
    return fmt::format("{:.2f} s  device {:.2f} s, weights {:.2f} s at {:.1f} GB/s, memory {:.2f} s",
                       seconds(end - begin), seconds(device_open - begin), weights,
                       static_cast<double>(weight_bytes) / std::max(weights, 1e-6) / 1e9,
                       seconds(end - weights_loaded));
  }
};

/// How numbers are kept and computed with on a device.
struct Numbers {
  ops::Arithmetic arithmetic = ops::Arithmetic::kFast;
  DType kv = DType::kF16;
  std::optional<DType> dense;  // CUDA: what dense weights are converted to
};

Numbers numbers_on_cpu(ComputeType type) {
  if (type == ComputeType::kFloat32) return {.arithmetic = ops::Arithmetic::kExact, .kv = DType::kF32};
  return {.kv = type == ComputeType::kBFloat16 ? DType::kBF16 : DType::kF16};
}

/// What the checkpoint's configuration calls its numbers, such as "bfloat16"; empty where it does not say.
std::string stored_type(const model::Checkpoint& checkpoint) {
  for (const char* key : {"dtype", "torch_dtype"}) {
    const auto found = checkpoint.config().find(key);
    if (found != checkpoint.config().end() && found->is_string()) return found->get<std::string>();
  }
  return {};
}

Numbers numbers_on_cuda(ComputeType type, const model::Checkpoint& checkpoint) {
  if (type == ComputeType::kFloat32) return {.arithmetic = ops::Arithmetic::kExact, .kv = DType::kF32};
  const bool wide =
      type == ComputeType::kBFloat16 || (type == ComputeType::kAuto && stored_type(checkpoint) == "bfloat16");
  const DType half = wide ? DType::kBF16 : DType::kF16;
  return {.kv = half, .dense = half};
}

ops::KvCodes codes_of(QuantPolicy policy) {
  switch (policy) {
    case QuantPolicy::kNone: return ops::KvCodes::kNone;
    case QuantPolicy::kInt8: return ops::KvCodes::kInt8;
    case QuantPolicy::kInt4: return ops::KvCodes::kInt4;
  }
  return ops::KvCodes::kNone;
}

std::string type_name(const ops::KvLayout& layout) {
  switch (layout.codes) {
    case ops::KvCodes::kNone: break;
    case ops::KvCodes::kInt8: return "int8";
    case ops::KvCodes::kInt4: return "int4";
  }
  return std::string(dtype_name(layout.dtype));
}

std::int64_t layer_elements(const model::DecoderSpec& spec) {
  std::int64_t elements = 0;
  for (const model::LayerSpec& layer : spec.layers) {
    for (const auto* p : {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
      elements += p->rows * p->cols;
    }
  }
  return elements;
}

std::int64_t weight_elements(const model::DecoderSpec& spec) {
  return layer_elements(spec) + spec.vocab * spec.hidden * (spec.head == spec.embedding ? 1 : 2);
}

/// Of the bytes that are left, those that the KV cache may take.
std::int64_t cache_share(const EngineOptions& options, std::int64_t left) {
  return static_cast<std::int64_t>(static_cast<double>(left) * options.cache_max_entry_count);
}

/// Whether weights of few bits get copies: decided before the first of them is packed, by what all weights would take
/// at most. Copies that were asked for and do not fit are an error, since they would take the room of weights: those of
/// the layers, which alone are quantized for sure, in a checkpoint that is smaller than all weights in 16 bits.
Result<bool> wants_copies(const EngineOptions& options, const model::Checkpoint& checkpoint,
                          const model::DecoderSpec& spec) {
  constexpr std::int64_t kCacheShare = 4;
  const bool useless = options.deterministic || options.dtype == ComputeType::kFloat32;
  if (options.w4_prefill_copy == WeightCopy::kOff || useless) return false;
  const std::int64_t most = weight_elements(spec) * 2;
  const std::int64_t left = std::max<std::int64_t>(0, ops::cuda_free_bytes(0) - checkpoint.tensor_bytes());
  if (options.w4_prefill_copy == WeightCopy::kOn) {
    const std::int64_t copies = layer_elements(spec) * 2;
    if (copies <= left || checkpoint.tensor_bytes() >= most) return true;
    return resource_exhausted(
        fmt::format("{}: its weights once more in fp16 (--w4-prefill-copy on) need {}, but {} are free beside "
                    "them; auto takes copies only where there is room",
                    checkpoint.path(), mebibytes(copies), mebibytes(left)));
  }
  return most <= cache_share(options, left) / kCacheShare;
}

struct ChosenDevice {
  std::unique_ptr<ops::Backend> backend;
  Numbers numbers;
  bool cuda = false;
};

Result<ChosenDevice> open_cuda(const EngineOptions& options, const model::Checkpoint& checkpoint,
                               const model::DecoderSpec& spec) {
  const ops::CudaSupport support = ops::cuda_support();
  if (!support.problem.empty()) return unsupported("CUDA cannot be used: " + support.problem);
  if (checkpoint.is_packed()) {
    return unsupported(
        fmt::format("{}: was converted for the CPU; CUDA takes what it was made from", checkpoint.path()));
  }
  if (spec.head_dim > ops::kCudaMaxHeadDim) {
    return unsupported(fmt::format("{}: heads of {} elements; CUDA computes with up to {}", checkpoint.path(),
                                   spec.head_dim, ops::kCudaMaxHeadDim));
  }
  if (spec.vocab > ops::kCudaMaxVocabulary) {
    return unsupported(fmt::format("{}: a vocabulary of {} tokens; CUDA samples from up to {}", checkpoint.path(),
                                   spec.vocab, ops::kCudaMaxVocabulary));
  }
  LANNER_ASSIGN_OR_RETURN(const bool copies, wants_copies(options, checkpoint, spec));
  ChosenDevice chosen{.numbers = numbers_on_cuda(options.dtype, checkpoint), .cuda = true};
  LANNER_ASSIGN_OR_RETURN(chosen.backend, ops::make_cuda_backend({.deterministic = options.deterministic,
                                                                  .dense = chosen.numbers.dense,
                                                                  .threads = options.threads,
                                                                  .copies = copies}));
  return chosen;
}

Result<ChosenDevice> open_device(const EngineOptions& options, const model::Checkpoint& checkpoint,
                                 const model::DecoderSpec& spec, std::vector<std::string>& notes) {
  if (options.device == Device::kCuda) return open_cuda(options, checkpoint, spec);
  if (options.device == Device::kAuto && ops::cuda_is_built()) {
    auto chosen = open_cuda(options, checkpoint, spec);
    if (chosen.ok()) return chosen;
    notes.push_back(chosen.status().message() + "; running on the CPU");
  }
  ChosenDevice chosen{.numbers = numbers_on_cpu(options.dtype)};
  LANNER_ASSIGN_OR_RETURN(chosen.backend, ops::make_cpu_backend({.threads = options.threads,
                                                                 .pin_threads = options.pin_threads,
                                                                 .deterministic = options.deterministic}));
  for (std::string& note : chosen.backend->take_notes()) notes.push_back(std::move(note));
  return chosen;
}

/// Refuses a model that cannot fit before any of it is read.
Status check_weights_fit(const model::Checkpoint& checkpoint, const model::DecoderSpec& spec, const Numbers& numbers,
                         std::int64_t available) {
  std::int64_t needed = checkpoint.tensor_bytes();
  if (numbers.arithmetic == ops::Arithmetic::kExact) needed = std::max(needed, weight_elements(spec) * 4);
  if (numbers.dense) needed = std::min(needed, weight_elements(spec) * 2);
  if (needed <= available) return {};
  return resource_exhausted(fmt::format("{}: its weights need {}, but {} are free", checkpoint.path(),
                                        mebibytes(needed), mebibytes(available)));
}

std::int64_t least_blocks(const EngineOptions& options) {
  return KvBlocks::blocks_for(std::min<std::int64_t>(options.session_len, kLeastSessionTokens));
}

void set_blocks(std::int64_t blocks, const ops::KvLayout& layout, MemoryPlan& plan) {
  plan.kv_blocks = blocks;
  plan.kv_bytes = blocks * layout.block_bytes();
  plan.kv_tokens = blocks * ops::kKvBlockTokens;
}

/// How many blocks: a share of what is free, at least one useful sequence, at most what could ever be used.
Result<MemoryPlan> plan_memory(const model::Decoder& decoder, const ops::KvLayout& layout, const EngineOptions& options,
                               std::int64_t workspace_bytes, std::int64_t copy_bytes, std::int64_t available) {
  MemoryPlan plan;
  plan.free_bytes = available;
  plan.kv_type = type_name(layout);
  plan.weight_bytes = decoder.weight_bytes();
  plan.copy_bytes = copy_bytes;
  plan.workspace_bytes = workspace_bytes;
  plan.sequences = *options.max_batch_size;
  const std::int64_t left = std::max<std::int64_t>(0, available - workspace_bytes);
  const std::int64_t session_blocks = KvBlocks::blocks_for(options.session_len);
  const std::int64_t most = session_blocks * *options.max_batch_size;
  const std::int64_t least = least_blocks(options);
  const std::int64_t share = cache_share(options, left);
  set_blocks(options.kv_blocks > 0 ? options.kv_blocks : std::max(least, std::min(most, share / layout.block_bytes())),
             layout, plan);
  if (plan.kv_bytes > left) {
    return resource_exhausted(fmt::format(
        "not enough memory: after weights ({}) and workspace ({}) {} are free, but the KV cache of one sequence of {} "
        "tokens needs {}; a smaller --session-len or --max-batch-size needs less",
        mebibytes(plan.weight_bytes), mebibytes(workspace_bytes), mebibytes(left), plan.kv_tokens,
        mebibytes(plan.kv_bytes)));
  }
  return plan;
}

/// A request for the logits of its whole prompt gets some more rows a step than there are sequences, so that it
/// does not crawl when the batch is small.
SchedulerLimits limits_of(const EngineOptions& options, std::int64_t prefill_tokens) {
  constexpr std::int64_t kPromptOutputRows = 128;
  const std::int64_t sequences = *options.max_batch_size;
  const std::int64_t rows = std::max<std::int64_t>(prefill_tokens, sequences);
  return {.max_sequences = sequences,
          .max_rows = rows,
          .max_output_rows = std::max(sequences, std::min(rows, kPromptOutputRows))};
}

model::StepLimits step_limits(const EngineOptions& options, const SchedulerLimits& limits) {
  // Block tables and histories beyond these are rare, and long ago not the largest part of such a step.
  constexpr std::int64_t kMostListed = 1 << 20;
  const std::int64_t session_blocks = KvBlocks::blocks_for(options.session_len);
  return {.rows = limits.max_rows,
          .output_rows = limits.max_output_rows,
          .sequences = limits.max_sequences,
          .blocks = std::min(limits.max_sequences * session_blocks, kMostListed),
          .history = std::min<std::int64_t>(limits.max_sequences * options.session_len, kMostListed)};
}

/// Sequences that run at once: as many as the options name, or as LMDeploy lets a device of this name have.
std::int32_t choose_batch_size(const EngineOptions& options, const ChosenDevice& device) {
  constexpr std::int32_t kOtherwise = 128;
  if (options.max_batch_size) return *options.max_batch_size;
  if (!device.cuda) return kOtherwise;
  struct Named {
    std::string_view name;
    std::int32_t sequences;
  };
  constexpr Named kDevices[] = {{"A100", 384},  {"A800", 384},  {"H100", 1024},
                                {"H800", 1024}, {"L20Y", 1024}, {"H200", 1024}};
  const std::string description = device.backend->description();
  for (const Named& named : kDevices) {
    if (description.find(named.name) != std::string::npos) return named.sequences;
  }
  return kOtherwise;
}

/// Prompt tokens of a step: as many as the options name, or as the device likes; but who leaves the KV cache less
/// than an eighth wants a small program, not one whose steps take more than the cache.
std::int64_t choose_prefill_tokens(const EngineOptions& options, const model::Decoder& decoder,
                                   const ChosenDevice& device) {
  if (options.max_prefill_token_num) return *options.max_prefill_token_num;
  if (!device.cuda) return kCpuPrefillTokens;
  const std::int64_t left = device.backend->available_bytes();
  const std::int64_t most = std::min(left / kWorkspaceShare, cache_share(options, left));
  std::int64_t tokens = kCudaPrefillTokens;
  while (tokens > kCpuPrefillTokens &&
         decoder.workspace_bytes(step_limits(options, limits_of(options, tokens))) > most) {
    tokens /= 2;
  }
  return tokens;
}

SchedulerLimits choose_limits(const EngineOptions& options, const model::Decoder& decoder, const ChosenDevice& device) {
  SchedulerLimits limits = limits_of(options, choose_prefill_tokens(options, decoder, device));
  if (device.cuda) limits.given_at_once = *options.max_batch_size / kGivenShare;
  return limits;
}

constexpr const char* kSmallerModel = "a smaller or quantized model needs less, or another program can give some back";
constexpr const char* kSmallerSteps =
    "a smaller --max-prefill-token-num, --max-batch-size or --session-len needs less, or another program can give some "
    "back";

/// With a word on what can be done about it, where memory is short.
Status advised(const Status& status, const char* advice) {
  if (status.code() != StatusCode::kResourceExhausted) return status;
  return resource_exhausted(status.message() + "; " + advice);
}

/// The KV cache as planned, or with fewer blocks where somebody has taken of the device's memory meanwhile.
Result<std::byte*> allocate_cache(ops::Backend& backend, const ops::KvLayout& layout, const EngineOptions& options,
                                  MemoryPlan& plan, std::vector<std::string>& notes) {
  const std::int64_t planned = plan.kv_blocks;
  while (true) {
    Result<std::byte*> memory = backend.allocate(plan.kv_bytes, "the KV cache");
    if (memory.ok()) {
      if (plan.kv_blocks < planned) {
        notes.push_back(fmt::format("the KV cache has {} blocks, not the {} that were planned: less memory is free now",
                                    plan.kv_blocks, planned));
      }
      return memory;
    }
    const std::int64_t fewer = std::max(least_blocks(options), plan.kv_blocks * 7 / 8);
    const bool short_of_memory = memory.status().code() == StatusCode::kResourceExhausted;
    if (!short_of_memory || options.kv_blocks > 0 || fewer >= plan.kv_blocks) return memory;
    set_blocks(fewer, layout, plan);
  }
}

/// Plans and takes the memory for steps and for the KV cache.
Status take_memory(DType kv_type, bool on_host, EngineParts& parts, std::vector<std::string>& notes) {
  const model::StepLimits limits = step_limits(parts.options, parts.limits);
  const ops::KvLayout layout = parts.decoder->kv_layout(kv_type, codes_of(parts.options.quant_policy));
  LANNER_ASSIGN_OR_RETURN(parts.plan,
                          plan_memory(*parts.decoder, layout, parts.options, parts.decoder->workspace_bytes(limits),
                                      parts.backend->copy_bytes(), parts.backend->available_bytes()));
  LANNER_RETURN_IF_ERROR(advised(parts.decoder->reserve(limits), kSmallerSteps));
  auto memory = allocate_cache(*parts.backend, layout, parts.options, parts.plan, notes);
  if (!memory.ok()) return advised(memory.status(), kSmallerSteps);
  parts.cache = {.layout = layout, .data = *memory, .blocks = parts.plan.kv_blocks};
  if (parts.options.fill_kv_cache && on_host) std::memset(*memory, 0, static_cast<std::size_t>(parts.plan.kv_bytes));
  return {};
}

}  // namespace

Result<std::optional<InterleavedMemory>> begin_numa(NumaPolicy policy, std::vector<std::string>& notes) {
  if (policy == NumaPolicy::kSystem) return std::optional<InterleavedMemory>();
  LANNER_ASSIGN_OR_RETURN(InterleavedMemory memory, InterleavedMemory::begin());
  if (memory.nodes() == 1) notes.emplace_back("memory is not spread: there is one memory node");
  return std::optional<InterleavedMemory>(std::move(memory));
}

DeviceWarmUp::DeviceWarmUp(Device device) {
  if (device == Device::kCpu || !ops::cuda_is_built()) return;
  try {
    thread_ = std::thread([] { ops::warm_up_cuda(0); });
  } catch (const std::system_error&) {
    thread_ = {};  // the device starts later, then
  }
}

DeviceWarmUp::~DeviceWarmUp() {
  if (thread_.joinable()) thread_.join();
}

Status check_options(const EngineOptions& options, const OptionName& name_of) {
  const auto check = [&](bool good, const char* option, const char* rule) -> Status {
    if (good) return {};
    return invalid_argument(fmt::format("{} must be {}", name_of ? name_of(option) : option, rule));
  };
  LANNER_RETURN_IF_ERROR(check(options.cache_max_entry_count > 0 && options.cache_max_entry_count < 1,
                               "cache_max_entry_count", "between 0 and 1, both excluded"));
  LANNER_RETURN_IF_ERROR(check(options.session_len >= 0, "session_len", "0 or more"));
  const std::int32_t batch = options.max_batch_size.value_or(1);
  const std::string rule = fmt::format("between 1 and {}", kMostSequences);
  LANNER_RETURN_IF_ERROR(check(batch >= 1 && batch <= kMostSequences, "max_batch_size", rule.c_str()));
  const std::int32_t prefill = options.max_prefill_token_num.value_or(1);
  LANNER_RETURN_IF_ERROR(check(prefill >= 1 && prefill <= 65536, "max_prefill_token_num", "between 1 and 65536"));
  return check(options.threads >= 0 && options.threads <= 1024, "threads", "between 0 and 1024");
}

Result<OpenedEngine> open_engine(std::shared_ptr<const model::Checkpoint> checkpoint, const EngineOptions& options,
                                 const std::function<void(double)>& progress, const WrapBackend& wrap) {
  LANNER_RETURN_IF_ERROR(check_options(options, nullptr));
  LoadTimes times;
  LANNER_ASSIGN_OR_RETURN(const model::DecoderSpec spec, model::read_decoder_spec(*checkpoint));
  OpenedEngine opened;
  LANNER_ASSIGN_OR_RETURN(const auto interleaved, begin_numa(options.numa, opened.notes));
  EngineParts parts;
  parts.options = options;
  const auto longest = static_cast<std::int32_t>(spec.max_position);
  parts.options.session_len = options.session_len > 0 ? options.session_len : longest;
  LANNER_ASSIGN_OR_RETURN(ChosenDevice device, open_device(options, *checkpoint, spec, opened.notes));
  parts.options.max_batch_size = choose_batch_size(options, device);
  if (wrap) device.backend = wrap(std::move(device.backend));
  times.device_open = Clock::now();
  LANNER_RETURN_IF_ERROR(check_weights_fit(*checkpoint, spec, device.numbers, device.backend->available_bytes()));
  auto decoder = model::Decoder::load(
      *checkpoint, spec, *device.backend,
      {.arithmetic = device.numbers.arithmetic, .session_len = parts.options.session_len, .progress = progress});
  if (!decoder.ok()) return advised(decoder.status(), kSmallerModel);
  parts.decoder = *std::move(decoder);
  times.weights_loaded = Clock::now();
  parts.limits = choose_limits(parts.options, *parts.decoder, device);
  opened.ran_on = device.cuda ? Device::kCuda : Device::kCpu;
  parts.backend = std::move(device.backend);
  LANNER_RETURN_IF_ERROR(take_memory(device.numbers.kv, !device.cuda, parts, opened.notes));
  opened.loading = times.text(parts.plan.weight_bytes);
  opened.architecture = spec.architecture;
  opened.device = parts.backend->description();
  constexpr std::int64_t kSmall = 1'000'000'000;  // weights: models with fewer bear int4 worse
  if (options.quant_policy == QuantPolicy::kInt4 && weight_elements(spec) < kSmall) {
    opened.notes.push_back(fmt::format(
        "a KV cache in int4 costs a model of {} million parameters quality that can be seen; int8 costs next to none",
        weight_elements(spec) / 1'000'000));
  }
  if (options.session_len > longest) {
    opened.notes.push_back(fmt::format("a context of {} tokens was asked for; the model was trained for {}",
                                       options.session_len, longest));
  }
  try {
    opened.engine = std::make_unique<BatchingEngine>(std::move(parts));
  } catch (const std::system_error& error) {
    return resource_exhausted(fmt::format("the engine's thread cannot be started: {}", error.what()));
  }
  return opened;
}

}  // namespace lanner
