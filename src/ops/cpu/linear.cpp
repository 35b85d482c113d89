// The CPU's matrix products: prepare the input rows once, share panels of the weight among the workers, finish each
// tile while it is in the first-level cache.

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/check.h"
#include "ops/check_arguments.h"
#include "ops/cpu/cpu_backend.h"

namespace lanner::ops::cpu {
namespace {

const CpuWeight& cpu_weight(const LinearPart& part) { return static_cast<const CpuWeight&>(*part.weight); }

void add_bias(const LinearPart& part, std::int64_t column, std::int64_t count, float* values) {
  if (part.bias == nullptr) return;
  const float* bias = part.bias->data() + column;
  for (std::int64_t i = 0; i < count; ++i) values[i] += bias[i];
}

/// Where a part's columns begin in a row of all parts' products.
std::int64_t first_column(const Linear& linear, std::size_t part) {
  std::int64_t column = 0;
  for (std::size_t p = 0; p < part; ++p) column += linear.parts[p].weight->rows();
  return column;
}

/// Turns the halves of a head by the angles of its position (RoFormer, with pairs in halves).
void rotate(float* head, const float* angles, std::int64_t rotary_dim) {
  const std::int64_t half = rotary_dim / 2;
  const float* cosines = angles;
  const float* sines = angles + half;
  for (std::int64_t i = 0; i < half; ++i) {
    const float a = head[i];
    const float b = head[i + half];
    head[i] = a * cosines[i] - b * sines[i];
    head[i + half] = b * cosines[i] + a * sines[i];
  }
}

}  // namespace

void CpuBackend::normalize(const Norm& norm, const float* x, std::int64_t n, float* out) const {
  if (norm.kind == NormKind::kRms) {
    kernels_.rms_norm(x, norm.gain->data(), norm.eps, n, out);
  } else {
    kernels_.layer_norm(x, norm.gain->data(), norm.bias == nullptr ? nullptr : norm.bias->data(), norm.eps, n, out);
  }
}

InputView CpuBackend::prepare(Worker& worker, const Linear& linear, const float* x, const std::int32_t* wanted,
                              std::int64_t rows) {
  const std::int64_t cols = linear.cols();
  LANNER_CHECK(rows <= reserved_rows_ && cols <= reserved_cols_);
  bool quantized = false;
  for (const LinearPart& part : linear.parts) quantized = quantized || is_quantized(part.weight->format());
  const std::int32_t* order = linear.input_order.empty() ? nullptr : linear.input_order.data();
  const bool copied = linear.norm || order != nullptr || wanted != nullptr;
  const std::int64_t groups = cols / kActivationGroup;
  auto* values = input_values_.as<float>();
  auto* high = input_codes_.as<std::int8_t>();
  auto* low = high + rows * cols;
  const auto [begin, end] = worker.share(rows);
  for (std::int64_t row = begin; row < end; ++row) {
    const float* in = x + (wanted != nullptr ? wanted[row] : row) * cols;
    float* out = values + row * cols;
    if (linear.norm) {
      float* normed = order == nullptr ? out : product_.as<float>() + row * cols;  // nobody's before the products
      normalize(linear.norm, in, cols, normed);
      in = normed;
    }
    if (order != nullptr) {
      for (std::int64_t i = 0; i < cols; ++i) out[i] = in[order[i]];
    } else if (copied && in != out) {
      std::memcpy(out, in, static_cast<std::size_t>(cols) * sizeof(float));
    }
    if (quantized) {
      kernels_.quantize(copied ? out : in, cols, high + row * cols, low + row * cols,
                        input_scales_.as<float>() + row * groups, input_sums_.as<std::int32_t>() + row * groups * 2);
    }
  }
  worker.barrier();
  return {.values = copied ? values : x,
          .high = high,
          .low = low,
          .scales = input_scales_.as<float>(),
          .sums = input_sums_.as<std::int32_t>()};
}

template <typename Visit>
void CpuBackend::for_each_tile(std::atomic<std::int64_t>& next, std::int64_t panels, std::int64_t rows,
                               const Visit& visit) {
  const std::int64_t wide = rows == 1 ? kernels_.single_panels : kernels_.tile_panels;
  // A run of panels a turn: long enough to stream, short enough that the workers end together.
  const std::int64_t run = std::clamp<std::int64_t>(panels / (8 * pool_->size()), 1, 4) * wide;
  while (true) {
    const std::int64_t begin = next.fetch_add(run, std::memory_order_relaxed);
    if (begin >= panels) return;
    const std::int64_t end = std::min(begin + run, panels);
    for (std::int64_t panel = begin; panel < end;) {
      const std::int64_t count = end - panel >= wide ? wide : 1;
      for (std::int64_t row = 0; row < rows; row += kernels_.tile_rows) {
        visit(panel, count, row, std::min(kernels_.tile_rows, rows - row));
      }
      panel += count;
    }
  }
}

template <typename Finish>
void CpuBackend::multiply_parts(std::atomic<std::int64_t>& next, const Linear& linear, const InputView& input,
                                std::int64_t rows, const Finish& finish) {
  // The parts' panels are numbered through, so that one counter shares them all.
  std::int64_t total = 0;
  for (const LinearPart& part : linear.parts) total += cpu_weight(part).panels();
  for_each_tile(
      next, total, rows, [&](std::int64_t first, std::int64_t count, std::int64_t row, std::int64_t row_count) {
        alignas(64) float tile[kMaxTileRows * kMaxTilePanels * kPanelRows];
        std::int64_t start = 0;  // of the part, in panels of all parts
        for (std::size_t p = 0; p < linear.parts.size(); ++p) {
          const LinearPart& part = linear.parts[p];
          const CpuWeight& weight = cpu_weight(part);
          std::int64_t panel = std::max<std::int64_t>(first - start, 0);
          const std::int64_t end = std::min(first + count - start, weight.panels());
          start += weight.panels();
          while (panel < end) {
            const std::int64_t here = end - panel == count ? count : 1;  // a run that crosses parts goes panel by panel
            kernels_.multiply(weight.view(), panel, here, input, row, row_count, tile);
            for (std::int64_t r = 0; r < row_count; ++r) {
              for (std::int64_t i = 0; i < here; ++i) {
                const std::int64_t column = (panel + i) * kPanelRows;
                float* values = tile + (r * here + i) * kPanelRows;
                const std::int64_t columns = std::min(kPanelRows, weight.rows() - column);
                add_bias(part, column, columns, values);
                finish(p, row + r, column, columns, values);
              }
            }
            panel += here;
          }
        }
      });
}

void CpuBackend::linear_add(const Linear& linear, const float* input, std::int64_t rows, float* x) {
  check_linear_add(linear);
  const std::int64_t width = linear.rows();
  const float scale = linear.epilogue.scale;
  const Norm& post_norm = linear.epilogue.post_norm;
  LANNER_CHECK(!post_norm || width <= reserved_cols_);
  std::atomic<std::int64_t> next{0};
  pool_->run([&](Worker& worker) {
    const InputView view = prepare(worker, linear, input, nullptr, rows);
    if (post_norm) return add_normed(worker, next, linear, view, rows, x);
    multiply_parts(
        next, linear, view, rows,
        [&](std::size_t part, std::int64_t row, std::int64_t column, std::int64_t count, const float* values) {
          float* out = x + row * width + first_column(linear, part) + column;
          for (std::int64_t i = 0; i < count; ++i) out[i] += scale * values[i];
        });
  });
}

void CpuBackend::add_normed(Worker& worker, std::atomic<std::int64_t>& next, const Linear& linear,
                            const InputView& input, std::int64_t rows, float* x) {
  const std::int64_t width = linear.rows();
  auto* product = product_.as<float>();  // (rows, width)
  multiply_parts(next, linear, input, rows,
                 [&](std::size_t part, std::int64_t row, std::int64_t column, std::int64_t count, const float* values) {
                   float* out = product + row * width + first_column(linear, part) + column;
                   for (std::int64_t i = 0; i < count; ++i) out[i] = linear.epilogue.scale * values[i];
                 });
  worker.barrier();
  const auto [begin, end] = worker.share(rows);
  for (std::int64_t row = begin; row < end; ++row) {
    float* normed = product + row * width;
    normalize(linear.epilogue.post_norm, normed, width, normed);
    for (std::int64_t i = 0; i < width; ++i) x[row * width + i] += normed[i];
  }
}

void CpuBackend::norm_head(const Linear& linear, const float* x, std::span<const std::int32_t> wanted, float* logits) {
  check_norm_head(linear);
  std::atomic<std::int64_t> next{0};
  const std::int64_t width = linear.rows();
  const auto rows = static_cast<std::int64_t>(wanted.size());
  const Epilogue& epilogue = linear.epilogue;
  pool_->run([&](Worker& worker) {
    const InputView view = prepare(worker, linear, x, wanted.data(), rows);
    multiply_parts(next, linear, view, rows,
                   [&](std::size_t part, std::int64_t row, std::int64_t column, std::int64_t count, float* values) {
                     if (epilogue.scale != 1.0F) {
                       for (std::int64_t i = 0; i < count; ++i) values[i] *= epilogue.scale;
                     }
                     if (epilogue.soft_cap != 0) kernels_.soft_cap(values, count, epilogue.soft_cap);
                     std::memcpy(logits + row * width + first_column(linear, part) + column, values,
                                 static_cast<std::size_t>(count) * 4);
                   });
  });
}

void CpuBackend::norm_gated_up(const Linear& linear, Gate gate, const float* x, std::int64_t rows, float* h,
                               const Linear* /*reader*/) {
  check_norm_gated_up(linear);
  const CpuWeight& gate_weight = cpu_weight(linear.parts[0]);
  const CpuWeight* up_weight = linear.parts.size() == 2 ? &cpu_weight(linear.parts[1]) : nullptr;
  const std::int64_t width = gate_weight.rows();
  std::atomic<std::int64_t> next{0};
  pool_->run([&](Worker& worker) {
    const InputView view = prepare(worker, linear, x, nullptr, rows);
    for_each_tile(next, gate_weight.panels(), rows,
                  [&](std::int64_t panel, std::int64_t count, std::int64_t row, std::int64_t row_count) {
                    alignas(64) float gates[kMaxTileRows * kMaxTilePanels * kPanelRows];
                    alignas(64) float ups[kMaxTileRows * kMaxTilePanels * kPanelRows];
                    kernels_.multiply(gate_weight.view(), panel, count, view, row, row_count, gates);
                    if (up_weight != nullptr) {
                      kernels_.multiply(up_weight->view(), panel, count, view, row, row_count, ups);
                    }
                    const std::int64_t column = panel * kPanelRows;
                    const std::int64_t columns = std::min(count * kPanelRows, width - column);
                    for (std::int64_t r = 0; r < row_count; ++r) {
                      float* gate_row = gates + r * count * kPanelRows;
                      float* up_row = up_weight == nullptr ? nullptr : ups + r * count * kPanelRows;
                      add_bias(linear.parts[0], column, columns, gate_row);
                      if (up_row != nullptr) add_bias(linear.parts[1], column, columns, up_row);
                      kernels_.gate(gate, gate_row, up_row, columns, h + (row + r) * width + column);
                    }
                  });
  });
}

void CpuBackend::norm_qkv(const NormQkvArgs& args, const Batch& batch, const KvCacheView& cache) {
  check_norm_qkv(args, batch, cache);
  const Linear& linear = *args.linear;
  const std::int64_t kv_width = cache.layout.kv_heads * cache.layout.head_dim;
  const std::int64_t q_width = args.heads * cache.layout.head_dim;
  LANNER_CHECK(2 * kv_width <= reserved_cols_);
  auto* kv = product_.as<float>();  // (rows, 2, kv_heads, head_dim)
  std::atomic<std::int64_t> next{0};
  pool_->run([&](Worker& worker) {
    const InputView view = prepare(worker, linear, args.x, nullptr, batch.rows);
    multiply_parts(
        next, linear, view, batch.rows,
        [&](std::size_t part, std::int64_t row, std::int64_t column, std::int64_t count, const float* values) {
          float* out = part == 0 ? args.q + row * q_width + column
                                 : kv + row * 2 * kv_width + (part == 1 ? 0 : kv_width) + column;
          std::memcpy(out, values, static_cast<std::size_t>(count) * sizeof(float));
        });
    worker.barrier();
    const auto [begin, end] = worker.share(batch.rows);
    for (const SequenceSlice& slice : batch.slices) {
      for (std::int32_t i = 0; i < slice.rows; ++i) {
        const std::int64_t row = slice.first_row + i;
        if (row < begin || row >= end) continue;
        const std::int64_t position = slice.first_position + i;
        const std::int32_t block = slice.blocks[static_cast<std::size_t>(position / kKvBlockTokens)];
        finish_heads(args, row, position, block, kv + row * 2 * kv_width, cache);
      }
    }
  });
}

void CpuBackend::finish_heads(const NormQkvArgs& args, std::int64_t row, std::int64_t position, std::int32_t block,
                              float* kv, const KvCacheView& cache) const {
  const KvLayout& layout = cache.layout;
  const std::int64_t head_dim = layout.head_dim;
  const float* angles = args.rope_angles + row * args.rotary_dim;
  for (std::int64_t h = 0; h < args.heads; ++h) {
    float* query = args.q + (row * args.heads + h) * head_dim;
    if (args.q_norm) normalize(args.q_norm, query, head_dim, query);
    rotate(query, angles, args.rotary_dim);
  }
  for (std::int64_t h = 0; h < layout.kv_heads; ++h) {
    float* key = kv + h * head_dim;
    if (args.k_norm) normalize(args.k_norm, key, head_dim, key);
    rotate(key, angles, args.rotary_dim);
    kernels_.write_kv(layout.dtype, key, key + layout.kv_heads * head_dim, head_dim, position % kKvBlockTokens,
                      cache.head(block, args.layer, h));
  }
}

}  // namespace lanner::ops::cpu
