#pragma once
// model.lanner: matrices in the order that the CPU's kernels read, to be mapped and used where they lie.
//
//   bytes 0..63   "LANNERPK", version, rows of a panel, place and length of the table, FNV-1a of the table; zeros
//   then          panels (ops/cpu/kernels.h: WeightView), vectors in fp32 and column orders in int32, each at a
//                 multiple of 64
//   at the end    the table, a JSON object:
//     "tensors"   the names that the checkpoint it was made from has, as far as the architecture asks for them
//     "matrices"  name: format, rows, cols, group, half_scales, has_offsets, zero_points, offset, bytes, input_order
//     (an
//                 offset)
//     "vectors"   name: size, offset
//     "config"    of a GGUF file: its configuration, some of which is seen from tensors that are not there any more
//
// The layout does not depend on the instruction set. A file of another version or panel is refused: convert anew. The
// checksum is that of the table alone; every length, offset and shape in it is checked all the same.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lanner/status.h"
#include "model/json_reader.h"
#include "ops/weight_source.h"

namespace lanner::model {

inline constexpr std::string_view kPackedFileName = "model.lanner";

struct PackedMatrix {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::shared_ptr<const ops::PackedImage> image;
  std::vector<std::int32_t> input_order;  // (cols) or empty
};

struct PackedFile {
  std::set<std::string, std::less<>> tensors;
  std::map<std::string, PackedMatrix, std::less<>> matrices;
  std::map<std::string, std::span<const float>, std::less<>> vectors;
  std::optional<Json> config;  // an object; absent where config.json has it
};

Result<PackedFile> parse_packed_file(std::span<const std::byte> file, const std::shared_ptr<const void>& owner,
                                     std::string_view path);

/// Writes one, as it comes. A file that was not finished has no beginning and is refused.
class PackedFileWriter {
 public:
  static Result<std::unique_ptr<PackedFileWriter>> create(const std::string& path);
  ~PackedFileWriter();
  PackedFileWriter(const PackedFileWriter&) = delete;
  PackedFileWriter& operator=(const PackedFileWriter&) = delete;

  Status add_matrix(const std::string& name, std::int64_t rows, std::int64_t cols, const ops::PackedImage& image,
                    std::span<const std::int32_t> input_order);
  Status add_vector(const std::string& name, std::span<const float> values);
  /// Writes the table, and syncs.
  Status finish(const std::set<std::string, std::less<>>& tensors, const std::optional<Json>& config = std::nullopt);

 private:
  PackedFileWriter(std::string path, int descriptor);
  /// Writes at the next multiple of 64; the place comes back in `offset`.
  Status append(std::span<const std::byte> bytes, std::int64_t& offset);
  Status write_all(std::span<const std::byte> bytes);

  std::string path_;
  int descriptor_;
  std::int64_t size_ = 0;
  Json matrices_ = Json::object();
  Json vectors_ = Json::object();
};

}  // namespace lanner::model
