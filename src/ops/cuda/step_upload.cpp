#include "ops/cuda/step_upload.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "ops/cuda/cuda_error.h"
#include "ops/cuda/decode_pieces.h"

namespace lanner::ops::cuda {
namespace {

constexpr std::int64_t kAlignment = 256;
constexpr std::int64_t kLeastBytes = 1 << 16;

/// Places of arrays in one buffer.
class Layout {
 public:
  template <typename T>
  std::int64_t add(std::int64_t count) {
    const std::int64_t offset = bytes_;
    bytes_ += (count * static_cast<std::int64_t>(sizeof(T)) + kAlignment - 1) / kAlignment * kAlignment;
    return offset;
  }
  std::int64_t bytes() const { return bytes_; }

 private:
  std::int64_t bytes_ = 0;
};

/// What a batch needs of each list.
struct Counts {
  std::int64_t blocks = 0;
  std::int64_t decode_rows = 0;
  std::int64_t prefill_tiles = 0;
  std::int64_t prefill_blocks = 0;
};

bool decodes(const SequenceSlice& slice) { return slice.rows <= kFusedRows; }

/// Blocks of what its last row sees; there may be more.
std::int32_t context_blocks(const SequenceSlice& slice) {
  constexpr auto kTokens = static_cast<std::int32_t>(kKvBlockTokens);
  return (slice.first_position + slice.rows + kTokens - 1) / kTokens;
}

Counts count(const Batch& batch) {
  Counts counts;
  for (const SequenceSlice& slice : batch.slices) {
    counts.blocks += static_cast<std::int64_t>(slice.blocks.size());
    if (decodes(slice)) {
      counts.decode_rows += slice.rows;
    } else {
      counts.prefill_tiles += (slice.rows + kPrefillRows - 1) / kPrefillRows;
      counts.prefill_blocks += context_blocks(slice);
    }
  }
  return counts;
}

}  // namespace

Status MirroredBuffer::reserve(std::int64_t bytes) {
  const std::int64_t room = device_bytes(bytes);
  for (Side& side : sides_) {
    if (side.copied.is_null()) {
      LANNER_ASSIGN_OR_RETURN(side.copied, DeviceEvent::create());
    }
    if (bytes <= side.memory.bytes()) continue;
    LANNER_RETURN_IF_ERROR(cuda_status(side.copied.wait(), "a step's lists"));  // it may still be on its way
    LANNER_ASSIGN_OR_RETURN(side.memory, PinnedBuffer::allocate(room, "a step's lists"));
  }
  if (bytes > device_.bytes()) {  // to free the old one is to wait for whoever reads it
    LANNER_ASSIGN_OR_RETURN(device_, DeviceBuffer::allocate(room, "a step's lists"));
  }
  return {};
}

std::int64_t MirroredBuffer::device_bytes(std::int64_t bytes) {
  return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(std::max(bytes, kLeastBytes))));
}

Result<std::byte*> MirroredBuffer::open(std::int64_t bytes) {
  LANNER_RETURN_IF_ERROR(reserve(bytes));
  turn_ = 1 - turn_;
  Side& side = sides_[turn_];
  LANNER_RETURN_IF_ERROR(cuda_status(side.copied.wait(), "a step's lists"));
  return side.memory.data();
}

cudaError_t MirroredBuffer::send(std::int64_t bytes, cudaStream_t stream) {
  Side& side = sides_[turn_];
  const cudaError_t error = cudaMemcpyAsync(device_.data(), side.memory.data(), static_cast<std::size_t>(bytes),
                                            cudaMemcpyHostToDevice, stream);
  return error == cudaSuccess ? side.copied.record(stream) : error;
}

std::int32_t longest_context(const Batch& batch) {
  std::int32_t longest = 0;
  for (const SequenceSlice& slice : batch.slices) longest = std::max(longest, slice.first_position + slice.rows);
  return longest;
}

namespace {

/// Of the lists of the largest batch, generously: a row's token, position and slice; for one that decodes also what
/// attention is told; blocks, and where those of prompts are widened to.
std::int64_t batch_bytes(const StepRoom& room) {
  constexpr std::int64_t kRowBytes = 64;
  constexpr std::int64_t kDecodeRowBytes = 192;
  constexpr std::int64_t kBlockBytes = 16;
  const std::int64_t rows = std::max(room.rows, room.slices);
  const std::int64_t decode_rows = std::min(rows, room.slices * kFusedRows);
  return rows * kRowBytes + decode_rows * kDecodeRowBytes + room.blocks * kBlockBytes + kLeastBytes;
}

std::int64_t wanted_bytes(const StepRoom& room) {
  return std::max(room.rows, room.sampled) * static_cast<std::int64_t>(sizeof(std::int32_t));
}

}  // namespace

Status StepUpload::reserve(const StepRoom& room) {
  LANNER_RETURN_IF_ERROR(batch_.reserve(batch_bytes(room)));
  for (MirroredBuffer& rows : rows_) LANNER_RETURN_IF_ERROR(rows.reserve(wanted_bytes(room)));
  return {};
}

std::int64_t StepUpload::reserve_bytes(const StepRoom& room) {
  return MirroredBuffer::device_bytes(batch_bytes(room)) + 2 * MirroredBuffer::device_bytes(wanted_bytes(room));
}

Result<DeviceBatch> StepUpload::batch(const Batch& batch, const StepPlaces& places, cudaStream_t stream) {
  const Counts counts = count(batch);
  const std::int32_t empty = places.rows - batch.rows;
  const auto slices = static_cast<std::int64_t>(batch.slices.size());
  Layout layout;
  const std::int64_t tokens_at = layout.add<std::int32_t>(places.rows);
  const std::int64_t positions_at = layout.add<std::int32_t>(places.rows);
  const std::int64_t row_slice_at = layout.add<std::int32_t>(places.rows);
  const std::int64_t slices_at = layout.add<DeviceSlice>(slices + empty);
  const auto decode_count = static_cast<std::int32_t>(counts.decode_rows) + empty;
  const std::int64_t decode_at = layout.add<DecodeRow>(decode_count);
  const std::int64_t pieces_at = layout.add<DecodePiece>(piece_room(decode_count));
  const std::int64_t tiles_at = layout.add<PrefillTile>(counts.prefill_tiles);
  const std::int64_t prefill_blocks_at = layout.add<PrefillBlock>(counts.prefill_blocks);
  const std::int64_t places_at = layout.add<std::int32_t>(counts.prefill_blocks > 0 ? counts.blocks : 0);
  const std::int64_t blocks_at = layout.add<std::int32_t>(counts.blocks);  // last: its size is no part of the places
  LANNER_ASSIGN_OR_RETURN(std::byte* const host, batch_.open(layout.bytes()));

  const auto ints_at = [&](std::int64_t at) { return reinterpret_cast<std::int32_t*>(host + at); };
  std::fill_n(std::ranges::copy(batch.tokens, ints_at(tokens_at)).out, empty, 0);
  std::fill_n(std::ranges::copy(batch.positions, ints_at(positions_at)).out, empty, 0);
  std::int32_t* const row_slice = ints_at(row_slice_at);
  auto* slice_out = reinterpret_cast<DeviceSlice*>(host + slices_at);
  auto* const decode_rows = reinterpret_cast<DecodeRow*>(host + decode_at);
  DecodeRow* decode = decode_rows;
  auto* tile = reinterpret_cast<PrefillTile*>(host + tiles_at);
  auto* const prefill_blocks = reinterpret_cast<PrefillBlock*>(host + prefill_blocks_at);
  std::int32_t prefill_block_count = 0;
  std::int32_t* const first_block = ints_at(blocks_at);
  std::int32_t* block = first_block;
  for (std::int32_t index = 0; index < slices; ++index) {
    const SequenceSlice& slice = batch.slices[static_cast<std::size_t>(index)];
    const auto own_block = static_cast<std::int32_t>(block - first_block);
    *slice_out++ = {slice.first_row, slice.rows, slice.first_position, own_block};
    std::fill_n(row_slice + slice.first_row, slice.rows, index);
    if (decodes(slice)) {
      for (std::int32_t row = 0; row < slice.rows; ++row) {
        *decode++ = {slice.first_row + row, slice.first_position + row + 1, slice.first_position, own_block};
      }
    } else {
      for (std::int32_t row = 0; row < slice.rows; row += kPrefillRows) *tile++ = {index, slice.first_row + row};
      for (std::int32_t i = 0; i < context_blocks(slice); ++i) {
        ints_at(places_at)[own_block + i] = prefill_block_count;
        prefill_blocks[prefill_block_count++] = {index, i};
      }
    }
    block = std::ranges::copy(slice.blocks, block).out;
  }
  std::fill_n(row_slice + batch.rows, empty, -1);
  std::fill_n(decode, empty, DecodeRow{-1, 0, 0, 0});
  cut_into_pieces({decode_rows, static_cast<std::size_t>(decode_count)},
                  reinterpret_cast<DecodePiece*>(host + pieces_at));
  LANNER_RETURN_IF_ERROR(cuda_status(batch_.send(layout.bytes(), stream), "a step's lists"));

  const std::byte* device = batch_.device();
  DeviceBatch result;
  result.rows = places.rows;
  result.tokens = reinterpret_cast<const std::int32_t*>(device + tokens_at);
  result.positions = reinterpret_cast<const std::int32_t*>(device + positions_at);
  result.row_slice = reinterpret_cast<const std::int32_t*>(device + row_slice_at);
  result.slices = reinterpret_cast<const DeviceSlice*>(device + slices_at);
  result.blocks = reinterpret_cast<const std::int32_t*>(device + blocks_at);
  result.decode_rows = reinterpret_cast<const DecodeRow*>(device + decode_at);
  result.decode_count = decode_count;
  result.decode_pieces = reinterpret_cast<const DecodePiece*>(device + pieces_at);
  result.piece_count = piece_room(decode_count);
  result.prefill_tiles = reinterpret_cast<const PrefillTile*>(device + tiles_at);
  result.prefill_count = static_cast<std::int32_t>(counts.prefill_tiles);
  result.prefill_blocks = reinterpret_cast<const PrefillBlock*>(device + prefill_blocks_at);
  result.prefill_block_count = prefill_block_count;
  result.prefill_places = reinterpret_cast<const std::int32_t*>(device + places_at);
  result.max_context = places.max_context;
  return result;
}

Result<const std::int32_t*> StepUpload::rows(std::span<const std::int32_t> rows, cudaStream_t stream) {
  MirroredBuffer& buffer = rows_[turn_];
  turn_ = 1 - turn_;
  const auto bytes = static_cast<std::int64_t>(rows.size_bytes());
  LANNER_ASSIGN_OR_RETURN(std::byte* const host, buffer.open(bytes));
  std::memcpy(host, rows.data(), rows.size_bytes());
  LANNER_RETURN_IF_ERROR(cuda_status(buffer.send(bytes, stream), "a step's lists"));
  return reinterpret_cast<const std::int32_t*>(buffer.device());
}

}  // namespace lanner::ops::cuda
