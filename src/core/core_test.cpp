// Status, numbers, memory and files. The thread pool has thread_pool_test.cpp.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>

#include "core/aligned_buffer.h"
#include "core/check.h"
#include "core/checked.h"
#include "core/cpu_info.h"
#include "core/crc32.h"
#include "core/dtype.h"
#include "core/float16.h"
#include "core/mapped_file.h"
#include "lanner/status.h"

namespace lanner {
namespace {

// --- checksums -------------------------------------------------------------------------------------------------

TEST(Crc32, IsThatOfZip) {
  EXPECT_EQ(crc32(""), 0U);
  EXPECT_EQ(crc32("123456789"), 0xCBF43926U);  // the check value of its catalogues
  EXPECT_EQ(crc32("\xFF\x80"), 0x3F456CADU);   // python3 -c 'import zlib; print(hex(zlib.crc32(b"\xff\x80")))'
}

// --- status ----------------------------------------------------------------------------------------------------

TEST(Status, IsOkUnlessItSaysWhyNot) {
  EXPECT_TRUE(Status().ok());
  EXPECT_TRUE(Status().ok());
  const Status failure = not_found("model.gguf: no such file");
  EXPECT_FALSE(failure.ok());
  EXPECT_EQ(failure.code(), StatusCode::kNotFound);
  EXPECT_EQ(failure.message(), "model.gguf: no such file");
}

TEST(Status, CodesHaveNames) {
  EXPECT_EQ(status_code_name(StatusCode::kOk), "ok");
  EXPECT_EQ(status_code_name(StatusCode::kInvalidArgument), "invalid_argument");
  EXPECT_EQ(status_code_name(StatusCode::kInternal), "internal");
  EXPECT_EQ(invalid_argument("").code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(corrupt("").code(), StatusCode::kCorrupt);
  EXPECT_EQ(unsupported("").code(), StatusCode::kUnsupported);
  EXPECT_EQ(resource_exhausted("").code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(io_error("").code(), StatusCode::kIo);
  EXPECT_EQ(internal_error("").code(), StatusCode::kInternal);
}

TEST(Status, ContextComesBeforeTheMessageOfAFailure) {
  const Status failure = with_context(corrupt("bad magic"), "a.gguf");
  EXPECT_EQ(failure.code(), StatusCode::kCorrupt);
  EXPECT_EQ(failure.message(), "a.gguf: bad magic");
  EXPECT_TRUE(with_context(Status(), "a.gguf").ok());
}

Result<std::unique_ptr<int>> positive(int value) {
  if (value <= 0) return invalid_argument("not positive");
  return std::make_unique<int>(value);
}

Result<int> sum_of_positives(int a, int b) {
  LANNER_ASSIGN_OR_RETURN(const auto first, positive(a));
  LANNER_ASSIGN_OR_RETURN(const auto second, positive(b));
  return *first + *second;
}

Status check_positives(int a, int b, int& checked) {
  LANNER_RETURN_IF_ERROR(positive(a).status());
  ++checked;
  LANNER_RETURN_IF_ERROR(positive(b).status());
  ++checked;
  return {};
}

TEST(Result, IsAValueOrTheReasonWhyThereIsNone) {
  auto value = positive(5);
  ASSERT_TRUE(value.ok());
  EXPECT_TRUE(value.status().ok());
  EXPECT_EQ(**value, 5);
  const std::unique_ptr<int> moved = *std::move(value);
  EXPECT_EQ(*moved, 5);
  EXPECT_FALSE(positive(0).ok());
  EXPECT_EQ(positive(0).status().message(), "not positive");
}

TEST(Result, MacrosReturnTheFirstFailure) {
  EXPECT_EQ(*sum_of_positives(2, 3), 5);
  EXPECT_EQ(sum_of_positives(2, 0).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(sum_of_positives(-1, 2).status().code(), StatusCode::kInvalidArgument);
  int checked = 0;
  EXPECT_TRUE(check_positives(1, 1, checked).ok());
  EXPECT_EQ(checked, 2);
  EXPECT_FALSE(check_positives(1, 0, checked).ok());
  EXPECT_EQ(checked, 3);
}

TEST(Check, EndsTheProcessWithTheLineOfTheBug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  LANNER_CHECK(1 + 1 == 2);
  EXPECT_DEATH(LANNER_CHECK(1 + 1 == 3), "core_test.cpp:.*1 \\+ 1 == 3");
}

// --- numbers ---------------------------------------------------------------------------------------------------

TEST(Half, EveryOneSurvivesTheWayToFloatAndBack) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const Half half{static_cast<std::uint16_t>(bits)};
    const std::uint16_t back = to_half(to_float(half)).bits;
    const bool nan = (bits & 0x7C00U) == 0x7C00U && (bits & 0x3FFU) != 0;
    if (nan) {
      EXPECT_EQ(back & 0x7E00U, 0x7E00U) << bits;
      EXPECT_EQ(back & 0x8000U, bits & 0x8000U) << bits;
    } else {
      ASSERT_EQ(back, bits);
    }
  }
}

/// The value of a half, from its definition.
double half_value(std::uint32_t bits) {
  const int exponent = static_cast<int>(bits >> 10U & 31U);
  const double mantissa = static_cast<double>(bits & 1023U) / 1024;
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -14) : std::ldexp(1 + mantissa, exponent - 15);
  return (bits & 0x8000U) != 0 ? -magnitude : magnitude;
}

TEST(Half, ValuesAreThoseOfTheDefinition) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    if ((bits & 0x7C00U) == 0x7C00U) continue;
    ASSERT_EQ(static_cast<double>(to_float(Half{static_cast<std::uint16_t>(bits)})), half_value(bits)) << bits;
  }
  EXPECT_EQ(to_float(Half{0x7C00}), std::numeric_limits<float>::infinity());
  EXPECT_EQ(to_float(Half{0xFC00}), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(to_float(Half{0x7C01})));
}

/// The nearest half by search over all of them, which ascend with their bits; ties to the even one.
std::uint16_t nearest_half(float value) {
  const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(static_cast<double>(value));
  if (magnitude >= 65520) return static_cast<std::uint16_t>(sign | 0x7C00);
  std::uint32_t low = 0;  // the largest half that is not above magnitude
  for (std::uint32_t step = 0x4000; step > 0; step /= 2) {
    if (low + step < 0x7C00 && half_value(low + step) <= magnitude) low += step;
  }
  if (low == 0x7BFF) return static_cast<std::uint16_t>(sign | low);  // below 65520, where 65536 would begin
  const double below = magnitude - half_value(low);
  const double above = half_value(low + 1) - magnitude;
  const bool up = above < below || (above == below && low % 2 == 1);
  return static_cast<std::uint16_t>(sign | (low + (up ? 1 : 0)));
}

TEST(Half, RoundsToNearestEvenFromAnyFloat) {
  std::mt19937 random(1);
  for (int i = 0; i < 1000000; ++i) {
    const auto value = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    if (std::isnan(value)) continue;
    ASSERT_EQ(to_half(value).bits, nearest_half(value)) << value;
  }
}

TEST(Half, RoundsToNearestEvenAtAndAroundEveryTie) {
  for (std::uint32_t bits = 0; bits < 0x7C00; ++bits) {
    const double tie = bits == 0x7BFF ? 65520.0 : (half_value(bits) + half_value(bits + 1)) / 2;
    const auto middle = static_cast<float>(tie);  // exact
    const float around[] = {std::nextafter(middle, 0.0F), middle, std::nextafter(middle, 1e9F)};
    for (const float value : around) {
      ASSERT_EQ(to_half(value).bits, nearest_half(value)) << value;
      ASSERT_EQ(to_half(-value).bits, nearest_half(-value)) << value;
    }
  }
}

TEST(BFloat16, EveryOneSurvivesTheWayToFloatAndBack) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const BFloat16 value{static_cast<std::uint16_t>(bits)};
    const bool nan = (bits & 0x7F80U) == 0x7F80U && (bits & 0x7FU) != 0;
    const std::uint16_t back = to_bfloat16(to_float(value)).bits;
    ASSERT_EQ(back, nan ? (bits | 0x40U) : bits);
  }
}

TEST(BFloat16, RoundsToNearestEven) {
  std::mt19937 random(2);
  for (int i = 0; i < 1000000; ++i) {
    std::uint32_t bits = static_cast<std::uint32_t>(random());
    if (i % 4 == 0) bits = (bits & 0xFFFF0000U) | 0x8000U;  // a tie
    const auto value = std::bit_cast<float>(bits);
    if (!std::isfinite(value)) continue;
    const std::uint32_t cut = bits & 0xFFFF0000U;
    const std::uint32_t rest = bits & 0xFFFFU;
    const bool up = rest > 0x8000U || (rest == 0x8000U && (cut & 0x10000U) != 0);
    ASSERT_EQ(to_bfloat16(value).bits, (cut >> 16U) + (up ? 1U : 0U)) << value;
  }
  EXPECT_EQ(to_bfloat16(std::numeric_limits<float>::max()).bits, 0x7F80);
  EXPECT_TRUE(std::isnan(to_float(to_bfloat16(std::bit_cast<float>(0x7F800001U)))));
}

TEST(Checked, GivesNothingWhereTheResultDoesNotFit) {
  constexpr std::int64_t kLargest = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(checked_multiply(3, -4), -12);
  EXPECT_EQ(checked_multiply(1LL << 31, 1LL << 31), 1LL << 62);
  EXPECT_EQ(checked_multiply(1LL << 32, 1LL << 31), std::nullopt);
  EXPECT_EQ(checked_multiply(kLargest, 2), std::nullopt);
  EXPECT_EQ(checked_add(kLargest - 1, 1), kLargest);
  EXPECT_EQ(checked_add(kLargest, 1), std::nullopt);
  EXPECT_EQ(checked_add(-kLargest, -2), std::nullopt);
}

TEST(DType, SizesAndNames) {
  EXPECT_EQ(dtype_bytes(DType::kF32), 4);
  EXPECT_EQ(dtype_bytes(DType::kBF16), 2);
  EXPECT_EQ(dtype_bytes(DType::kU8), 1);
  EXPECT_EQ(dtype_bytes(DType::kI64), 8);
  EXPECT_EQ(dtype_name(DType::kBF16), "bfloat16");
}

TEST(CpuInfo, NamesWhatItFound) {
  EXPECT_LE(selected_cpu_isa(), detected_cpu_isa());
  EXPECT_FALSE(cpu_model_name().empty());
  EXPECT_GT(available_memory_bytes(), 0);
  EXPECT_LT(available_memory_bytes(), std::int64_t{1} << 50);
}

// --- memory ----------------------------------------------------------------------------------------------------

TEST(AlignedBuffer, IsZeroedAlignedAndMoves) {
  auto made = AlignedBuffer::allocate(100001, "a test");
  ASSERT_TRUE(made.ok());
  AlignedBuffer buffer = *std::move(made);
  EXPECT_EQ(buffer.bytes(), 100001);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 4096, 0U);
  for (int i = 0; i < 100001; ++i) ASSERT_EQ(buffer.data()[i], std::byte{0});
  buffer.as<float>()[7] = 1.5F;
  const std::byte* place = buffer.data();
  AlignedBuffer other = std::move(buffer);
  EXPECT_EQ(other.data(), place);
  EXPECT_EQ(buffer.data(), nullptr);  // NOLINT(bugprone-use-after-move): that it is empty is what the test asks
  EXPECT_EQ(buffer.bytes(), 0);
  auto third = AlignedBuffer::allocate(16, "a test");
  ASSERT_TRUE(third.ok());
  *third = std::move(other);
  EXPECT_EQ(third->as<float>()[7], 1.5F);
}

TEST(AlignedBuffer, OfNothingIsEmpty) {
  const auto none = AlignedBuffer::allocate(0, "a test");
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(none->data(), nullptr);
}

TEST(AlignedBuffer, AReservationCostsNothingUntilItIsTouched) {
  auto large = AlignedBuffer::allocate(std::int64_t{1} << 36, "a test");  // 64 GiB
  ASSERT_TRUE(large.ok());
  large->data()[(std::int64_t{1} << 36) - 1] = std::byte{1};
}

TEST(AlignedBuffer, TooMuchIsRefusedWithItsPurpose) {
  const auto refused = AlignedBuffer::allocate(std::int64_t{1} << 60, "the KV cache");
  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(refused.status().message().find("the KV cache"), std::string::npos);
  EXPECT_NE(refused.status().message().find("MiB"), std::string::npos);
}

// --- files -----------------------------------------------------------------------------------------------------

class Files : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "lanner_core_test_XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  std::size_t entries() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder_), {}));
  }
  std::string folder_;
};

TEST_F(Files, MappedShowsTheBytes) {
  std::ofstream(path("a")) << "hello";
  const auto file = MappedFile::open(path("a"));
  ASSERT_TRUE(file.ok());
  ASSERT_EQ((*file)->bytes().size(), 5U);
  EXPECT_EQ(std::memcmp((*file)->bytes().data(), "hello", 5), 0);
  EXPECT_EQ((*file)->path(), path("a"));
}

TEST_F(Files, MappedOutlivesItsName) {
  std::ofstream(path("a")) << "hello";
  const auto file = MappedFile::open(path("a"));
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(write_file_atomically(path("a"), "other").ok());
  EXPECT_EQ(std::memcmp((*file)->bytes().data(), "hello", 5), 0);
}

TEST_F(Files, WhatCannotBeMappedSaysWhy) {
  const auto status_of = [](const std::string& name) { return MappedFile::open(name).status(); };
  EXPECT_EQ(status_of(path("missing")).code(), StatusCode::kNotFound);
  EXPECT_NE(status_of(path("missing")).message().find(path("missing")), std::string::npos);
  EXPECT_EQ(status_of(folder_).code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status_of(folder_).message().find("folder"), std::string::npos);
  EXPECT_EQ(status_of("/dev/null").code(), StatusCode::kInvalidArgument);
  ASSERT_EQ(::mkfifo(path("fifo").c_str(), 0600), 0);
  EXPECT_EQ(status_of(path("fifo")).code(), StatusCode::kInvalidArgument);  // and does not wait for a writer
  std::ofstream(path("a")) << "x";
  EXPECT_EQ(status_of(path("a") + "/b").code(), StatusCode::kNotFound);
}

TEST_F(Files, AnEmptyOneIsAnEmptySpan) {
  std::ofstream(path("empty")).flush();
  const auto file = MappedFile::open(path("empty"));
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE((*file)->bytes().empty());
  EXPECT_EQ(*read_file(path("empty"), 0), "");
}

TEST_F(Files, ReadingStopsAtTheLimit) {
  std::ofstream(path("a")) << "12345";
  EXPECT_EQ(*read_file(path("a"), 5), "12345");
  EXPECT_EQ(read_file(path("a"), 4).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(read_file(path("missing"), 4).status().code(), StatusCode::kNotFound);
}

TEST_F(Files, WritingReplacesTheContentAndLeavesNothingBeside) {
  ASSERT_TRUE(write_file_atomically(path("a"), "old").ok());
  ASSERT_TRUE(write_file_atomically(path("a"), std::string(100000, 'n')).ok());
  EXPECT_EQ(*read_file(path("a"), 1 << 20), std::string(100000, 'n'));
  ASSERT_TRUE(write_file_atomically(path("a"), "").ok());
  EXPECT_EQ(*read_file(path("a"), 1 << 20), "");
  EXPECT_EQ(entries(), 1U);
}

TEST_F(Files, WritingWhereItCannotKeepsTheOldContent) {
  EXPECT_EQ(write_file_atomically(path("missing/a"), "new").code(), StatusCode::kNotFound);
  ASSERT_EQ(::mkdir(path("folder").c_str(), 0700), 0);
  std::ofstream(path("folder/kept")) << "old";
  const Status onto_folder = write_file_atomically(path("folder"), "new");  // the rename fails, after the write
  EXPECT_EQ(onto_folder.code(), StatusCode::kIo);
  EXPECT_EQ(*read_file(path("folder/kept"), 10), "old");
  EXPECT_EQ(entries(), 1U);
}

TEST_F(Files, WritingOntoAFullDiskKeepsTheOldContent) {
  ASSERT_TRUE(write_file_atomically(path("a"), "old").ok());
  // A limit on the size of files stands in for the full disk: write() fails halfway, as it would there.
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto ignored = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{.rlim_cur = 4096, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const Status full = write_file_atomically(path("a"), std::string(100000, 'n'));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, ignored);
  EXPECT_EQ(full.code(), StatusCode::kIo);
  EXPECT_NE(full.message().find(path("a")), std::string::npos);
  EXPECT_EQ(*read_file(path("a"), 10), "old");
  EXPECT_EQ(entries(), 1U);
}

}  // namespace
}  // namespace lanner
