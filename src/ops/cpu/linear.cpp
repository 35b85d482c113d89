// The CPU's matrix products: make the input rows ready, multiply tile by tile, finish each tile while it is in the
// first-level cache.
//
// Few rows are bound by reading the weight: the workers share its panels. One to four rows each worker makes ready for
// itself, which takes less time than to meet at a barrier; of more each makes some ready. Many rows are bound by
// multiplying: the workers share the rows, in blocks that fit the second-level cache with their codes, so that nothing
// of a block crosses from one core to another between its input and its finished output. Products in tiles of bf16 are
// cut the same way, with larger blocks (tile_products.h).

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "core/check.h"
#include "ops/check_arguments.h"
#include "ops/cpu/cpu_backend.h"

namespace lanner::ops::cpu {
namespace {

// Rows are shared instead of panels from this many rows on, times the square of the workers: each of them then reads
// all weights, which must take less time than to multiply its rows.
constexpr std::int64_t kOwnRowsOfInt4 = 4;
constexpr std::int64_t kOwnRowsOfOthers = 16;
constexpr std::int64_t kMostBlockRows = 64;       // rows that go through all panels together
constexpr std::int64_t kBlockBytes = 512 * 1024;  // of their codes: half of a usual second-level cache

// The same of tiles: a worker that takes fewer rows than these would unpack weights for most of its time.
constexpr std::int64_t kOwnTileRows = 128;
constexpr std::int64_t kRunsOfAWorker = 4;  // runs of panels that it takes in turn, where workers share them

const CpuWeight& cpu_weight(const LinearPart& part) { return static_cast<const CpuWeight&>(*part.weight); }

std::int64_t round_up(std::int64_t value, std::int64_t step) { return (value + step - 1) / step * step; }

/// Rows of a block, at most `most`: as many blocks for each worker, so that they end together.
std::int64_t even_block(std::int64_t rows, std::int64_t most, std::int64_t workers) {
  const std::int64_t blocks = workers * ((rows + most * workers - 1) / (most * workers));
  return (rows + blocks - 1) / blocks;
}

/// To the rows of a tile, which lie a stride apart.
void add_bias(const LinearPart& part, std::int64_t column, std::int64_t count, std::int64_t rows, std::int64_t stride,
              float* tile) {
  if (part.bias == nullptr) return;
  const float* bias = part.bias->data() + column;
  for (std::int64_t r = 0; r < rows; ++r) {
    float* values = tile + r * stride;
    for (std::int64_t i = 0; i < count; ++i) values[i] += bias[i];
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

CpuBackend::Cut CpuBackend::cut_of(const Linear& linear, std::int64_t rows) const {
  const std::int64_t cols = linear.cols();
  LANNER_CHECK(rows <= reserved_rows_ && cols <= reserved_cols_);
  Cut cut{.linear = linear, .rows = rows};
  bool int4 = true;
  for (const LinearPart& part : linear.parts) {
    cut.quantized = cut.quantized || is_quantized(part.weight->format());
    int4 = int4 && part.weight->format() == WeightFormat::kInt4;
  }
  const std::int64_t workers = pool_->size();
  const std::int64_t least = (int4 ? kOwnRowsOfInt4 : kOwnRowsOfOthers) * workers * workers;
  if (rows >= std::max(least, kernels_.block_rows * workers)) {
    const std::int64_t fitting = std::clamp(kBlockBytes / code_stride(cols), kMaxTileRows, kMostBlockRows);
    cut.block_rows = even_block(rows, fitting, workers);
  }
  cut.alone = cut.block_rows == 0 && rows <= kAloneRows;
  return cut;
}

const float* CpuBackend::ready_row(const Linear& linear, const float* in, float* normed, float* ordered) const {
  if (linear.norm) {
    normalize(linear.norm, in, linear.cols(), normed);
    in = normed;
  }
  if (linear.input_order.empty()) return in;
  const std::int32_t* order = linear.input_order.data();
  for (std::int64_t i = 0; i < linear.cols(); ++i) ordered[i] = in[order[i]];
  return ordered;
}

InputView CpuBackend::prepare_rows(const Cut& cut, const float* x, const std::int32_t* wanted, std::int64_t begin,
                                   std::int64_t end, std::int64_t place) {
  const Linear& linear = cut.linear;
  const std::int64_t cols = linear.cols();
  const bool ordered = !linear.input_order.empty();
  const bool copied = linear.norm || ordered || wanted != nullptr;
  float* values = input_values_.as<float>() + place * cols;
  float* unordered = input_unordered_.as<float>() + place * cols;
  std::int8_t* codes = input_codes_.as<std::int8_t>() + place * code_stride(cols);
  ActivationGroup* groups = input_groups_.as<ActivationGroup>() + place * (cols / kActivationGroup);
  for (std::int64_t row = begin; row < end; ++row) {
    const float* in = x + (wanted != nullptr ? wanted[row] : row) * cols;
    float* out = values + row * cols;
    in = ready_row(linear, in, ordered ? unordered + row * cols : out, out);
    if (copied && in != out) std::memcpy(out, in, static_cast<std::size_t>(cols) * sizeof(float));
    if (cut.quantized) {
      kernels_.quantize(in, cols, codes + row * code_stride(cols), groups + row * (cols / kActivationGroup));
    }
  }
  return {.values = copied ? values : x, .codes = codes, .groups = groups};
}

InputView CpuBackend::prepare(Worker& worker, const Cut& cut, const float* x, const std::int32_t* wanted) {
  if (cut.alone) return prepare_rows(cut, x, wanted, 0, cut.rows, reserved_rows_ + worker.index() * kAloneRows);
  const auto [begin, end] = worker.share(cut.rows);
  const InputView view = prepare_rows(cut, x, wanted, begin, end, 0);
  worker.barrier();
  return view;
}

template <typename Visit>
void CpuBackend::for_each_tile(Worker& worker, Turns& turns, std::int64_t panels, const Cut& cut, const Visit& visit) {
  const std::int64_t rows = cut.rows;
  const std::int64_t wide = rows > 1 ? kernels_.tile_panels : 1;
  const auto visit_panels = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t panel = begin; panel < end;) {
      const std::int64_t count = end - panel >= wide ? wide : 1;
      for (std::int64_t row = 0; row < rows; row += kernels_.tile_rows) {
        visit(panel, count, row, std::min(kernels_.tile_rows, rows - row));
      }
      panel += count;
    }
  };
  // Most of a worker's share is its own, in one run that streams; the rest goes to whoever comes first, at last one
  // panel at a time, so that the workers end together.
  const std::int64_t workers = worker.count();
  const std::int64_t own = panels * 3 / 4 / workers / wide * wide;
  visit_panels(worker.index() * own, (worker.index() + 1) * own);
  const std::int64_t shared = workers * own;
  const std::int64_t runs = std::max<std::int64_t>(0, panels - shared - workers * wide) / wide;
  while (true) {
    const std::int64_t turn = turns.next.fetch_add(1, std::memory_order_relaxed);
    const std::int64_t begin = shared + std::min(turn, runs) * wide + std::max<std::int64_t>(0, turn - runs);
    if (begin >= panels) return;
    visit_panels(begin, begin + (turn < runs ? wide : 1));
  }
}

template <typename Visit>
void CpuBackend::for_each_tile_of_block(std::int64_t panels, std::int64_t begin, std::int64_t end,
                                        const Visit& visit) const {
  const std::int64_t wide = kernels_.tile_panels;
  for (std::int64_t panel = 0; panel < panels;) {
    const std::int64_t count = panels - panel >= wide ? wide : 1;
    for (std::int64_t row = begin; row < end; row += kernels_.tile_rows) {
      visit(panel, count, row, std::min(kernels_.tile_rows, end - row));
    }
    panel += count;
  }
}

template <typename Multiply, typename Finish>
void CpuBackend::run_product(const Linear& linear, const float* x, const std::int32_t* wanted, std::int64_t rows,
                             std::int64_t panels, const Multiply& multiply, const Finish& finish) {
  const Cut cut = cut_of(linear, rows);
  Turns turns;
  if (cut.block_rows == 0) {
    pool_->run([&](Worker& worker) {
      const InputView view = prepare(worker, cut, x, wanted);
      for_each_tile(worker, turns, panels, cut,
                    [&](std::int64_t panel, std::int64_t count, std::int64_t row, std::int64_t row_count) {
                      multiply(view, panel, count, row, row_count);
                    });
      if constexpr (!std::is_same_v<Finish, std::nullptr_t>) {
        worker.barrier();
        const auto [begin, end] = worker.share(rows);
        finish(begin, end);
      }
    });
    return;
  }
  const std::int64_t blocks = (rows + cut.block_rows - 1) / cut.block_rows;
  pool_->run([&](Worker& /*worker*/) {
    while (true) {
      const std::int64_t block = turns.next.fetch_add(1, std::memory_order_relaxed);
      if (block >= blocks) return;
      const std::int64_t begin = block * cut.block_rows;
      const std::int64_t end = std::min(begin + cut.block_rows, rows);
      const InputView view = prepare_rows(cut, x, wanted, begin, end, 0);
      for_each_tile_of_block(panels, begin, end,
                             [&](std::int64_t panel, std::int64_t count, std::int64_t row, std::int64_t row_count) {
                               multiply(view, panel, count, row, row_count);
                             });
      if constexpr (!std::is_same_v<Finish, std::nullptr_t>) finish(begin, end);
    }
  });
}

bool CpuBackend::takes_tiles(const Linear& linear, std::int64_t rows) const {
  return tiles_ != nullptr && rows >= tiles_->least_rows &&
         std::all_of(linear.parts.begin(), linear.parts.end(),
                     [&](const LinearPart& part) { return tiles_->takes(cpu_weight(part).view()); });
}

bool CpuBackend::hands_tiles(const Linear* reader, std::int64_t rows, std::int64_t width) const {
  return reader != nullptr && takes_tiles(*reader, rows) && !reader->norm && reader->input_order.empty() &&
         width % kBf16TileColumns == 0 && input_elements(rows, width) * 2 <= rows * width * 4;
}

std::int64_t CpuBackend::tile_block_rows(std::int64_t rows) const {
  const std::int64_t workers = pool_->size();
  if (workers > 1 && rows < kOwnTileRows * workers) return 0;
  return round_up(even_block(rows, kBlockTileRows, workers), kPairRows);
}

TileRoom CpuBackend::tile_room(const Worker& worker) {
  std::byte* room = tile_rooms_.data() + worker.index() * tile_room_bytes(reserved_cols_);
  return {.panels = reinterpret_cast<std::uint16_t*>(room),
          .sums = reinterpret_cast<float*>(room + TileRoom::kPanelElements * 2)};
}

void CpuBackend::prepare_tiles(const Worker& worker, const Linear& linear, const ProductInput& input,
                               std::int64_t begin, std::int64_t end) {
  if (input.tiles != nullptr) return;
  const std::int64_t cols = linear.cols();
  float* normed = tile_room(worker).sums + TileRoom::kSums;
  float* ordered = normed + reserved_cols_;
  for (std::int64_t row = begin; row < end; ++row) {
    const float* in = input.x + (input.wanted != nullptr ? input.wanted[row] : row) * cols;
    in = ready_row(linear, in, normed, ordered);
    tiles_->round_rows(in, cols, 1, cols, tile_row(input_codes_.as<std::uint16_t>(), row, cols));
  }
}

template <typename Visit, typename Finish>
void CpuBackend::run_tiles(const Linear& linear, const ProductInput& input, std::int64_t rows,
                           std::span<const TileWeights> tasks, const Visit& visit, const Finish& finish) {
  const std::int64_t cols = linear.cols();
  LANNER_CHECK(rows <= reserved_rows_ && cols <= reserved_cols_);
  const std::uint16_t* tiles = input.tiles != nullptr ? input.tiles : input_codes_.as<std::uint16_t>();
  /// Rows of a block by a run of the tasks' pairs of panels, which are numbered through.
  const auto multiply = [&](const Worker& worker, const TileRows& block, std::int64_t first, std::int64_t end) {
    const TileRoom room = tile_room(worker);
    for (std::size_t t = 0; t < tasks.size(); ++t) {
      const std::int64_t pairs = pairs_of(tasks[t].panels);
      const auto visit_task = [&](std::int64_t panel, std::int64_t panels, std::int64_t row, std::int64_t row_count,
                                  float* const* sums) { visit(t, panel, panels, row, row_count, sums); };
      TileWalk(*tiles_, room, tasks[t], block, visit_task)
          .run(std::clamp<std::int64_t>(first, 0, pairs), std::clamp<std::int64_t>(end, 0, pairs));
      first -= pairs;
      end -= pairs;
    }
  };
  std::int64_t pairs = 0;
  for (const TileWeights& task : tasks) pairs += pairs_of(task.panels);
  const std::int64_t own_rows = tile_block_rows(rows);
  const std::int64_t block_rows = own_rows > 0 ? own_rows : kBlockTileRows;
  const std::int64_t blocks = (rows + block_rows - 1) / block_rows;
  // Where workers share the panels, runs of them go in turn.
  const std::int64_t wanted_runs = own_rows > 0 ? 1 : std::int64_t{pool_->size()} * kRunsOfAWorker;
  const std::int64_t run = (pairs + wanted_runs - 1) / wanted_runs;
  const std::int64_t runs = (pairs + run - 1) / run;
  Turns turns;
  pool_->run([&](Worker& worker) {
    tiles_->configure();
    const auto [own_begin, own_end] = worker.share(rows);
    if (own_rows == 0) {
      prepare_tiles(worker, linear, input, own_begin, own_end);
      worker.barrier();
    }
    while (true) {
      const std::int64_t turn = turns.next.fetch_add(1, std::memory_order_relaxed);
      if (turn >= blocks * runs) break;
      const std::int64_t begin = turn / runs * block_rows;
      const std::int64_t end = std::min(begin + block_rows, rows);
      if (own_rows > 0) prepare_tiles(worker, linear, input, begin, end);
      const std::int64_t first = turn % runs * run;
      multiply(worker, {.input = tiles, .cols = cols, .begin = begin, .end = end}, first, std::min(first + run, pairs));
      if constexpr (!std::is_same_v<Finish, std::nullptr_t>) {
        if (own_rows > 0) finish(begin, end);
      }
    }
    if constexpr (!std::is_same_v<Finish, std::nullptr_t>) {
      if (own_rows > 0) return;
      worker.barrier();
      finish(own_begin, own_end);
    }
  });
}

template <typename Take, typename Finish>
void CpuBackend::multiply_parts(const Linear& linear, const ProductInput& input, std::int64_t rows, const Take& take,
                                const Finish& finish) {
  /// Of a part whose columns begin at `first_column` of a row of all parts' products.
  const auto take_tile = [&](std::size_t part, std::int64_t first_column, std::int64_t panel, std::int64_t panels,
                             std::int64_t row, std::int64_t row_count, float* tile) {
    const std::int64_t column = panel * kPanelRows;
    const std::int64_t columns = std::min(panels * kPanelRows, linear.parts[part].weight->rows() - column);
    const std::int64_t stride = panels * kPanelRows;
    add_bias(linear.parts[part], column, columns, row_count, stride, tile);
    take({.row = row,
          .rows = row_count,
          .column = first_column + column,
          .columns = columns,
          .values = tile,
          .stride = stride});
  };
  if (takes_tiles(linear, rows)) {
    std::vector<TileWeights> tasks;
    std::vector<std::int64_t> first_columns = {0};
    for (const LinearPart& part : linear.parts) {
      const CpuWeight& weight = cpu_weight(part);
      tasks.push_back({.weights = {&weight.view()}, .panels = weight.panels()});
      first_columns.push_back(first_columns.back() + weight.rows());
    }
    return run_tiles(
        linear, input, rows, tasks,
        [&](std::size_t part, std::int64_t panel, std::int64_t panels, std::int64_t row, std::int64_t row_count,
            float* const* sums) { take_tile(part, first_columns[part], panel, panels, row, row_count, sums[0]); },
        finish);
  }
  LANNER_CHECK(input.tiles == nullptr);
  // The parts' panels are numbered through, so that the workers share them all.
  std::int64_t total = 0;
  for (const LinearPart& part : linear.parts) total += cpu_weight(part).panels();
  const auto multiply = [&](const InputView& view, std::int64_t first, std::int64_t count, std::int64_t row,
                            std::int64_t row_count) {
    alignas(64) float tile[kMaxTileRows * kMaxTilePanels * kPanelRows];
    std::int64_t start = 0;         // of the part, in panels of all parts
    std::int64_t first_column = 0;  // of the part
    for (std::size_t p = 0; p < linear.parts.size(); ++p) {
      const CpuWeight& weight = cpu_weight(linear.parts[p]);
      std::int64_t panel = std::max<std::int64_t>(first - start, 0);
      const std::int64_t end = std::min(first + count - start, weight.panels());
      while (panel < end) {
        const std::int64_t here = end - panel == count ? count : 1;  // a run that crosses parts goes panel by panel
        kernels_.multiply(weight.view(), panel, here, view, row, row_count, tile);
        take_tile(p, first_column, panel, here, row, row_count, tile);
        panel += here;
      }
      start += weight.panels();
      first_column += weight.rows();
    }
  };
  run_product(linear, input.x, input.wanted, rows, total, multiply, finish);
}

void CpuBackend::handed_linear_add(const Linear& linear, const float* input, std::int64_t rows, float* x) {
  ProductInput handed{.x = input};
  if (input == tiles_at_) {
    handed.tiles = reinterpret_cast<const std::uint16_t*>(input);
    tiles_at_ = nullptr;
  }
  add_product(linear, handed, rows, x);
}

void CpuBackend::linear_add(const Linear& linear, const float* input, std::int64_t rows, float* x) {
  add_product(linear, {.x = input}, rows, x);
}

void CpuBackend::add_product(const Linear& linear, const ProductInput& input, std::int64_t rows, float* x) {
  check_linear_add(linear);
  const std::int64_t width = linear.rows();
  const float scale = linear.epilogue.scale;
  const Norm& post_norm = linear.epilogue.post_norm;
  if (!post_norm) {
    multiply_parts(
        linear, input, rows,
        [&](const TakenTile& tile) {
          kernels_.add_scaled(tile.values, tile.stride, tile.rows, tile.columns, scale,
                              x + tile.row * width + tile.column, width);
        },
        nullptr);
    return;
  }
  LANNER_CHECK(width <= reserved_cols_);
  auto* product = product_.as<float>();  // (rows, width)
  multiply_parts(
      linear, input, rows,
      [&](const TakenTile& tile) {
        for (std::int64_t r = 0; r < tile.rows; ++r) {
          const float* values = tile.values + r * tile.stride;
          float* out = product + (tile.row + r) * width + tile.column;
          for (std::int64_t i = 0; i < tile.columns; ++i) out[i] = values[i] * scale;
        }
      },
      [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row) {
          float* normed = product + row * width;
          normalize(post_norm, normed, width, normed);
          kernels_.add_scaled(normed, width, 1, width, 1.0F, x + row * width, width);
        }
      });
}

void CpuBackend::norm_head(const Linear& linear, const float* x, std::span<const std::int32_t> wanted, float* logits) {
  check_norm_head(linear);
  const std::int64_t width = linear.rows();
  const Epilogue& epilogue = linear.epilogue;
  multiply_parts(
      linear, {.x = x, .wanted = wanted.data()}, static_cast<std::int64_t>(wanted.size()),
      [&](const TakenTile& tile) {
        for (std::int64_t r = 0; r < tile.rows; ++r) {
          float* values = tile.values + r * tile.stride;
          if (epilogue.scale != 1.0F) {
            for (std::int64_t i = 0; i < tile.columns; ++i) values[i] *= epilogue.scale;
          }
          if (epilogue.soft_cap != 0) kernels_.soft_cap(values, tile.columns, epilogue.soft_cap);
          std::memcpy(logits + (tile.row + r) * width + tile.column, values,
                      static_cast<std::size_t>(tile.columns) * sizeof(float));
        }
      },
      nullptr);
}

void CpuBackend::norm_gated_up(const Linear& linear, Gate gate, const float* x, std::int64_t rows, float* h,
                               const Linear* reader) {
  check_norm_gated_up(linear);
  const CpuWeight& gate_weight = cpu_weight(linear.parts[0]);
  const CpuWeight* up_weight = linear.parts.size() == 2 ? &cpu_weight(linear.parts[1]) : nullptr;
  const std::int64_t width = gate_weight.rows();
  const bool as_tiles = takes_tiles(linear, rows) && hands_tiles(reader, rows, width);
  /// Of tiles of both products, which it may change.
  const auto finish = [&](std::int64_t panel, std::int64_t count, std::int64_t row, std::int64_t row_count,
                          float* gates, float* ups) {
    const std::int64_t column = panel * kPanelRows;
    const std::int64_t columns = std::min(count * kPanelRows, width - column);
    const std::int64_t stride = count * kPanelRows;
    add_bias(linear.parts[0], column, columns, row_count, stride, gates);
    if (ups != nullptr) add_bias(linear.parts[1], column, columns, row_count, stride, ups);
    if (!as_tiles) {
      return kernels_.gate(gate, gates, ups, stride, row_count, columns, h + row * width + column, width);
    }
    kernels_.gate(gate, gates, ups, stride, row_count, columns, gates, stride);
    for (std::int64_t r = 0; r < row_count; r += kBf16TileRows) {  // whole tiles, since width is
      std::uint16_t* place = tile_row(reinterpret_cast<std::uint16_t*>(h), row + r, width);
      tiles_->round_rows(gates + r * stride, stride, std::min(kBf16TileRows, row_count - r), columns,
                         place + column / kBf16TileColumns * kBf16TileElements);
    }
  };
  tiles_at_ = as_tiles ? h : nullptr;
  if (takes_tiles(linear, rows)) {
    TileWeights task{.weights = {&gate_weight.view()}, .panels = gate_weight.panels()};
    if (up_weight != nullptr) {
      task.weights[1] = &up_weight->view();
      task.count = 2;
    }
    return run_tiles(
        linear, {.x = x}, rows, {&task, 1},
        [&](std::size_t /*task*/, std::int64_t panel, std::int64_t count, std::int64_t row, std::int64_t row_count,
            float* const* sums) { finish(panel, count, row, row_count, sums[0], sums[1]); },
        nullptr);
  }
  const auto multiply = [&](const InputView& view, std::int64_t panel, std::int64_t count, std::int64_t row,
                            std::int64_t row_count) {
    alignas(64) float gates[kMaxTileRows * kMaxTilePanels * kPanelRows];
    alignas(64) float ups[kMaxTileRows * kMaxTilePanels * kPanelRows];
    kernels_.multiply(gate_weight.view(), panel, count, view, row, row_count, gates);
    if (up_weight != nullptr) kernels_.multiply(up_weight->view(), panel, count, view, row, row_count, ups);
    finish(panel, count, row, row_count, gates, up_weight == nullptr ? nullptr : ups);
  };
  run_product(linear, x, nullptr, rows, gate_weight.panels(), multiply, nullptr);
}

void CpuBackend::norm_qkv(const NormQkvArgs& args, const Batch& batch, const KvCacheView& cache) {
  check_norm_qkv(args, batch, cache);
  const Linear& linear = *args.linear;
  const std::int64_t kv_width = 2 * cache.layout.kv_heads * cache.layout.head_dim;
  const std::int64_t q_width = args.heads * cache.layout.head_dim;
  LANNER_CHECK(kv_width <= reserved_cols_);
  auto* kv = product_.as<float>();  // (rows, 2, kv_heads, head_dim)
  multiply_parts(
      linear, {.x = args.x}, batch.rows,
      [&](const TakenTile& tile) {
        const bool query = tile.column < q_width;
        float* out =
            query ? args.q + tile.row * q_width + tile.column : kv + tile.row * kv_width + tile.column - q_width;
        for (std::int64_t r = 0; r < tile.rows; ++r, out += query ? q_width : kv_width) {
          std::memcpy(out, tile.values + r * tile.stride, static_cast<std::size_t>(tile.columns) * sizeof(float));
        }
      },
      [&](std::int64_t begin, std::int64_t end) {
        for (const SequenceSlice& slice : batch.slices) {
          const std::int64_t first = slice.first_row;
          for (std::int64_t row = std::max(begin, first); row < std::min(end, first + slice.rows); ++row) {
            const std::int64_t position = slice.first_position + (row - first);
            const std::int32_t block = slice.blocks[static_cast<std::size_t>(position / kKvBlockTokens)];
            finish_heads(args, row, position, block, kv + row * kv_width, cache);
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
    kernels_.rotate(query, angles, args.rotary_dim);
  }
  for (std::int64_t h = 0; h < layout.kv_heads; ++h) {
    float* key = kv + h * head_dim;
    if (args.k_norm) normalize(args.k_norm, key, head_dim, key);
    kernels_.rotate(key, angles, args.rotary_dim);
    kernels_.write_kv(layout, key, key + layout.kv_heads * head_dim, position % kKvBlockTokens,
                      cache.head(block, args.layer, h));
  }
}

}  // namespace lanner::ops::cpu
