#include "model/convert.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

#include "core/mapped_file.h"
#include "model/copy_texts.h"
#include "model/decoder.h"
#include "model/decoder_config.h"
#include "model/forwarding_checkpoint.h"
#include "model/gguf.h"
#include "model/packed_checkpoint.h"
#include "model/packed_file.h"
#include "ops/backend.h"

namespace lanner::model {
namespace {

namespace fs = std::filesystem;

/// Passes everything on, and remembers what was asked for.
class RecordingCheckpoint final : public ForwardingCheckpoint {
 public:
  using ForwardingCheckpoint::ForwardingCheckpoint;

  bool has_tensor(std::string_view name) const override {
    const bool has = source().has_tensor(name);
    if (has) tensors_.emplace(name);
    return has;
  }
  Result<std::vector<float>> vector(std::string_view name, std::int64_t size) const override {
    LANNER_ASSIGN_OR_RETURN(std::vector<float> values, source().vector(name, size));
    vectors_.insert_or_assign(std::string(name), values);
    return values;
  }
  Result<ops::WeightSource> matrix(std::string_view name, std::int64_t rows, std::int64_t cols) const override {
    LANNER_ASSIGN_OR_RETURN(ops::WeightSource matrix, source().matrix(name, rows, cols));
    input_orders_.insert_or_assign(std::string(name), matrix.input_order);
    return matrix;
  }

  const std::set<std::string, std::less<>>& tensors() const { return tensors_; }
  const std::map<std::string, std::vector<float>>& vectors() const { return vectors_; }
  std::span<const std::int32_t> input_order(const std::string& name) const {
    const auto found = input_orders_.find(name);
    return found == input_orders_.end() ? std::span<const std::int32_t>() : std::span(found->second);
  }

 private:
  // What was answered; one thread loads.
  mutable std::set<std::string, std::less<>> tensors_;
  mutable std::map<std::string, std::vector<float>> vectors_;
  mutable std::map<std::string, std::vector<std::int32_t>> input_orders_;
};

/// Writes what the backend packs, which comes in the order of the spec: embedding, projections, head; the bias of a
/// projection right behind it.
class Recorder final : public ops::PackObserver {
 public:
  Recorder(const DecoderSpec& spec, const RecordingCheckpoint& checkpoint, PackedFileWriter& writer)
      : checkpoint_(checkpoint), writer_(writer) {
    const DecoderSpec packed = packed_spec(spec);
    expect(spec.embedding, {.weight = packed.embedding, .bias = "", .rows = spec.vocab, .cols = spec.hidden});
    const auto sources = projections_of(spec);
    const auto targets = projections_of(packed);
    for (std::size_t i = 0; i < sources.size(); ++i) expect(sources[i]->weight, *targets[i]);
    if (packed.head != packed.embedding) {
      expect(spec.head, {.weight = packed.head, .bias = "", .rows = spec.vocab, .cols = spec.hidden});
    }
  }

  void packed(std::int64_t rows, std::int64_t cols, const ops::PackedImage& image) override {
    if (!status_.ok()) return;
    if (done_ == expected_.size() || expected_[done_].target.rows != rows || expected_[done_].target.cols != cols ||
        !bias_.empty()) {
      status_ = unexpected();
      return;
    }
    const Expected& one = expected_[done_++];
    // A matrix that was widened has its columns in their own order again.
    const auto order =
        ops::is_quantized(image.format) ? checkpoint_.input_order(one.source) : std::span<const std::int32_t>();
    status_ = writer_.add_matrix(one.target.weight, rows, cols, image, order);
    bias_ = one.target.bias;
    bias_rows_ = rows;
  }

  void uploaded(std::span<const float> values) override {
    if (!status_.ok() || bias_.empty()) return;
    status_ = static_cast<std::int64_t>(values.size()) == bias_rows_ ? writer_.add_vector(bias_, values) : unexpected();
    bias_.clear();
  }

  /// Whether all of it came.
  Status result() const {
    if (!status_.ok()) return status_;
    return done_ == expected_.size() && bias_.empty() ? Status() : unexpected();
  }

 private:
  struct Expected {
    std::string source;
    ProjectionSpec target;
  };

  void expect(std::string source, ProjectionSpec target) {
    expected_.push_back({std::move(source), std::move(target)});
  }
  Status unexpected() const {
    return unsupported(fmt::format("{}: models of this architecture cannot be converted", checkpoint_.path()));
  }

  const RecordingCheckpoint& checkpoint_;
  PackedFileWriter& writer_;
  std::vector<Expected> expected_;
  std::size_t done_ = 0;
  std::string bias_;  // what the next upload is
  std::int64_t bias_rows_ = 0;
  Status status_;
};

/// A folder that is removed unless it was moved to its place.
class PartialFolder {
 public:
  static Result<PartialFolder> create(const std::string& destination) {
    std::error_code error;
    fs::path place = fs::path(destination).lexically_normal();
    if (!place.has_filename()) place = place.parent_path();
    if (fs::exists(place, error) && !(fs::is_directory(place, error) && fs::is_empty(place, error))) {
      return Status(StatusCode::kConflict,
                    fmt::format("{}: is there already; remove it or name another folder", destination));
    }
    const fs::path partial = fmt::format("{}.part-{}", place.string(), ::getpid());
    fs::create_directories(partial, error);
    if (error) return io_error(fmt::format("{}: {}", partial.string(), error.message()));
    return PartialFolder(partial, place);
  }
  ~PartialFolder() {
    std::error_code error;
    if (!partial_.empty()) fs::remove_all(partial_, error);
  }
  PartialFolder(PartialFolder&& other) noexcept
      : partial_(std::exchange(other.partial_, {})), place_(std::move(other.place_)) {}
  PartialFolder& operator=(PartialFolder&&) = delete;
  PartialFolder(const PartialFolder&) = delete;
  PartialFolder& operator=(const PartialFolder&) = delete;

  std::string path() const { return partial_.string(); }
  std::string file(std::string_view name) const { return (partial_ / name).string(); }
  Status move_to_place() {
    std::error_code error;
    fs::rename(partial_, place_, error);
    if (error) return io_error(fmt::format("{}: {}", place_.string(), error.message()));
    partial_.clear();
    return {};
  }

 private:
  PartialFolder(fs::path partial, fs::path place) : partial_(std::move(partial)), place_(std::move(place)) {}
  fs::path partial_;
  fs::path place_;
};

/// The GGUF file without its tensors.
Status copy_metadata(const std::string& path, const PartialFolder& target) {
  LANNER_ASSIGN_OR_RETURN(const auto file, MappedFile::open(path));
  LANNER_ASSIGN_OR_RETURN(const Gguf gguf, parse_gguf(file->bytes(), path));
  std::string copy = "GGUF";
  const auto append = [&](const auto& number) { copy.append(reinterpret_cast<const char*>(&number), sizeof(number)); };
  append(gguf.version);
  append(std::uint64_t{0});
  append(static_cast<std::uint64_t>(gguf.metadata.size()));
  copy.append(reinterpret_cast<const char*>(gguf.metadata_bytes.data()), gguf.metadata_bytes.size());
  return write_file_atomically(target.file(kMetadataFileName), copy);
}

Status write_weights(const Checkpoint& source, const ConvertOptions& options, const std::string& path) {
  const RecordingCheckpoint checkpoint(source);
  LANNER_ASSIGN_OR_RETURN(const DecoderSpec spec, read_decoder_spec(checkpoint));
  LANNER_ASSIGN_OR_RETURN(const auto writer, PackedFileWriter::create(path));
  Recorder recorder(spec, checkpoint, *writer);
  LANNER_ASSIGN_OR_RETURN(const auto backend,
                          ops::make_cpu_backend({.threads = options.threads, .observer = &recorder}));
  const LoadOptions load{.progress = options.progress};
  LANNER_ASSIGN_OR_RETURN(const auto decoder, Decoder::load(checkpoint, spec, *backend, load));
  LANNER_RETURN_IF_ERROR(recorder.result());
  for (const auto& [name, values] : checkpoint.vectors()) LANNER_RETURN_IF_ERROR(writer->add_vector(name, values));
  std::optional<Json> config;
  if (source.kind() == CheckpointKind::kGguf) config = source.config();
  return writer->finish(checkpoint.tensors(), config);
}

}  // namespace

Status convert_model(const ConvertOptions& options) {
  LANNER_ASSIGN_OR_RETURN(const auto source, open_checkpoint(options.source, {.format = options.format}));
  if (source->is_packed()) return invalid_argument(fmt::format("{}: is converted already", options.source));
  LANNER_ASSIGN_OR_RETURN(PartialFolder target, PartialFolder::create(options.destination));
  LANNER_RETURN_IF_ERROR(source->kind() == CheckpointKind::kGguf ? copy_metadata(options.source, target)
                                                                 : copy_texts(options.source, target.path()));
  LANNER_RETURN_IF_ERROR(write_weights(*source, options, target.file(kPackedFileName)));
  return target.move_to_place();
}

}  // namespace lanner::model
