#include "quant/calibration.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>
#include <utility>

#include "core/check.h"
#include "core/write_all.h"
#include "quant/dense_rows.h"
#include "quant/layer_runner.h"
#include "quant/smoothing.h"

namespace lanner::quant {
namespace {

/// Hidden states of all samples, one behind the other.
class StateFile {
 public:
  static Result<StateFile> open(const std::string& path, int flags) {
    const int descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0600);
    if (descriptor < 0) return io_error(fmt::format("{}: cannot open: {}", path, std::strerror(errno)));
    return StateFile(path, descriptor);
  }
  ~StateFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  StateFile(StateFile&& other) noexcept
      : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}
  StateFile& operator=(StateFile&&) = delete;
  StateFile(const StateFile&) = delete;
  StateFile& operator=(const StateFile&) = delete;

  Status read(std::size_t sample, std::span<float> states) const {
    auto bytes = std::as_writable_bytes(states);
    auto place = static_cast<off_t>(sample * bytes.size());
    while (!bytes.empty()) {
      const ssize_t count = ::pread(descriptor_, bytes.data(), bytes.size(), place);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return io_error(fmt::format("{}: cannot read: {}", path_, std::strerror(errno)));
      if (count == 0) return corrupt(fmt::format("{}: ends too early; remove the folder to begin anew", path_));
      bytes = bytes.subspan(static_cast<std::size_t>(count));
      place += count;
    }
    return {};
  }

  Status write(std::size_t sample, std::span<const float> states) const {
    const auto place = static_cast<off_t>(sample * states.size_bytes());
    if (write_all_at(descriptor_, std::as_bytes(states), place)) return {};
    return io_error(fmt::format("{}: cannot write: {}", path_, std::strerror(errno)));
  }

 private:
  StateFile(std::string path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}
  std::string path_;
  int descriptor_;
};

/// A sample's rows of the embedding.
Status embed(const DenseRows& table, const model::DecoderSpec& spec, std::span<const std::int32_t> tokens,
             std::span<float> hidden) {
  const auto cols = static_cast<std::size_t>(spec.hidden);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= spec.vocab) {
      return invalid_argument(fmt::format("the tokenizer makes token {}, the model has {}", tokens[i], spec.vocab));
    }
    const std::span<float> row = hidden.subspan(i * cols, cols);
    LANNER_RETURN_IF_ERROR(table.read(tokens[i], row));
    for (float& value : row) value *= static_cast<float>(spec.embedding_scale);
  }
  return {};
}

/// All samples through one layer of `checkpoint`. `output`: where what is behind it goes; may be null.
Status run_samples(const model::Checkpoint& checkpoint, const model::DecoderSpec& spec, std::size_t layer,
                   const CalibrationOptions& options, const ReadInput& read_input, const ObserveInput& observe,
                   const StateFile* output) {
  const std::size_t rows = options.windows.front().size();
  LANNER_ASSIGN_OR_RETURN(const auto runner,
                          LayerRunner::load(checkpoint, spec, layer,
                                            {.rows = static_cast<std::int64_t>(rows), .threads = options.threads}));
  std::vector<float> hidden(rows * static_cast<std::size_t>(spec.hidden));
  for (std::size_t sample = 0; sample < options.windows.size(); ++sample) {
    LANNER_RETURN_IF_ERROR(read_input(sample, hidden));
    LANNER_RETURN_IF_ERROR(runner->run(hidden, observe));
    if (observe && options.observe_sample) options.observe_sample(*runner, hidden);
    if (output != nullptr) LANNER_RETURN_IF_ERROR(output->write(sample, hidden));
    if (options.on_sample) options.on_sample();
  }
  return {};
}

Status calibrate_layer(const model::Checkpoint& checkpoint, const model::DecoderSpec& spec, std::size_t layer,
                       const CalibrationOptions& options, const ReadInput& read_input) {
  LANNER_ASSIGN_OR_RETURN(const StateFile file,
                          StateFile::open(options.states.at((layer + 1) % 2), O_WRONLY | O_CREAT));
  const StateFile* output = layer + 1 < spec.layers.size() ? &file : nullptr;
  if (!options.round_layer) return run_samples(checkpoint, spec, layer, options, read_input, options.observe, output);
  LANNER_RETURN_IF_ERROR(run_samples(checkpoint, spec, layer, options, read_input, options.observe, nullptr));
  LANNER_ASSIGN_OR_RETURN(const auto rounded, options.round_layer(layer));
  if (output == nullptr) return {};
  return run_samples(*rounded, spec, layer, options, read_input, {}, output);
}

/// What samples bring to a layer: rows of the embedding, or what the layer before has written.
Result<ReadInput> input_of(const model::Checkpoint& checkpoint, const model::DecoderSpec& spec, std::size_t layer,
                           const CalibrationOptions& options) {
  if (layer == 0) {
    LANNER_ASSIGN_OR_RETURN(
        DenseRows opened,
        DenseRows::open(checkpoint, {.name = spec.embedding, .rows = spec.vocab, .cols = spec.hidden}));
    const auto table = std::make_shared<const DenseRows>(std::move(opened));
    return ReadInput([&spec, &options, table](std::size_t sample, std::span<float> hidden) {
      return embed(*table, spec, options.windows[sample], hidden);
    });
  }
  LANNER_ASSIGN_OR_RETURN(StateFile opened, StateFile::open(options.states.at(layer % 2), O_RDONLY));
  const auto file = std::make_shared<const StateFile>(std::move(opened));
  return ReadInput([file](std::size_t sample, std::span<float> hidden) { return file->read(sample, hidden); });
}

}  // namespace

std::int64_t state_bytes(const model::DecoderSpec& spec, const CalibrationOptions& options) {
  if (options.windows.empty() || spec.layers.size() < 2) return 0;
  const auto tokens = static_cast<std::int64_t>(options.windows.size() * options.windows.front().size());
  return 2 * tokens * spec.hidden * static_cast<std::int64_t>(sizeof(float));
}

Status calibrate(const model::Checkpoint& checkpoint, const model::DecoderSpec& spec,
                 const CalibrationOptions& options) {
  LANNER_CHECK(!options.windows.empty());
  const std::size_t rows = options.windows.front().size();
  for (const auto window : options.windows) LANNER_CHECK(window.size() == rows);
  for (std::size_t layer = options.first_layer; layer < spec.layers.size(); ++layer) {
    LANNER_ASSIGN_OR_RETURN(const ReadInput read_input, input_of(checkpoint, spec, layer, options));
    LANNER_RETURN_IF_ERROR(calibrate_layer(checkpoint, spec, layer, options, read_input));
    LANNER_RETURN_IF_ERROR(options.on_layer(layer, read_input));
  }
  return {};
}

Status not_finite(const model::Checkpoint& checkpoint, std::size_t layer) {
  return corrupt(fmt::format("{}: layer {} computes values that are not finite", checkpoint.path(), layer));
}

}  // namespace lanner::quant
