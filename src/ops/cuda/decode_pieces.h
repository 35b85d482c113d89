#pragma once
// How the contexts of decoding rows are cut, so that one long one among many does not make the others wait.

#include <cstdint>
#include <span>

#include "ops/cuda/kernels.h"

namespace lanner::ops::cuda {

/// Room for the pieces of so many rows, whatever their contexts.
std::int32_t piece_room(std::int32_t rows);

/// Cuts the rows' contexts into pieces of one length, 256 tokens or more (of up to 96 rows a
/// 48th of all tokens, of 128 rows twice their mean, of more a 64th of all), and writes piece_room(rows.size()) pieces,
/// the longest first; row -1 is in none, and what is left has row -1.
void cut_into_pieces(std::span<const DecodeRow> rows, DecodePiece* out);

}  // namespace lanner::ops::cuda
