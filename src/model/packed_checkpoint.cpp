#include "model/packed_checkpoint.h"

#include <fmt/format.h>

#include <filesystem>
#include <utility>

#include "core/mapped_file.h"
#include "model/folder_checkpoint.h"
#include "model/gguf_checkpoint.h"
#include "model/model_folder.h"
#include "model/packed_file.h"

namespace lanner::model {
namespace {

class PackedCheckpoint final : public Checkpoint {
 public:
  PackedCheckpoint(std::string folder, std::shared_ptr<const Checkpoint> texts, PackedFile file)
      : folder_(std::move(folder)), texts_(std::move(texts)), file_(std::move(file)) {}

  CheckpointKind kind() const override { return texts_->kind(); }
  const std::string& path() const override { return folder_; }
  const Json& config() const override { return file_.config ? *file_.config : texts_->config(); }
  const Json& generation_config() const override { return texts_->generation_config(); }
  bool is_packed() const override { return true; }

  bool has_tensor(std::string_view name) const override { return file_.tensors.contains(name); }

  std::int64_t tensor_bytes() const override {
    std::size_t bytes = 0;
    for (const auto& [name, matrix] : file_.matrices) bytes += matrix.image->bytes.size();
    for (const auto& [name, values] : file_.vectors) bytes += values.size_bytes();
    return static_cast<std::int64_t>(bytes);
  }

  Status check_matrix(std::string_view name, std::int64_t rows, std::int64_t cols) const override {
    return find(name, rows, cols).status();
  }

  Status check_vector(std::string_view name, std::int64_t size) const override {
    return find_vector(name, size).status();
  }

  Result<ops::WeightSource> matrix(std::string_view name, std::int64_t rows, std::int64_t cols) const override {
    LANNER_ASSIGN_OR_RETURN(const PackedMatrix* matrix, find(name, rows, cols));
    ops::WeightSource source;
    source.format = matrix->image->format;
    source.rows = rows;
    source.cols = cols;
    source.group = matrix->image->group;
    source.input_order = matrix->input_order;
    source.packed = matrix->image;
    return source;
  }

  Result<std::vector<float>> vector(std::string_view name, std::int64_t size) const override {
    LANNER_ASSIGN_OR_RETURN(const auto values, find_vector(name, size));
    return std::vector<float>(values.begin(), values.end());
  }

  Result<std::shared_ptr<const Tokenizer>> tokenizer() const override { return texts_->tokenizer(); }
  std::optional<std::string> chat_template() const override { return texts_->chat_template(); }
  SpecialTokens special_tokens() const override { return texts_->special_tokens(); }

 private:
  std::string where(std::string_view name) const { return fmt::format("{}/{}: {}", folder_, kPackedFileName, name); }

  Result<const PackedMatrix*> find(std::string_view name, std::int64_t rows, std::int64_t cols) const {
    const auto found = file_.matrices.find(name);
    if (found == file_.matrices.end()) return not_found(fmt::format("{}: is missing", where(name)));
    const PackedMatrix& matrix = found->second;
    if (matrix.rows != rows || matrix.cols != cols) {
      return corrupt(fmt::format("{}: has shape ({}, {}), the configuration asks for ({}, {})", where(name),
                                 matrix.rows, matrix.cols, rows, cols));
    }
    return &matrix;
  }

  Result<std::span<const float>> find_vector(std::string_view name, std::int64_t size) const {
    const auto found = file_.vectors.find(name);
    if (found == file_.vectors.end()) return not_found(fmt::format("{}: is missing", where(name)));
    if (static_cast<std::int64_t>(found->second.size()) != size) {
      return corrupt(
          fmt::format("{}: has size {}, the configuration asks for {}", where(name), found->second.size(), size));
    }
    return found->second;
  }

  std::string folder_;
  std::shared_ptr<const Checkpoint> texts_;
  PackedFile file_;
};

Result<std::shared_ptr<const Checkpoint>> open_texts(const std::string& folder) {
  const Result<std::string> metadata = model_file(folder, kMetadataFileName);
  if (!metadata.ok()) {
    return metadata.status().code() == StatusCode::kNotFound ? open_folder_texts(folder) : metadata.status();
  }
  LANNER_ASSIGN_OR_RETURN(const auto file, MappedFile::open(*metadata));
  return make_gguf_checkpoint(file->bytes(), file, *metadata);
}

ProjectionSpec packed_projection(const ProjectionSpec& projection, std::string_view layer, std::string_view name) {
  if (projection.rows == 0) return projection;
  ProjectionSpec result;  // whole and in plain order
  result.weight = fmt::format("{}.{}", layer, name);
  result.rows = projection.rows;
  result.cols = projection.cols;
  if (!projection.bias.empty()) result.bias = result.weight + ".bias";
  return result;
}

}  // namespace

Result<std::shared_ptr<const Checkpoint>> open_packed_checkpoint(const std::string& folder, ModelFormat format) {
  if (format != ModelFormat::kPlain) {
    return invalid_argument(fmt::format("{}: is converted; a model format is for what it was made from", folder));
  }
  LANNER_ASSIGN_OR_RETURN(auto texts, open_texts(folder));
  LANNER_ASSIGN_OR_RETURN(const std::string path, model_file(folder, kPackedFileName));
  LANNER_ASSIGN_OR_RETURN(const auto mapped, MappedFile::open(path));
  LANNER_ASSIGN_OR_RETURN(PackedFile file, parse_packed_file(mapped->bytes(), mapped, path));
  if (texts->kind() == CheckpointKind::kGguf && !file.config) {
    return unsupported(fmt::format("{}: config: is missing, as in files of an older version; convert anew", path));
  }
  return std::shared_ptr<const Checkpoint>(
      std::make_shared<PackedCheckpoint>(folder, std::move(texts), std::move(file)));
}

DecoderSpec packed_spec(const DecoderSpec& spec) {
  DecoderSpec result = spec;
  const bool shared = spec.head == spec.embedding && !spec.normalize_head;
  result.embedding = "embedding";
  result.head = shared ? result.embedding : "head";
  result.normalize_head = false;  // done before it was packed
  for (std::size_t i = 0; i < result.layers.size(); ++i) {
    LayerSpec& layer = result.layers[i];
    const std::string prefix = fmt::format("layers.{}", i);
    layer.q = packed_projection(layer.q, prefix, "q");
    layer.k = packed_projection(layer.k, prefix, "k");
    layer.v = packed_projection(layer.v, prefix, "v");
    layer.o = packed_projection(layer.o, prefix, "o");
    layer.gate = packed_projection(layer.gate, prefix, "gate");
    layer.up = packed_projection(layer.up, prefix, "up");
    layer.down = packed_projection(layer.down, prefix, "down");
  }
  return result;
}

std::vector<const ProjectionSpec*> projections_of(const DecoderSpec& spec) {
  std::vector<const ProjectionSpec*> projections;
  for (const LayerSpec& layer : spec.layers) {
    for (const ProjectionSpec* one : {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
      if (one->rows > 0) projections.push_back(one);
    }
  }
  return projections;
}

}  // namespace lanner::model
