#include "engine/open_engine.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/batching_engine.h"
#include "model/decoder_config.h"

namespace lanner {
namespace {

constexpr std::int64_t kLeastSessionTokens = 2048;  // the KV cache holds one sequence of this length, or of session_len

std::string mebibytes(std::int64_t bytes) { return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20)); }

DType kv_dtype(ComputeType type) {
  switch (type) {
    case ComputeType::kFloat32: return DType::kF32;
    case ComputeType::kBFloat16: return DType::kBF16;
    case ComputeType::kAuto:
    case ComputeType::kFloat16: break;
  }
  return DType::kF16;
}

/// Refuses a model that cannot fit before any of it is read.
Status check_weights_fit(const model::Checkpoint& checkpoint, const model::DecoderSpec& spec, bool widened,
                         std::int64_t available) {
  std::int64_t needed = checkpoint.tensor_bytes();
  if (widened) {
    std::int64_t elements = spec.vocab * spec.hidden * (spec.head == spec.embedding ? 1 : 2);
    for (const model::LayerSpec& layer : spec.layers) {
      for (const auto* p : {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
        elements += p->rows * p->cols;
      }
    }
    needed = std::max(needed, elements * 4);
  }
  if (needed <= available) return {};
  return resource_exhausted(fmt::format("{}: its weights need {}, but {} are free", checkpoint.path(),
                                        mebibytes(needed), mebibytes(available)));
}

/// How many blocks: a share of what is free, at least one useful sequence, at most what could ever be used.
Result<MemoryPlan> plan_memory(const model::Decoder& decoder, const ops::KvLayout& layout, const EngineOptions& options,
                               std::int64_t workspace_bytes, std::int64_t available) {
  MemoryPlan plan;
  plan.free_bytes = available;
  plan.weight_bytes = decoder.weight_bytes();
  plan.workspace_bytes = workspace_bytes;
  const std::int64_t left = std::max<std::int64_t>(0, available - workspace_bytes);
  const std::int64_t session_blocks = KvBlocks::blocks_for(options.session_len);
  const std::int64_t most = session_blocks * options.max_batch_size;
  const std::int64_t least = KvBlocks::blocks_for(std::min<std::int64_t>(options.session_len, kLeastSessionTokens));
  const auto share = static_cast<std::int64_t>(static_cast<double>(left) * options.cache_max_entry_count);
  plan.kv_blocks =
      options.kv_blocks > 0 ? options.kv_blocks : std::max(least, std::min(most, share / layout.block_bytes()));
  plan.kv_bytes = plan.kv_blocks * layout.block_bytes();
  plan.kv_tokens = plan.kv_blocks * ops::kKvBlockTokens;
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
SchedulerLimits limits_of(const EngineOptions& options) {
  constexpr std::int64_t kPromptOutputRows = 128;
  const std::int64_t sequences = options.max_batch_size;
  const std::int64_t rows = std::max<std::int64_t>(options.max_prefill_token_num, sequences);
  return {.max_sequences = sequences,
          .max_rows = rows,
          .max_output_rows = std::max(sequences, std::min(rows, kPromptOutputRows))};
}

}  // namespace

Status check_options(const EngineOptions& options, const OptionName& name_of) {
  const auto check = [&](bool good, const char* option, const char* rule) -> Status {
    if (good) return {};
    return invalid_argument(fmt::format("{} must be {}", name_of ? name_of(option) : option, rule));
  };
  LANNER_RETURN_IF_ERROR(check(options.cache_max_entry_count > 0 && options.cache_max_entry_count < 1,
                               "cache_max_entry_count", "between 0 and 1, both excluded"));
  LANNER_RETURN_IF_ERROR(check(options.session_len >= 0, "session_len", "0 or more"));
  LANNER_RETURN_IF_ERROR(
      check(options.max_batch_size >= 1 && options.max_batch_size <= 4096, "max_batch_size", "between 1 and 4096"));
  LANNER_RETURN_IF_ERROR(check(options.max_prefill_token_num >= 1 && options.max_prefill_token_num <= 65536,
                               "max_prefill_token_num", "between 1 and 65536"));
  return check(options.threads >= 0 && options.threads <= 1024, "threads", "between 0 and 1024");
}

Result<OpenedEngine> open_engine(std::shared_ptr<const model::Checkpoint> checkpoint, const EngineOptions& options,
                                 const std::function<void(double)>& progress) {
  LANNER_RETURN_IF_ERROR(check_options(options, nullptr));
  LANNER_ASSIGN_OR_RETURN(const model::DecoderSpec spec, model::read_decoder_spec(*checkpoint));
  EngineParts parts;
  parts.options = options;
  const auto longest = static_cast<std::int32_t>(spec.max_position);
  parts.options.session_len = options.session_len > 0 ? options.session_len : longest;
  LANNER_ASSIGN_OR_RETURN(parts.backend, ops::make_cpu_backend({.threads = options.threads}));
  const bool exact = options.dtype == ComputeType::kFloat32;
  LANNER_RETURN_IF_ERROR(check_weights_fit(*checkpoint, spec, exact, parts.backend->available_bytes()));
  LANNER_ASSIGN_OR_RETURN(parts.decoder,
                          model::Decoder::load(*checkpoint, spec, *parts.backend,
                                               {.arithmetic = exact ? ops::Arithmetic::kExact : ops::Arithmetic::kFast,
                                                .session_len = parts.options.session_len,
                                                .progress = progress}));
  parts.limits = limits_of(options);
  const model::StepLimits limits{.rows = parts.limits.max_rows, .output_rows = parts.limits.max_output_rows};
  const ops::KvLayout layout = parts.decoder->kv_layout(kv_dtype(options.dtype));
  LANNER_ASSIGN_OR_RETURN(parts.plan,
                          plan_memory(*parts.decoder, layout, parts.options, parts.decoder->workspace_bytes(limits),
                                      parts.backend->available_bytes()));
  LANNER_RETURN_IF_ERROR(parts.decoder->reserve(limits));
  LANNER_ASSIGN_OR_RETURN(std::byte* const kv, parts.backend->allocate(parts.plan.kv_bytes, "the KV cache"));
  parts.cache = {.layout = layout, .data = kv, .blocks = parts.plan.kv_blocks};
  OpenedEngine opened;
  opened.architecture = spec.architecture;
  opened.device = parts.backend->description();
  if (options.session_len > longest) {
    opened.notes.push_back(fmt::format("a context of {} tokens was asked for; the model was trained for {}",
                                       options.session_len, longest));
  }
  opened.engine = std::make_unique<BatchingEngine>(std::move(parts));
  return opened;
}

}  // namespace lanner
