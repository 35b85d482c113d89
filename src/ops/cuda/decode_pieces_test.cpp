#include "ops/cuda/decode_pieces.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <random>
#include <set>
#include <vector>

namespace lanner::ops::cuda {
namespace {

std::vector<DecodePiece> cut(const std::vector<DecodeRow>& rows) {
  std::vector<DecodePiece> pieces(static_cast<std::size_t>(piece_room(static_cast<std::int32_t>(rows.size()))));
  cut_into_pieces(rows, pieces.data());
  return pieces;
}

/// Every token of every row is in one piece, places are those of the row alone and few enough, the longest come first.
void check(const std::vector<DecodeRow>& rows) {
  std::map<std::int32_t, std::map<std::int32_t, DecodePiece>> by_row;  // by first token
  std::set<std::int32_t> places;
  bool ended = false;
  for (const DecodePiece& piece : cut(rows)) {
    if (piece.of.row < 0) {
      ended = true;
      continue;
    }
    ASSERT_FALSE(ended);
    ASSERT_LT(piece.begin, piece.end);
    ASSERT_TRUE(by_row[piece.of.row].emplace(piece.begin, piece).second);
    if (piece.count == 1) continue;
    ASSERT_GE(piece.place, 0);
    ASSERT_LT(piece.place, kMostPiecePlaces);
    ASSERT_TRUE(places.insert(piece.place).second);
  }
  std::size_t real = 0;
  for (const DecodeRow& row : rows) {
    if (row.row < 0) continue;
    ++real;
    std::int32_t next = 0;
    std::int32_t index = 0;
    for (const auto& [begin, piece] : by_row[row.row]) {
      ASSERT_EQ(begin, next);
      ASSERT_EQ(piece.of.tokens, row.tokens);
      ASSERT_EQ(piece.of.first_block, row.first_block);
      ASSERT_EQ(piece.count, static_cast<std::int32_t>(by_row[row.row].size()));
      if (piece.count > 1) {
        ASSERT_EQ(piece.place, piece.first_place + index);
      }
      next = piece.end;
      ++index;
    }
    ASSERT_EQ(next, row.tokens);
  }
  ASSERT_EQ(by_row.size(), real);
  const auto pieces = cut(rows);
  std::int64_t total = 0;
  for (const DecodeRow& row : rows) total += row.tokens;
  const std::int64_t length =
      std::max<std::int64_t>(256, total / std::clamp<std::int64_t>(std::ssize(rows) / 2, 48, 64) + 64);
  for (std::size_t i = 1; i < pieces.size(); ++i) {
    if (pieces[i].of.row < 0) continue;
    ASSERT_LE(pieces[i].end - pieces[i].begin, pieces[i - 1].end - pieces[i - 1].begin + length / 16 + 1);
  }
}

TEST(DecodePieces, HoldEveryTokenOnceWhateverTheContexts) {
  std::mt19937 engine(1);
  for (const std::int32_t rows : {1, 2, 15, 16, 17, 100, 128, 129, 256, 512}) {
    for (const std::int32_t most : {1, 63, 64, 65, 256, 257, 5000, 200000}) {
      SCOPED_TRACE(::testing::Message() << rows << " rows of up to " << most << " tokens");
      std::uniform_int_distribution<std::int32_t> tokens(1, most);
      std::vector<DecodeRow> list;
      for (std::int32_t row = 0; row < rows; ++row) {
        const bool empty = row > 0 && row % 7 == 3;
        list.push_back(empty ? DecodeRow{-1, 0, 0, 0} : DecodeRow{row, tokens(engine), 0, row * 100});
      }
      check(list);
      if (::testing::Test::HasFatalFailure()) return;
      for (DecodeRow& row : list) row.tokens = std::min(row.tokens, 100);
      list.front().tokens = most;  // one among short ones
      check(list);
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(DecodePieces, AreWholeWhereNoContextIsLong) {
  std::vector<DecodeRow> rows;
  for (std::int32_t row = 0; row < 256; ++row) rows.push_back({row, 300 + row, 0, 0});
  for (const DecodePiece& piece : cut(rows)) {
    if (piece.of.row >= 0) {
      EXPECT_EQ(piece.count, 1);
    }
  }
}

TEST(DecodePieces, OfNoRowsAreNone) { EXPECT_EQ(piece_room(0), 0); }

}  // namespace
}  // namespace lanner::ops::cuda
