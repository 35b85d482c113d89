#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/check.h"
#include "core/cpu_info.h"
#include "core/float16.h"
#include "core/processors.h"
#include "ops/check_arguments.h"
#include "ops/cpu/cpu_backend.h"

namespace lanner::ops {
namespace cpu {
namespace {

constexpr std::int64_t kRowsBehind = 15;  // see InputView::codes

class HostVector final : public DeviceVector {
 public:
  explicit HostVector(std::span<const float> values) : values_(values.begin(), values.end()) {}
  std::int64_t size() const override { return static_cast<std::int64_t>(values_.size()); }
  const float* data() const override { return values_.data(); }

 private:
  std::vector<float> values_;
};

float read_element(DType dtype, const std::byte* base, std::int64_t index) {
  if (dtype == DType::kF32) return reinterpret_cast<const float*>(base)[index];
  const std::uint16_t bits = reinterpret_cast<const std::uint16_t*>(base)[index];
  return dtype == DType::kF16 ? to_float(Half{bits}) : to_float(BFloat16{bits});
}

/// A number of a token's key, or value, as a code: see "Attention" in kernels.h.
int key_code(KvCodes codes, const std::uint8_t* keys, std::int64_t token, std::int64_t d) {
  if (codes == KvCodes::kInt8) return keys[(d / 4 * kKvBlockTokens + token) * 4 + d % 4];
  const std::uint8_t both = keys[(d / 8 * kKvBlockTokens + token) * 4 + d % 4];
  return d % 8 < 4 ? both % 16 : both / 16;
}

int value_code(const KvLayout& layout, const std::uint8_t* values, std::int64_t token, std::int64_t d) {
  const std::uint8_t* tokens = values + token / 4 * 4 * (layout.numbers_bytes() / kKvBlockTokens) + token % 4;
  if (layout.codes == KvCodes::kInt8) return tokens[d * 4];
  const std::int64_t piece = d / 32 * 32;
  const std::int64_t half = layout.head_dim - piece < 32 ? 8 : 16;
  const std::uint8_t both = tokens[(piece / 2 + (d - piece) % half) * 4];
  return d - piece < half ? both % 16 : both / 16;
}

void read_coded_head(const KvLayout& layout, const std::byte* head, float* keys, float* values) {
  const std::int64_t head_dim = layout.head_dim;
  const auto* key_codes = reinterpret_cast<const std::uint8_t*>(head);
  const std::uint8_t* value_codes = key_codes + layout.numbers_bytes();
  const auto* parameters = reinterpret_cast<const std::uint16_t*>(head + 2 * layout.numbers_bytes());
  for (std::int64_t t = 0; t < kKvBlockTokens; ++t) {
    const auto number = [&](int code, const std::uint16_t* own) {
      return static_cast<float>(code) * to_float(Half{own[t]}) + to_float(Half{own[kKvBlockTokens + t]});
    };
    for (std::int64_t d = 0; d < head_dim; ++d) {
      keys[t * head_dim + d] = number(key_code(layout.codes, key_codes, t, d), parameters);
      values[t * head_dim + d] = number(value_code(layout, value_codes, t, d), parameters + 2 * kKvBlockTokens);
    }
  }
}

}  // namespace

CpuBackend::CpuBackend(std::unique_ptr<ThreadPool> pool, const CpuBackendOptions& options)
    : CpuBackend(std::move(pool), kernels_for(options.isa),
                 options.deterministic ? BFloat16Kernels{}
                                       : BFloat16Kernels{.tiles = kernels_for(options.isa).tiles,
                                                         .prompt = prompt_kernels_for(options.isa)},
                 options.observer) {}

CpuBackend::CpuBackend(std::unique_ptr<ThreadPool> pool, const Kernels& kernels, const BFloat16Kernels& bfloat16,
                       PackObserver* observer)
    : kernels_(kernels),
      tiles_(bfloat16.tiles),
      prompt_(bfloat16.prompt),
      pool_(std::move(pool)),
      observer_(observer),
      attention_scratch_(static_cast<std::size_t>(pool_->size())),
      sample_scratch_(static_cast<std::size_t>(pool_->size())) {}

std::string CpuBackend::description() const {
  return fmt::format("cpu {}, {} thread{}", cpu_isa_name(kernels_.isa), pool_->size(), pool_->size() == 1 ? "" : "s");
}

std::vector<std::string> CpuBackend::take_notes() {
  if (told_ || pool_->pinning_problem().empty()) return {};
  told_ = true;
  return {"threads are not pinned: " + pool_->pinning_problem()};
}

std::int64_t CpuBackend::available_bytes() const { return available_memory_bytes(); }

Result<std::shared_ptr<const PackedWeight>> CpuBackend::pack(WeightSource source, Arithmetic arithmetic) {
  LANNER_ASSIGN_OR_RETURN(auto weight, pack_weight(std::move(source), arithmetic, *pool_, weight_room_));
  if (observer_ != nullptr) observer_->packed(weight->rows(), weight->cols(), weight->image());
  return std::shared_ptr<const PackedWeight>(std::move(weight));
}

Result<std::shared_ptr<const DeviceVector>> CpuBackend::upload(std::span<const float> values) {
  if (observer_ != nullptr) observer_->uploaded(values);
  return std::shared_ptr<const DeviceVector>(std::make_shared<HostVector>(values));
}

Result<std::byte*> CpuBackend::allocate(std::int64_t bytes, const char* what) {
  LANNER_ASSIGN_OR_RETURN(auto buffer, AlignedBuffer::allocate(bytes, what));
  allocations_.push_back(std::move(buffer));
  return allocations_.back().data();
}

CpuBackend::ScratchBytes CpuBackend::scratch_bytes(const StepRoom& room) const {
  const std::int64_t workers = pool_->size();
  const std::int64_t rows = room.rows + kAloneRows * workers;
  const std::int64_t groups = room.max_cols / kActivationGroup * static_cast<std::int64_t>(sizeof(ActivationGroup));
  ScratchBytes bytes{.values = rows * room.max_cols * 4,
                     .codes = (rows + kRowsBehind) * code_stride(room.max_cols),
                     .groups = rows * groups,
                     .product = room.rows * room.max_cols * 4};
  if (tiles_ != nullptr) {
    bytes.codes = std::max(bytes.codes, input_elements(room.rows, room.max_cols) * 2);
    bytes.tile_rooms = workers * tile_room_bytes(room.max_cols);
  }
  return bytes;
}

std::int64_t CpuBackend::reserve_bytes(const StepRoom& room) const {
  const ScratchBytes bytes = scratch_bytes(room);
  return 2 * bytes.values + bytes.codes + bytes.groups + bytes.product + bytes.tile_rooms;
}

Status CpuBackend::reserve(const StepRoom& room) {
  const char* what = "scratch";
  const ScratchBytes bytes = scratch_bytes(room);
  LANNER_ASSIGN_OR_RETURN(input_values_, AlignedBuffer::allocate(bytes.values, what));
  LANNER_ASSIGN_OR_RETURN(input_unordered_, AlignedBuffer::allocate(bytes.values, what));
  LANNER_ASSIGN_OR_RETURN(input_codes_, AlignedBuffer::allocate(bytes.codes, what));
  LANNER_ASSIGN_OR_RETURN(input_groups_, AlignedBuffer::allocate(bytes.groups, what));
  LANNER_ASSIGN_OR_RETURN(product_, AlignedBuffer::allocate(bytes.product, what));
  LANNER_ASSIGN_OR_RETURN(tile_rooms_, AlignedBuffer::allocate(bytes.tile_rooms, what));
  reserved_rows_ = room.rows;
  reserved_cols_ = room.max_cols;
  return {};
}

void CpuBackend::embed(const PackedWeight& table, const Batch& batch, float scale, float* x) {
  check_batch(batch);
  const auto& weight = static_cast<const CpuWeight&>(table);
  for (std::int64_t row = 0; row < batch.rows; ++row) {
    float* out = x + row * weight.cols();
    weight.read_row(batch.tokens[static_cast<std::size_t>(row)], out);
    if (scale == 1.0F) continue;
    for (std::int64_t i = 0; i < weight.cols(); ++i) out[i] *= scale;
  }
}

void CpuBackend::rope_angles(const Rope& rope, const Batch& batch, float* angles) {
  const std::int64_t half = rope.inverse_frequencies->size();
  const float* frequencies = rope.inverse_frequencies->data();
  for (std::int64_t row = 0; row < batch.rows; ++row) {
    const auto position = static_cast<float>(batch.positions[static_cast<std::size_t>(row)]);
    float* cosines = angles + row * 2 * half;
    float* sines = cosines + half;
    for (std::int64_t i = 0; i < half; ++i) {
      const float angle = position * frequencies[i];
      cosines[i] = std::cos(angle) * rope.scale;
      sines[i] = std::sin(angle) * rope.scale;
    }
  }
}

void CpuBackend::norm_rows(const Norm& norm, const float* x, std::int64_t cols, std::span<const std::int32_t> wanted,
                           float* out) {
  check_norm_rows(norm, cols);
  for (const std::int32_t row : wanted) {
    normalize(norm, x + row * cols, cols, out);
    out += cols;
  }
}

bool CpuBackend::sample(std::span<const SampleRow> rows, std::span<SampledToken> tokens) {
  pool_->run([&](Worker& worker) {
    const auto [begin, end] = worker.share(static_cast<std::int64_t>(rows.size()));
    for (std::int64_t i = begin; i < end; ++i) {
      const auto row = static_cast<std::size_t>(i);
      tokens[row] = sample_row(rows[row], sample_scratch_[static_cast<std::size_t>(worker.index())]);
    }
  });
  return true;
}

void CpuBackend::read(const float* from, std::int64_t count, float* to) {
  std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float));
}

void CpuBackend::write(const float* from, std::int64_t count, float* to) { read(from, count, to); }

void CpuBackend::read_kv(const KvCacheView& cache, std::int64_t block, std::int64_t layer, std::int64_t kv_head,
                         float* keys, float* values) {
  const KvLayout& layout = cache.layout;
  const std::int64_t head_dim = layout.head_dim;
  const std::byte* head = cache.head(block, layer, kv_head);
  if (layout.codes != KvCodes::kNone) return read_coded_head(layout, head, keys, values);
  for (std::int64_t t = 0; t < kKvBlockTokens; ++t) {
    for (std::int64_t d = 0; d < head_dim; ++d) {
      keys[t * head_dim + d] = read_element(layout.dtype, head, d * kKvBlockTokens + t);
      values[t * head_dim + d] = read_element(layout.dtype, head, (kKvBlockTokens + t) * head_dim + d);
    }
  }
}

}  // namespace cpu

Result<std::unique_ptr<Backend>> make_cpu_backend(const CpuBackendOptions& options) {
  LANNER_CHECK(options.isa <= detected_cpu_isa());
  const int threads = options.threads > 0 ? options.threads : available_processors();
  LANNER_ASSIGN_OR_RETURN(std::unique_ptr<ThreadPool> pool, ThreadPool::create(threads, options.pin_threads));
  return std::unique_ptr<Backend>(std::make_unique<cpu::CpuBackend>(std::move(pool), options));
}

}  // namespace lanner::ops
