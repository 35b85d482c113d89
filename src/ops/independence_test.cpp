// What --deterministic promises, bit for bit: a row's results do not depend on the rows beside it, on the number of
// threads, or on how a prompt is cut. And that what is not a number stays where it arose, and shows.

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "ops/ops_test_support.h"

namespace lanner::ops::testing {
namespace {

constexpr std::int64_t kRows = 18;
constexpr std::int64_t kCols = 192;

std::span<const float> row_of(const std::vector<float>& values, std::int64_t row, std::int64_t width) {
  return std::span(values).subspan(static_cast<std::size_t>(row * width), static_cast<std::size_t>(width));
}

/// An operation on `rows` rows of x (rows, kCols) that gives (rows, width).
struct RowOperation {
  std::int64_t width = 0;
  std::function<std::vector<float>(Backend&, const float* x, std::int64_t rows)> run;
};

RowOperation adding(const HostLinear& host) {
  return {host.width(), [host](Backend& backend, const float* x, std::int64_t rows) {
            std::vector<float> out(static_cast<std::size_t>(rows * host.width()), 0.5F);
            backend.linear_add(host.on(backend), x, rows, out.data());
            return out;
          }};
}

RowOperation gated(const HostLinear& host, Gate gate) {
  const std::int64_t width = host.weights.front().rows;
  return {width, [host, gate, width](Backend& backend, const float* x, std::int64_t rows) {
            std::vector<float> out(static_cast<std::size_t>(rows * width));
            backend.norm_gated_up(host.on(backend), gate, x, rows, out.data(), nullptr);
            return out;
          }};
}

RowOperation heading(const HostLinear& host) {
  return {host.width(), [host](Backend& backend, const float* x, std::int64_t rows) {
            std::vector<std::int32_t> wanted;
            for (std::int32_t row = 0; row < rows; ++row) wanted.push_back(row);
            std::vector<float> out(static_cast<std::size_t>(rows * host.width()));
            backend.norm_head(host.on(backend), x, wanted, out.data());
            return out;
          }};
}

/// linear_add, norm_gated_up and norm_head of one weight format, plain and with what they can do besides. The heights
/// leave ragged panels.
std::vector<RowOperation> operations(const WeightKind& kind, Random& random) {
  HostLinear add = random_linear(kind, {.rows = {17, 100}, .cols = kCols, .bias = true, .ordered = true}, random);
  add.scale = 0.7F;
  add.post_norm = random_norm(NormKind::kLayer, true, add.width(), random);
  HostLinear head = random_linear(kind, {.rows = {150}, .cols = kCols, .norm = true, .ordered = true}, random);
  head.scale = 0.7F;
  head.soft_cap = 30.0F;
  const LinearShape without_gate{
      .rows = {49}, .cols = kCols, .norm = true, .norm_kind = NormKind::kLayer, .norm_bias = true};
  return {adding(random_linear(kind, {.rows = {17, 100}, .cols = kCols, .bias = true}, random)),
          gated(random_linear(kind, {.rows = {49, 49}, .cols = kCols, .norm = true}, random), Gate::kSilu),
          heading(random_linear(kind, {.rows = {150}, .cols = kCols, .norm = true}, random)),
          adding(add),
          gated(random_linear(kind, without_gate, random), Gate::kGelu),
          heading(head)};
}

TEST(Independence, OfARowFromTheRowsBesideIt) {
  Random random(50);
  for (const WeightKind& kind : some_of_each_kind()) {
    SCOPED_TRACE(kind.name());
    const std::vector<float> x = random.vector(kRows * kCols, -2.0F, 2.0F);
    for (const RowOperation& operation : operations(kind, random)) {
      const std::vector<float> together = operation.run(device(1), x.data(), kRows);
      for (std::int64_t row = 0; row < kRows; ++row) {
        const std::vector<float> alone = operation.run(device(1), x.data() + row * kCols, 1);
        expect_same_bits(row_of(together, row, operation.width), alone);
      }
      for (const std::int64_t first : {0, 5}) {  // and among 2 to 9 others, which cut other tiles
        for (const std::int64_t rows : {2, 3, 4, 5, 7, 8, 9}) {
          const std::vector<float> some = operation.run(device(1), x.data() + first * kCols, rows);
          expect_same_bits(std::span(together).subspan(static_cast<std::size_t>(first * operation.width), some.size()),
                           some);
        }
      }
    }
  }
}

TEST(Independence, OfProductsFromTheNumberOfThreads) {
  Random random(51);
  for (const WeightKind& kind : some_of_each_kind()) {
    SCOPED_TRACE(kind.name());
    const std::vector<float> x = random.vector(kRows * kCols, -2.0F, 2.0F);
    for (const RowOperation& operation : operations(kind, random)) {
      for (const std::int64_t rows : {std::int64_t{1}, kRows}) {
        const std::vector<float> one = operation.run(device(1), x.data(), rows);
        for (int threads = 2; threads <= kMaxThreads; ++threads) {
          expect_same_bits(operation.run(device(threads), x.data(), rows), one);
        }
      }
    }
  }
}

// So many rows that workers share them instead of the weight's panels, in blocks that end within a tile.
TEST(Independence, OfManyRowsFromHowTheyAreShared) {
  Random random(55);
  constexpr std::int64_t kMany = 203;
  for (const WeightKind& kind : some_of_each_kind()) {
    SCOPED_TRACE(kind.name());
    const std::vector<float> x = random.vector(kMany * kCols, -2.0F, 2.0F);
    for (const RowOperation& operation : operations(kind, random)) {
      const std::vector<float> one = operation.run(device(1), x.data(), kMany);
      for (int threads = 2; threads <= kMaxThreads; ++threads) {
        expect_same_bits(operation.run(device(threads), x.data(), kMany), one);
      }
      for (const std::int64_t row : {0, 31, 32, 64, 150, 202}) {
        expect_same_bits(operation.run(device(2), x.data() + row * kCols, 1), row_of(one, row, operation.width));
      }
    }
  }
}

bool none_finite(std::span<const float> values) {
  return std::none_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
}

TEST(NotANumber, StaysInItsRowAndShowsInAllOfItsOutputs) {
  Random random(52);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float poisons[] = {std::numeric_limits<float>::quiet_NaN(), kInfinity, -kInfinity};
  for (const WeightKind& kind : some_of_each_kind()) {
    for (const RowOperation& operation : operations(kind, random)) {
      std::vector<float> x = random.vector(kRows * kCols, -2.0F, 2.0F);
      const std::vector<float> clean = operation.run(device(2), x.data(), kRows);
      for (std::size_t i = 0; i < 3; ++i) {
        SCOPED_TRACE(::testing::Message() << kind.name() << ", width " << operation.width << ", " << poisons[i]);
        const std::int64_t poisoned[] = {0, 7, 17};
        const std::int64_t columns[] = {0, 37, 191};
        std::vector<float> sick = x;
        sick[static_cast<std::size_t>(poisoned[i] * kCols + columns[i])] = poisons[i];
        const std::vector<float> out = operation.run(device(2), sick.data(), kRows);
        for (std::int64_t row = 0; row < kRows; ++row) {
          if (row == poisoned[i]) {
            EXPECT_TRUE(none_finite(row_of(out, row, operation.width))) << "row " << row;
          } else {
            expect_same_bits(row_of(out, row, operation.width), row_of(clean, row, operation.width));
          }
        }
      }
    }
  }
}

// --- attention -------------------------------------------------------------------------------------------------

struct Sequences {
  KvLayout layout;
  TestCache cache;
  std::vector<std::vector<std::int32_t>> blocks;
  AttentionArgs variant{.scale = 0.2F};  // the window, caps and slopes of attend

  /// `count` sequences of `tokens` tokens with random keys and values; `poison`, if any, at token 10 of the first.
  Sequences(const KvLayout& with, std::size_t count, std::int64_t tokens, Random& random, float poison = 0)
      : layout(with),
        cache(with, static_cast<std::int64_t>(count) * (tokens + 63) / 64 + static_cast<std::int64_t>(count)) {
    const std::vector<std::int32_t> pool = random.permutation(cache.view().blocks);
    std::size_t dealt = 0;
    for (std::size_t i = 0; i < count; ++i) {
      blocks.emplace_back();
      for (std::int64_t t = 0; t < tokens; t += kKvBlockTokens) blocks.back().push_back(pool[dealt++]);
      const std::int64_t width = layout.kv_heads * layout.head_dim;
      std::vector<float> keys = random.vector(tokens * width);
      if (i == 0 && poison != 0) keys[static_cast<std::size_t>(10 * width)] = poison;
      cache.write(device(1), 0, blocks.back(), keys, random.vector(tokens * width));
    }
  }

  /// Attention of `rows` queries of each of the first `count` sequences, from first_position on.
  std::vector<float> attend(Backend& backend, const std::vector<float>& q, std::int64_t heads, std::size_t count,
                            std::int32_t first_position, std::int32_t rows) const {
    std::vector<SequenceSlice> slices;
    std::vector<std::int32_t> positions;
    for (std::size_t i = 0; i < count; ++i) {
      slices.push_back({.first_row = static_cast<std::int32_t>(i) * rows,
                        .rows = rows,
                        .first_position = first_position,
                        .blocks = blocks[i]});
      for (std::int32_t row = 0; row < rows; ++row) positions.push_back(first_position + row);
    }
    const Batch batch{
        .rows = rows * static_cast<std::int32_t>(count), .tokens = positions, .positions = positions, .slices = slices};
    std::vector<float> out(q.size());
    AttentionArgs args = variant;
    args.q = q.data();
    args.heads = heads;
    args.out = out.data();
    backend.attention(args, batch, cache.view());
    return out;
  }
};

/// That 33 rows of a prompt are, bit for bit, what they are alone, in pieces, among others and on any number of
/// threads.
void check_attention_independence(const Sequences& sequences, std::int64_t heads, Random& random) {
  const auto many = static_cast<std::int64_t>(sequences.blocks.size());
  const std::int64_t width = heads * sequences.layout.head_dim;
  const std::int32_t first = 497;  // the chunk border of 512 lies within the 33 rows
  const std::vector<float> q = random.vector(many * 33 * width, -4.0F, 4.0F);
  const std::vector<float> prompt = sequences.attend(device(1), q, heads, sequences.blocks.size(), first, 33);
  for (int threads = 1; threads <= kMaxThreads; ++threads) {
    Backend& backend = device(threads);
    expect_same_bits(sequences.attend(backend, q, heads, sequences.blocks.size(), first, 33), prompt);
    for (const std::int32_t row : {0, 14, 15, 32}) {
      // Alone, where few tasks make the device spread chunks over the threads; and many sequences, where it does not.
      const auto start = q.begin() + static_cast<std::ptrdiff_t>(row * width);
      const std::vector<float> one(start, start + static_cast<std::ptrdiff_t>(width));
      expect_same_bits(sequences.attend(backend, one, heads, 1, first + row, 1), row_of(prompt, row, width));
      std::vector<float> rows;
      for (std::int64_t i = 0; i < many; ++i) {
        const std::span<const float> query = row_of(q, i * 33 + row, width);
        rows.insert(rows.end(), query.begin(), query.end());
      }
      const std::vector<float> decoded =
          sequences.attend(backend, rows, heads, sequences.blocks.size(), first + row, 1);
      for (std::int64_t i = 0; i < many; ++i) {
        expect_same_bits(row_of(decoded, i, width), row_of(prompt, i * 33 + row, width));
      }
    }
    // A prompt in pieces, as a draft of 5 tokens is verified.
    const auto start = q.begin() + static_cast<std::ptrdiff_t>(12 * width);
    const std::vector<float> five(start, start + static_cast<std::ptrdiff_t>(5 * width));
    const std::vector<float> piece = sequences.attend(backend, five, heads, 1, first + 12, 5);
    expect_same_bits(piece, std::span(prompt).subspan(static_cast<std::size_t>(12 * width), piece.size()));
  }
}

constexpr std::size_t kManySequences = 7;  // enough that heads are not handed out one by one to three threads

TEST(Independence, OfADecodingRowFromPromptChunksNeighboursAndThreads) {
  Random random(53);
  const std::pair<DType, std::int64_t> cases[] = {{DType::kF32, 1}, {DType::kF16, 3}, {DType::kBF16, 9}};
  for (const auto& [dtype, group] : cases) {
    SCOPED_TRACE(::testing::Message() << dtype_name(dtype) << ", group " << group);
    const KvLayout layout{.layers = 1, .kv_heads = 2, .head_dim = 48, .dtype = dtype};
    check_attention_independence(Sequences(layout, kManySequences, 530, random), 2 * group, random);
  }
}

TEST(Independence, OfADecodingRowOverCodes) {
  Random random(59);
  for (const KvCodes codes : {KvCodes::kInt8, KvCodes::kInt4}) {
    for (const std::int64_t window : {0, 64, 250}) {
      SCOPED_TRACE(::testing::Message() << (codes == KvCodes::kInt8 ? "int8" : "int4") << ", window " << window);
      const KvLayout layout{.layers = 1, .kv_heads = 2, .head_dim = 48, .dtype = DType::kF16, .codes = codes};
      Sequences sequences(layout, kManySequences, 530, random);
      sequences.variant.window = window;
      check_attention_independence(sequences, 6, random);
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(Independence, OfADecodingRowWithWindowsCapsAndSlopes) {
  Random random(57);
  constexpr std::int64_t kHeads = 6;
  const KvLayout layout{.layers = 1, .kv_heads = 2, .head_dim = 48, .dtype = DType::kF16};
  const auto slopes = uploaded(device(1), random.vector(kHeads, 0.0F, 0.5F));
  Sequences sequences(layout, kManySequences, 530, random);
  for (const std::int64_t window : {0, 1, 40, 64, 250, 256, 257, 300}) {  // 250: the 33 rows begin in two chunks
    for (const bool others : {false, true}) {
      if (window == 0 && !others) continue;  // the test above
      SCOPED_TRACE(::testing::Message() << "window " << window << (others ? ", cap and slopes" : ""));
      sequences.variant.window = window;
      sequences.variant.soft_cap = others ? 2.0F : 0.0F;
      sequences.variant.alibi_slopes = others ? slopes : nullptr;
      check_attention_independence(sequences, kHeads, random);
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(Independence, OfQueriesAndCacheFromTheRowsBesideThem) {
  Random random(54);
  const KvLayout layout{.layers = 1, .kv_heads = 1, .head_dim = 48, .dtype = DType::kF32};
  for (const WeightKind& kind : some_of_each_kind()) {
    SCOPED_TRACE(kind.name());
    const HostLinear host = random_linear(kind, {.rows = {144, 48, 48}, .cols = kCols, .norm = true}, random);
    const std::vector<float> x = random.vector(kRows * kCols);
    const std::vector<float> angles = random.vector(kRows * 48);
    const HostNorm q_norm = random_norm(NormKind::kRms, false, 48, random);
    const HostNorm k_norm = random_norm(NormKind::kLayer, true, 48, random);
    const std::vector<std::int32_t> blocks = {1, 0};
    /// Queries, keys and values of rows [first, first + rows), which stand at positions 60 + row.
    const auto run = [&](Backend& backend, TestCache& cache, std::int32_t first, std::int32_t rows) {
      std::vector<std::int32_t> positions;
      for (std::int32_t i = 0; i < rows; ++i) positions.push_back(60 + first + i);
      const SequenceSlice slice{.rows = rows, .first_position = 60 + first, .blocks = blocks};
      const Batch batch{.rows = rows, .tokens = positions, .positions = positions, .slices = {&slice, 1}};
      const Linear linear = host.on(backend);
      std::vector<float> q(static_cast<std::size_t>(rows * 144));
      backend.norm_qkv({.x = x.data() + first * kCols,
                        .linear = &linear,
                        .rope_angles = angles.data() + first * 48,
                        .rotary_dim = 48,
                        .heads = 3,
                        .q_norm = q_norm.on(backend),
                        .k_norm = k_norm.on(backend),
                        .q = q.data()},
                       batch, cache.view());
      return q;
    };
    const auto contents = [&](TestCache& cache) {
      std::vector<float> all(4 * 64 * 48);
      for (int block = 0; block < 2; ++block) {
        float* place = all.data() + block * 2 * 64 * 48;
        device(1).read_kv(cache.view(), block, 0, 0, place, place + 64 * 48);
      }
      return all;
    };
    TestCache together(layout, 2);
    const std::vector<float> q = run(device(1), together, 0, kRows);
    TestCache alone(layout, 2);
    for (std::int32_t row = 0; row < kRows; ++row) {
      expect_same_bits(run(device(1 + row % kMaxThreads), alone, row, 1), row_of(q, row, 144));
    }
    expect_same_bits(contents(alone), contents(together));
  }
}

TEST(NotANumber, InAQueryOrInTheCacheStaysInItsSequenceAndShows) {
  Random random(55);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  struct Kept {
    DType dtype;
    KvCodes codes = KvCodes::kNone;
  };
  for (const auto& [dtype, codes] : std::initializer_list<Kept>{{DType::kF32},
                                                                {DType::kF16},
                                                                {DType::kBF16},
                                                                {DType::kF16, KvCodes::kInt8},
                                                                {DType::kF16, KvCodes::kInt4}}) {
    for (const float poison : {std::numeric_limits<float>::quiet_NaN(), kInfinity, -kInfinity}) {
      SCOPED_TRACE(::testing::Message() << dtype_name(dtype) << ", codes " << static_cast<int>(codes) << ", "
                                        << poison);
      const KvLayout layout{.layers = 1, .kv_heads = 1, .head_dim = 16, .dtype = dtype, .codes = codes};
      constexpr std::int64_t kWidth = 3 * 16;
      const Sequences healthy(layout, 2, 300, random);
      std::vector<float> q = random.vector(10 * kWidth);
      const std::vector<float> clean = healthy.attend(device(2), q, 3, 2, 290, 5);
      q[3 * kWidth + 20] = poison;  // row 3, the second head
      const std::vector<float> sick = healthy.attend(device(2), q, 3, 2, 290, 5);
      for (std::int64_t head = 0; head < 10 * 3; ++head) {
        if (head == 3 * 3 + 1) {
          EXPECT_TRUE(none_finite(row_of(sick, head, 16)));
        } else {
          expect_same_bits(row_of(sick, head, 16), row_of(clean, head, 16));
        }
      }
      // A key that is not a number, and (x is one row) all values of that token: whoever sees the token shows it. Rows
      // before it that share its step may show it too; they are the same sequence, which is lost.
      const Sequences poisoned(layout, 2, 300, random, poison);
      const std::vector<float> fresh = random.vector(2 * kWidth);
      const std::vector<float> after = poisoned.attend(device(2), fresh, 3, 2, 299, 1);
      EXPECT_TRUE(none_finite(row_of(after, 0, kWidth)));
      for (const float value : row_of(after, 1, kWidth)) EXPECT_TRUE(std::isfinite(value));
      for (const float value : poisoned.attend(device(2), fresh, 3, 2, 9, 1)) EXPECT_TRUE(std::isfinite(value));
    }
  }
}

}  // namespace
}  // namespace lanner::ops::testing
