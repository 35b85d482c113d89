#pragma once
// What a kernel of panel_linear.cuh is told, how its warps share the work, and their streams of weights.

#include "ops/cuda/fused_finish.cuh"

namespace lanner::ops::cuda {

inline constexpr int kPanelWarps = 16;
inline constexpr int kPanelThreads = kPanelWarps * kWarp;
inline constexpr int kMostTeams = 4;
inline constexpr int kTileBytes = static_cast<int>(kPanelTileBytes);
inline constexpr int kPairsBytes = static_cast<int>(kPanelHeight) * 4;  // of a panel's rows for one group
inline constexpr int kTileVectors = 16;                                 // of 16 bytes, of a tile of one row of x

/// What a task's panels have to do with each other.
enum class PanelKind : std::uint8_t {
  kAlone,   // one panel; neighbouring rows are a pair
  kGated,   // the same panel of two parts
  kTurned,  // two panels of a head, partners of the rotation
};

/// What the template arguments decide. kRowCount: rows of x that there is room for, 1, 2, 4 or 8.
template <PanelKind kPanelKind, int kRowCount>
struct PanelShape {
  static constexpr PanelKind kKind = kPanelKind;
  static constexpr bool kIsAlone = kKind == PanelKind::kAlone;
  static constexpr int kRows = kRowCount;
  static constexpr int kPanels = kIsAlone ? 1 : 2;
  static constexpr int kPairs = 8 * kPanels;                                      // of rows, of a task
  static constexpr int kSums = kPanels * static_cast<int>(kPanelHeight) * kRows;  // of a warp
  /// Tiles that a warp takes at once, so that their instructions hide each other's latency: the same of both panels, or
  /// two of one, unless x takes so much room that the next kernel's block would have none beside it.
  static constexpr int kStepTiles = kIsAlone && kRows > 2 ? 1 : 2;
  static constexpr int kStepColumns = kStepTiles / kPanels;  // of tiles
  /// Whether the next kernel is let in before the wait: measured (docs/perf-log.md).
  static constexpr bool kLetsInEarly = kRows == 1;
};

inline constexpr int kSlots = 2;  // of a warp's ring, a step each

/// head_inverse has so many bits behind the point.
inline constexpr int kInverseShift = 20;

/// What the kernels are told.
struct PanelWork {
  FusedLinear linear;
  const std::uint16_t* input;  // (rows, input_stride) in fp16, or null: linear.x is normed here
  std::int64_t input_stride;
  float inverse_cols;
  std::int32_t tasks;
  std::int32_t tiles;         // of a panel
  std::int32_t team_shift;    // log2 of the warps of a team
  std::int32_t group_shift;   // log2 of a group's blocks of 32 columns; 31: a row is one group
  std::int32_t groups;        // of a row
  std::int32_t pairs_bytes;   // of a tile of a panel
  std::int32_t slots;         // of a warp's ring that are used at all
  std::int32_t head_tasks;    // kTurned: of a head
  std::int32_t head_inverse;  // 2^20 over them, rounded up: for quotients of numbers up to kMostTurnedTasks
};

/// Where a panel's codes and pairs begin in memory.
struct __align__(16) PanelSource {
  const std::byte* codes;
  const std::byte* pairs;
};

/// Shared memory of a block, in the order in which it lies there.
template <typename Shape>
struct PanelRoom {
  static constexpr int kRows = Shape::kRows;

  uint4* input;          // (blocks of 32 columns, kRows, 4)
  float* sums;           // (tiles or blocks, kRows): of the columns
  std::byte* ring;       // (warps, slots, tiles of a step): a tile and its pairs
  float* partials;       // (2, warps, panels, 16, kRows)
  float* squares;        // (kRows, warps)
  PanelSource* sources;  // (warps, panels)
  CachePlace* places;    // (kRows): for kTurned

  __device__ PanelRoom(std::byte* base, const PanelWork& work) {
    input = reinterpret_cast<uint4*>(base);
    sums = reinterpret_cast<float*>(input + work.tiles * kTileVectors * kRows);
    ring = reinterpret_cast<std::byte*>(sums + work.tiles * 4 * kRows);
    partials =
        reinterpret_cast<float*>(ring + kPanelWarps * work.slots * Shape::kStepTiles * (kTileBytes + work.pairs_bytes));
    squares = partials + 2 * kPanelWarps * Shape::kSums;
    sources = reinterpret_cast<PanelSource*>(squares + kRows * kPanelWarps);
    places = reinterpret_cast<CachePlace*>(sources + kPanelWarps * Shape::kPanels);
  }
};

// --- tasks

/// Where a task's panels are; its first pair of rows is the first of them.
template <typename Shape>
struct TaskPlace {
  int part[Shape::kPanels];
  int panel[Shape::kPanels];
  int head = 0;     // kTurned
  int element = 0;  // of the head, of the first panel

  __device__ __forceinline__ TaskPlace(const PanelWork& work, int task) {
    const FusedLinear& args = work.linear;
    if constexpr (Shape::kKind == PanelKind::kGated) {
      part[0] = 0;
      part[1] = 1;
      panel[0] = panel[1] = task;
    } else {
      int index = 0;
      while (index + 1 < args.part_count && task * Shape::kPairs >= args.parts[index + 1].first_pair) ++index;
      const int local = task - args.parts[index].first_pair / Shape::kPairs;
#pragma unroll
      for (int p = 0; p < Shape::kPanels; ++p) part[p] = index;
      panel[0] = local;
      if constexpr (Shape::kKind == PanelKind::kTurned) {
        head = local * work.head_inverse >> kInverseShift;
        const int within = local - head * work.head_tasks;
        element = within * static_cast<int>(kPanelHeight);
        panel[0] = head * 2 * work.head_tasks + within;
        panel[1] = panel[0] + work.head_tasks;
      }
    }
  }
};

/// The tasks of a team, one after the other, in steps of as many tiles as it has warps.
struct TaskCursor {
  int task;
  int tile;  // of this warp

  __device__ __forceinline__ explicit TaskCursor(const PanelWork& work)
      : task(static_cast<int>(blockIdx.x) + static_cast<int>(gridDim.x) * team(work)), tile(team_warp(work)) {
    if (is_shadow(work)) task -= work.tasks;
  }

  /// A block beyond the tasks does what another one does, and leaves no result: see blocks_of().
  static __device__ __forceinline__ bool is_shadow(const PanelWork& work) {
    return static_cast<int>(blockIdx.x) >= work.tasks;
  }

  static __device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / kWarp; }
  static __device__ __forceinline__ int team(const PanelWork& work) { return warp() >> work.team_shift; }
  static __device__ __forceinline__ int team_warp(const PanelWork& work) {
    return warp() & ((1 << work.team_shift) - 1);
  }
  /// Tiles of a step: those of a panel lie as far apart as the team has warps.
  template <typename Shape>
  __device__ __forceinline__ int tile_of_step(const PanelWork& work, int i) const {
    return Shape::kIsAlone ? tile + (i << work.team_shift) : tile;
  }
  template <typename Shape>
  __device__ __forceinline__ void next_step(const PanelWork& work) {
    tile += Shape::kStepColumns << work.team_shift;
  }
  __device__ __forceinline__ void next_task(const PanelWork& work) {
    task += static_cast<int>(gridDim.x) * (kPanelWarps >> work.team_shift);
    tile = team_warp(work);
  }
};

// --- the stream of weights

/// A warp's ring, and what it asks for next: exactly the steps that the kernel's own cursor takes, some slots ahead.
template <typename Shape>
struct PanelStream {
  const PanelWork& work;
  TaskCursor cursor;
  std::byte* ring;
  int tile_bytes;        // of a slot
  PanelSource* sources;  // of the cursor's task; in shared memory, since registers are few

  __device__ __forceinline__ PanelStream(const PanelWork& launch, const PanelRoom<Shape>& room)
      : work(launch),
        cursor(launch),
        ring(room.ring + TaskCursor::warp() * launch.slots * Shape::kStepTiles * (kTileBytes + launch.pairs_bytes)),
        tile_bytes(kTileBytes + launch.pairs_bytes),
        sources(room.sources + TaskCursor::warp() * Shape::kPanels) {
    if (cursor.tile >= work.tiles) cursor.task = work.tasks;  // more warps than tiles
    find_panels();
  }

  __device__ __forceinline__ std::byte* slot(int index) const { return ring + index * Shape::kStepTiles * tile_bytes; }

  /// Asks for the next step's tiles, or for nothing behind the last one; a group of copies in any case.
  __device__ __forceinline__ void ask(int index) {
    if (cursor.task < work.tasks) {
      const int lane = static_cast<int>(threadIdx.x) % kWarp;
      std::byte* to = slot(index) + lane * 16;
#pragma unroll
      for (int i = 0; i < Shape::kStepTiles; ++i, to += tile_bytes) {
        const int tile = cursor.tile_of_step<Shape>(work, i);
        if (Shape::kIsAlone && tile >= work.tiles) break;
        const PanelSource source = sources[Shape::kIsAlone ? 0 : i];
        const std::byte* from = source.codes + (tile * kTileBytes + lane * 16);
        copy_async(to, from);
        copy_async(to + kTileBytes / 2, from + kTileBytes / 2);
        const int first_group = tile * 4 >> work.group_shift;
        if (lane * 16 < work.pairs_bytes) {
          copy_async(to + kTileBytes, source.pairs + (first_group * kPairsBytes + lane * 16));
        }
      }
      cursor.next_step<Shape>(work);
      if (cursor.tile >= work.tiles) {
        cursor.next_task(work);
        find_panels();
      }
    }
    commit_copies();
  }

 private:
  __device__ __forceinline__ void find_panels() {
    __syncwarp();
    const int p = static_cast<int>(threadIdx.x) % kWarp;
    if (p < Shape::kPanels && cursor.task < work.tasks) {
      const TaskPlace<Shape> place(work, cursor.task);
      const FusedPart& part = work.linear.parts[p == 0 ? place.part[0] : place.part[Shape::kPanels - 1]];
      const auto panel = static_cast<std::int64_t>(p == 0 ? place.panel[0] : place.panel[Shape::kPanels - 1]);
      sources[p] = {.codes = reinterpret_cast<const std::byte*>(part.data) + panel * work.tiles * kTileBytes,
                    .pairs = static_cast<const std::byte*>(part.scales) + panel * work.groups * kPairsBytes};
    }
    __syncwarp();
  }
};

}  // namespace lanner::ops::cuda
