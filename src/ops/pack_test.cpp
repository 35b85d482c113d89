// Weights that were packed before: taken as they lie, or refused.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/float16.h"
#include "core/thread_pool.h"
#include "ops/cpu/pack.h"
#include "ops/ops_test_support.h"

namespace lanner::ops::testing {
namespace {

using cpu::CpuWeight;

WeightSource random_source(const WeightKind& kind, std::int64_t rows, std::int64_t cols) {
  Random random(7);  // the same for the same arguments
  return random_weight(kind, rows, cols, random);
}

std::shared_ptr<const CpuWeight> pack(WeightSource source, Arithmetic arithmetic = Arithmetic::kFast) {
  const auto pool = ThreadPool::create(2);
  cpu::WeightRoom room;
  auto weight = cpu::pack_weight(std::move(source), arithmetic, **pool, room);
  EXPECT_TRUE(weight.ok()) << weight.status().message();
  return weight.ok() ? *weight : nullptr;
}

WeightSource packed_source(const CpuWeight& weight) {
  WeightSource source;
  source.format = weight.format();
  source.rows = weight.rows();
  source.cols = weight.cols();
  source.packed = std::make_shared<const PackedImage>(weight.image());
  return source;
}

std::vector<float> row_of(const CpuWeight& weight, std::int64_t row) {
  std::vector<float> values(static_cast<std::size_t>(weight.cols()));
  weight.read_row(row, values.data());
  return values;
}

std::vector<WeightKind> kinds() {
  std::vector<WeightKind> kinds = dense_kinds();
  for (const std::int64_t group : {16, 32, 128}) {
    for (const WeightKind& kind : quantized_kinds(group)) kinds.push_back(kind);
  }
  return kinds;
}

TEST(PackedImage, IsTakenAsItLies) {
  for (const WeightKind& kind : kinds()) {
    const auto first = pack(random_source(kind, 37, 256));
    ASSERT_NE(first, nullptr) << kind.name();
    const auto second = pack(packed_source(*first));
    ASSERT_NE(second, nullptr) << kind.name();
    EXPECT_EQ(second->view().data, first->view().data) << kind.name();
    EXPECT_EQ(second->bytes(), first->bytes());
    for (const std::int64_t row : {0, 15, 16, 36}) {
      const auto wanted = row_of(*first, row);
      const auto got = row_of(*second, row);
      EXPECT_EQ(std::memcmp(got.data(), wanted.data(), wanted.size() * sizeof(float)), 0) << kind.name();
    }
  }
}

TEST(PackedImage, IsWidenedLikeItsSource) {
  for (const WeightKind& kind : quantized_kinds(32)) {
    const auto wanted = pack(random_source(kind, 37, 256), Arithmetic::kExact);
    const auto got = pack(packed_source(*pack(random_source(kind, 37, 256))), Arithmetic::kExact);
    ASSERT_NE(got, nullptr);
    EXPECT_EQ(got->format(), WeightFormat::kF32);
    ASSERT_EQ(got->bytes(), wanted->bytes());
    EXPECT_EQ(std::memcmp(got->view().data, wanted->view().data, static_cast<std::size_t>(got->bytes())), 0)
        << kind.name();
  }
}

TEST(PackedWeight, OfFourBitsAroundTheMiddleHasNoOffsets) {
  for (const bool half_scales : {false, true}) {
    const WeightKind kind{.format = WeightFormat::kInt4, .group = 32, .half_scales = half_scales};
    WeightSource source = random_source(kind, 37, 256);
    const auto centered = pack(source);
    ASSERT_NE(centered, nullptr);
    EXPECT_FALSE(centered->image().has_offsets);
    EXPECT_EQ(centered->image().half_scales, half_scales);
    EXPECT_EQ(centered->bytes(), 3 * 8 * (256 + (half_scales ? 32 : 64)));  // panels, groups, codes and scales
    source.offsets.back() = std::nextafter(source.offsets.back(), 0.0F);
    const auto other = pack(source);
    ASSERT_NE(other, nullptr);
    EXPECT_TRUE(other->image().has_offsets);
    for (std::int64_t row = 0; row < 36; ++row) EXPECT_EQ(row_of(*centered, row), row_of(*other, row)) << row;
  }
}

TEST(PackedWeight, OfFourBitsKeepsZeroPointsInPlaceOfTheirOffsets) {
  const WeightKind kind{.format = WeightFormat::kInt4, .group = 64, .offsets = true, .zero_points = true};
  WeightSource source = random_source(kind, 37, 256);
  const auto small = pack(source);
  ASSERT_NE(small, nullptr);
  EXPECT_TRUE(small->image().zero_points);
  EXPECT_EQ(small->bytes(), 3 * 4 * (512 + 64));  // panels, groups, codes, scales and zero points in fp16
  for (const float offset : {-16 * source.scales.back(), source.scales.back(), -2.5F * source.scales.back()}) {
    source.offsets.back() = offset;
    const auto large = pack(source);
    ASSERT_NE(large, nullptr);
    EXPECT_FALSE(large->image().zero_points) << offset;
    EXPECT_EQ(large->bytes(), 3 * 4 * (512 + 128));
    for (std::int64_t row = 0; row < 36; ++row) EXPECT_EQ(row_of(*small, row), row_of(*large, row)) << row;
  }
}

TEST(PackedWeight, ThatMayBeInt8IsRoundedToTheNearestOf255Steps) {
  for (const WeightFormat format : {WeightFormat::kF16, WeightFormat::kBF16}) {
    WeightSource source = random_source({.format = format}, 37, 192);
    const auto dense = pack(source);
    source.may_be_int8 = true;
    const auto rounded = pack(source);
    ASSERT_NE(rounded, nullptr);
    EXPECT_EQ(rounded->format(), WeightFormat::kInt8);
    EXPECT_EQ(rounded->bytes(), 3 * 3 * 16 * (64 + 2));  // panels, groups, rows, codes and a scale
    for (std::int64_t row = 0; row < 37; ++row) {
      const std::vector<float> wanted = row_of(*dense, row);
      const std::vector<float> got = row_of(*rounded, row);
      for (std::size_t first = 0; first < wanted.size(); first += 64) {
        float largest = 0;
        for (std::size_t i = first; i < first + 64; ++i) largest = std::max(largest, std::abs(wanted[i]));
        const float step = largest / 127 * (1 + 0x1p-9F);  // scales are rounded up to fp16
        for (std::size_t i = first; i < first + 64; ++i) EXPECT_NEAR(got[i], wanted[i], step / 2) << row << " " << i;
      }
    }
    EXPECT_EQ(pack(source, Arithmetic::kExact)->format(), format);
  }
}

TEST(PackedWeight, ThatFp16HasNoScaleForStaysAsItIs) {
  std::vector<std::uint16_t> numbers(64, to_bfloat16(1.0F).bits);
  WeightSource source;
  source.format = WeightFormat::kBF16;
  source.rows = 2;
  source.cols = 32;
  source.may_be_int8 = true;
  source.dense = reinterpret_cast<const std::byte*>(numbers.data());
  EXPECT_EQ(pack(source)->format(), WeightFormat::kInt8);
  for (const float number : {1e9F, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    numbers[40] = to_bfloat16(number).bits;
    EXPECT_EQ(pack(source)->format(), WeightFormat::kBF16) << number;
  }
  numbers[40] = to_bfloat16(1e-7F).bits;  // beside ones it is nothing
  EXPECT_EQ(row_of(*pack(source), 1)[8], 0.0F);
  std::ranges::fill(numbers, to_bfloat16(2e-6F).bits);  // below the least normal scale: none is cut off
  EXPECT_NEAR(row_of(*pack(source), 0)[0], 2e-6F, 3e-8F);
  source.cols = 16;
  EXPECT_EQ(pack(source)->format(), WeightFormat::kBF16);
}

TEST(PackedImage, OutlivesItsFirstOwner) {
  auto first = pack(random_source({.format = WeightFormat::kInt4, .group = 32, .offsets = true}, 16, 64));
  const auto wanted = row_of(*first, 3);
  const auto second = pack(packed_source(*first));
  first.reset();
  EXPECT_EQ(row_of(*second, 3), wanted);
}

TEST(WeightRoom, GivesPlacesApartWhichOutliveIt) {
  std::vector<std::shared_ptr<std::byte>> places;
  const std::int64_t sizes[] = {100, 64, 1, std::int64_t{70} << 20, 640, std::int64_t{63} << 20, std::int64_t{2} << 20};
  {
    cpu::WeightRoom room;
    for (const std::int64_t bytes : sizes) {
      auto place = room.allocate(bytes);
      ASSERT_TRUE(place.ok()) << place.status().message();
      places.push_back(*std::move(place));
    }
  }
  for (std::size_t i = 0; i < places.size(); ++i) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(places[i].get()) % 64, 0U);
    std::fill_n(places[i].get(), sizes[i], static_cast<std::byte>(i + 1));
  }
  for (std::size_t i = 0; i < places.size(); ++i) {
    EXPECT_EQ(std::count(places[i].get(), places[i].get() + sizes[i], static_cast<std::byte>(i + 1)), sizes[i]);
  }
}

TEST(WeightRoom, GoesOnBehindSmallOnesAfterALargeOne) {
  cpu::WeightRoom room;
  const auto first = room.allocate(1024);
  const auto large = room.allocate(std::int64_t{70} << 20);
  const auto second = room.allocate(64);
  ASSERT_TRUE(first.ok() && large.ok() && second.ok());
  EXPECT_EQ(second->get(), first->get() + 1024);
}

TEST(PackedImage, IsRefusedWhenItContradictsItself) {
  const auto weight = pack(random_source({.format = WeightFormat::kInt4, .group = 32, .offsets = true}, 20, 64));
  const auto pool = ThreadPool::create(1);
  cpu::WeightRoom room;
  const auto code = [&](auto change) {
    WeightSource source = packed_source(*weight);
    PackedImage image = *source.packed;
    change(source, image);
    source.packed = std::make_shared<const PackedImage>(image);
    return cpu::pack_weight(source, Arithmetic::kFast, **pool, room).status().code();
  };
  EXPECT_EQ(code([](WeightSource&, PackedImage&) {}), StatusCode::kOk);
  EXPECT_EQ(code([](WeightSource& source, PackedImage&) { source.rows = 33; }), StatusCode::kCorrupt);
  EXPECT_EQ(code([](WeightSource& source, PackedImage&) { source.cols = 96; }), StatusCode::kCorrupt);
  EXPECT_EQ(code([](WeightSource& source, PackedImage&) { source.cols = 63; }), StatusCode::kUnsupported);
  EXPECT_EQ(code([](WeightSource&, PackedImage& image) { image.group = 0; }), StatusCode::kUnsupported);
  EXPECT_EQ(code([](WeightSource&, PackedImage& image) { image.group = 16; }), StatusCode::kUnsupported);
  EXPECT_EQ(code([](WeightSource&, PackedImage& image) { image.has_offsets = false; }), StatusCode::kCorrupt);
  EXPECT_EQ(code([](WeightSource&, PackedImage& image) { image.half_scales = !image.half_scales; }),
            StatusCode::kCorrupt);
  EXPECT_EQ(code([](WeightSource&, PackedImage& image) { image.zero_points = true; }), StatusCode::kCorrupt);
  EXPECT_EQ(code([](WeightSource&, PackedImage& image) { image.format = WeightFormat::kF32; }), StatusCode::kCorrupt);
  EXPECT_EQ(code([](WeightSource&, PackedImage& image) { image.bytes = image.bytes.first(image.bytes.size() - 1); }),
            StatusCode::kCorrupt);
  EXPECT_EQ(code([](WeightSource&, PackedImage& image) { image.bytes = image.bytes.subspan(32); }),
            StatusCode::kCorrupt);
}

}  // namespace
}  // namespace lanner::ops::testing
