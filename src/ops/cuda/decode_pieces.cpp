#include "ops/cuda/decode_pieces.h"

#include <algorithm>
#include <array>

#include "ops/kv_cache.h"

namespace lanner::ops::cuda {
namespace {

constexpr std::int32_t kLeastPiece = 256;  // tokens: below, to add up costs more than it brings
constexpr std::size_t kClasses = 16;       // of lengths

/// Pieces beside one for each row, if all contexts were whole pieces. Few, since a place without a piece costs a block
/// that only ends. Rows of several pieces have twice as many of them at most: kMostPiecePlaces.
std::int32_t more_pieces(std::int32_t rows) {
  constexpr std::int32_t kLeast = 48;  // so that the contexts of few rows are shared by all multiprocessors
  return rows == 0 ? 0 : std::clamp(rows / 2, kLeast, kMostPiecePlaces / 2);
}

}  // namespace

std::int32_t piece_room(std::int32_t rows) { return rows + more_pieces(rows); }

void cut_into_pieces(std::span<const DecodeRow> rows, DecodePiece* out) {
  const auto count = static_cast<std::int32_t>(rows.size());
  if (count == 0) return;
  constexpr auto kBlock = static_cast<std::int32_t>(kKvBlockTokens);
  std::int64_t total = 0;
  for (const DecodeRow& row : rows) total += row.tokens;
  const auto share = static_cast<std::int32_t>((total + more_pieces(count) - 1) / more_pieces(count));
  const std::int32_t length = std::max(kLeastPiece, (share + kBlock - 1) / kBlock * kBlock);
  // A product in place of a division: of many rows these would be most of what the host does here.
  const float classes_of_a_token = static_cast<float>(kClasses) / static_cast<float>(length);
  const auto class_of = [&](std::int32_t tokens) {  // the longest in the first
    const auto from_the_shortest = static_cast<std::size_t>((static_cast<float>(tokens) - 0.5F) * classes_of_a_token);
    return kClasses - 1 - std::min(from_the_shortest, kClasses - 1);  // rounding may lead past the last
  };
  const auto for_each_length = [&](const DecodeRow& row, const auto& what) {
    for (std::int32_t begin = 0; begin < row.tokens; begin += length) what(begin, std::min(row.tokens, begin + length));
  };

  std::array<std::int32_t, kClasses + 1> first{};
  for (const DecodeRow& row : rows) {
    for_each_length(row, [&](std::int32_t begin, std::int32_t end) { ++first[class_of(end - begin) + 1]; });
  }
  for (std::size_t i = 1; i <= kClasses; ++i) first[i] += first[i - 1];
  const std::int32_t used = first[kClasses];
  std::int32_t next_place = 0;
  for (const DecodeRow& row : rows) {
    const std::int32_t pieces = row.tokens <= length ? 1 : (row.tokens + length - 1) / length;
    const std::int32_t first_place = pieces > 1 ? next_place : 0;
    std::int32_t place = first_place;
    for_each_length(row, [&](std::int32_t begin, std::int32_t end) {
      out[first[class_of(end - begin)]++] = {row, begin, end, pieces, place++, first_place};
    });
    if (pieces > 1) next_place = place;
  }
  std::fill(out + used, out + piece_room(count), DecodePiece{{-1, 0, 0, 0}, 0, 0, 0, 0, 0});
}

}  // namespace lanner::ops::cuda
