#include "eval/kernel_benchmark.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <random>
#include <string_view>
#include <thread>
#include <utility>

#include "core/aligned_buffer.h"
#include "model/decoder.h"
#include "model/decoder_config.h"

namespace lanner::eval {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int32_t kMaxRows = 1 << 14;
constexpr std::size_t kLeastRuns = 3;
constexpr std::int64_t kMostCopies = 4096;

Status check(const KernelBenchmarkOptions& options) {
  if (options.rows.empty() || options.isas.empty()) return invalid_argument("nothing to measure");
  for (const std::int32_t rows : options.rows) {
    if (rows < 1 || rows > kMaxRows) return invalid_argument(fmt::format("rows must be 1 to {}", kMaxRows));
  }
  for (const CpuIsa isa : options.isas) {
    if (isa > detected_cpu_isa()) {
      return invalid_argument(fmt::format("this processor does not have {}", cpu_isa_name(isa)));
    }
  }
  return {};
}

/// A weight as the backend keeps it.
struct Layout {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  ops::PackedImage image;
};

/// Keeps one layout of each kind that a model has.
class Layouts final : public ops::PackObserver {
 public:
  void packed(std::int64_t rows, std::int64_t cols, const ops::PackedImage& image) override {
    if (find(rows, cols, image.format, static_cast<std::int64_t>(image.bytes.size())) != nullptr) return;
    layouts_.push_back({rows, cols, image});
  }
  void uploaded(std::span<const float> /*values*/) override {}

  const Layout* find(std::int64_t rows, std::int64_t cols, ops::WeightFormat format, std::int64_t bytes) const {
    for (const Layout& layout : layouts_) {
      if (layout.rows == rows && layout.cols == cols && layout.image.format == format &&
          static_cast<std::int64_t>(layout.image.bytes.size()) == bytes) {
        return &layout;
      }
    }
    return nullptr;
  }
  const Layout* of(const ops::PackedWeight& weight) const {
    return find(weight.rows(), weight.cols(), weight.format(), weight.bytes());
  }

 private:
  std::vector<Layout> layouts_;
};

/// A shape with the layouts of its parts.
struct Subject {
  KernelShape shape;
  std::vector<const Layout*> parts;
};

Subject subject_of(std::string_view name, const ops::Linear& linear, const Layouts& layouts) {
  Subject subject;
  KernelShape& shape = subject.shape;
  shape.name = name;
  shape.cols = linear.cols();
  shape.layers = 1;
  for (const ops::LinearPart& part : linear.parts) {
    const ops::PackedWeight& weight = *part.weight;
    const bool quantized = ops::is_quantized(weight.format());
    const std::string_view format = ops::weight_format_name(weight.format());
    if (!shape.formats.ends_with(format)) shape.formats += (shape.formats.empty() ? "" : ", ") + std::string(format);
    shape.rows.push_back(weight.rows());
    shape.bytes += weight.bytes();
    const auto parameters = static_cast<double>(weight.rows() * weight.cols());
    if (quantized) {
      shape.int8_ops_per_row += 4 * parameters;
    } else {
      shape.float32_ops_per_row += 2 * parameters;
    }
    subject.parts.push_back(layouts.of(weight));
  }
  return subject;
}

std::vector<Subject> subjects_of(const model::Decoder& decoder, const Layouts& layouts) {
  std::vector<Subject> subjects;
  decoder.for_each_linear([&](std::string_view name, const ops::Linear& linear) {
    Subject subject = subject_of(name, linear, layouts);
    const auto same = std::ranges::find_if(subjects, [&](const Subject& other) {
      return other.shape.name == subject.shape.name && other.parts == subject.parts;
    });
    if (same == subjects.end()) {
      subjects.push_back(std::move(subject));
    } else {
      ++same->shape.layers;
    }
  });
  return subjects;
}

/// Copies of a shape, as many as do not fit the caches, for one backend.
class Copies {
 public:
  static Result<Copies> make(const Subject& subject, std::int64_t cache_bytes, ops::Backend& backend) {
    const std::int64_t count =
        std::clamp<std::int64_t>((cache_bytes + subject.shape.bytes - 1) / subject.shape.bytes, 2, kMostCopies);
    std::int64_t one = 0;
    for (const Layout* layout : subject.parts) one += room_of(*layout);
    LANNER_ASSIGN_OR_RETURN(AlignedBuffer buffer, AlignedBuffer::allocate(count * one, "copies of a weight"));
    const auto owner = std::make_shared<AlignedBuffer>(std::move(buffer));
    std::byte* place = owner->data();
    Copies copies;
    for (std::int64_t i = 0; i < count; ++i) {
      ops::Linear linear;
      for (const Layout* layout : subject.parts) {
        LANNER_ASSIGN_OR_RETURN(auto weight, copy(*layout, place, owner, backend));
        linear.parts.push_back({.weight = std::move(weight), .bias = nullptr});
        place += room_of(*layout);
      }
      copies.linears_.push_back(std::move(linear));
    }
    return copies;
  }
  /// The one whose last use lies longest back.
  const ops::Linear& next() { return linears_[turn_++ % linears_.size()]; }

 private:
  static std::int64_t room_of(const Layout& layout) {
    constexpr std::int64_t kAlignment = 64;  // what PackedImage asks for
    return (static_cast<std::int64_t>(layout.image.bytes.size()) + kAlignment - 1) / kAlignment * kAlignment;
  }
  static Result<std::shared_ptr<const ops::PackedWeight>> copy(const Layout& layout, std::byte* place,
                                                               std::shared_ptr<const void> owner,
                                                               ops::Backend& backend) {
    std::memcpy(place, layout.image.bytes.data(), layout.image.bytes.size());
    auto image = std::make_shared<ops::PackedImage>(layout.image);
    image->bytes = {place, layout.image.bytes.size()};
    image->owner = std::move(owner);
    ops::WeightSource source;
    source.format = image->format;
    source.rows = layout.rows;
    source.cols = layout.cols;
    source.packed = std::move(image);
    return backend.pack(std::move(source), ops::Arithmetic::kFast);  // what it is packed as it stays
  }

  std::vector<ops::Linear> linears_;
  std::size_t turn_ = 0;
};

std::vector<float> random_input(std::int64_t count) {
  std::mt19937 random(7);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = static_cast<float>(random() % 2001U) / 1000.0F - 1.0F;
  return values;
}

Spread time_calls(Copies& copies, const std::vector<float>& input, std::int32_t rows, double seconds,
                  ops::Backend& backend) {
  std::vector<float> output(static_cast<std::size_t>(rows * copies.next().rows()));
  backend.linear_add(copies.next(), input.data(), rows, output.data());
  std::vector<double> times;
  double total = 0;
  while (total < seconds || times.size() < kLeastRuns) {
    const ops::Linear& linear = copies.next();
    const auto start = Clock::now();
    backend.linear_add(linear, input.data(), rows, output.data());
    times.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    total += times.back();
  }
  return spread_of(std::move(times));
}

KernelFigure figure_of(const Subject& subject, std::size_t index, std::int32_t rows, const Roofline& limits) {
  const double reading = static_cast<double>(subject.shape.bytes) / limits.read_bytes_per_s;
  const double multiplying = rows * (subject.shape.int8_ops_per_row / limits.int8_ops_per_s +
                                     subject.shape.float32_ops_per_row / limits.float32_ops_per_s);
  return {.shape = index,
          .rows = rows,
          .seconds = {},
          .limit_seconds = std::max(reading, multiplying),
          .read_bound = reading >= multiplying};
}

/// Everything that is measured with one instruction set; calls `done` after each figure. `notes` are the backend's,
/// which are the same for all.
Result<KernelFigures::Body> measure_body(CpuIsa isa, const std::vector<Subject>& subjects,
                                         const KernelBenchmarkOptions& options, const std::function<void()>& done,
                                         std::vector<std::string>& notes) {
  KernelFigures::Body body{.isa = isa, .limits = {}, .figures = {}};
  LANNER_ASSIGN_OR_RETURN(
      body.limits, measure_roofline({.threads = options.threads, .isa = isa, .pin_threads = options.pin_threads}));
  LANNER_ASSIGN_OR_RETURN(const auto backend, ops::make_cpu_backend({.threads = options.threads,
                                                                     .isa = isa,
                                                                     .pin_threads = options.pin_threads,
                                                                     .deterministic = options.deterministic}));
  notes = backend->take_notes();
  backend->enter_thread();
  std::int64_t cols = 0;
  for (const Subject& subject : subjects) cols = std::max(cols, subject.shape.cols);
  const std::int64_t most_rows = *std::ranges::max_element(options.rows);
  LANNER_RETURN_IF_ERROR(backend->reserve({.rows = most_rows, .max_cols = cols}));
  const std::vector<float> input = random_input(most_rows * cols);
  for (std::size_t i = 0; i < subjects.size(); ++i) {
    LANNER_ASSIGN_OR_RETURN(Copies copies, Copies::make(subjects[i], body.limits.buffer_bytes, *backend));
    for (const std::int32_t rows : options.rows) {
      KernelFigure figure = figure_of(subjects[i], i, rows, body.limits);
      figure.seconds = time_calls(copies, input, rows, options.seconds, *backend);
      body.figures.push_back(figure);
      done();
    }
  }
  return body;
}

}  // namespace

Result<KernelFigures> measure_kernels(const model::Checkpoint& checkpoint, const KernelBenchmarkOptions& options) {
  LANNER_RETURN_IF_ERROR(check(options));
  LANNER_ASSIGN_OR_RETURN(const model::DecoderSpec spec, model::read_decoder_spec(checkpoint));
  Layouts layouts;
  LANNER_ASSIGN_OR_RETURN(const auto backend,
                          ops::make_cpu_backend({.threads = options.threads, .observer = &layouts}));
  LANNER_ASSIGN_OR_RETURN(const auto decoder,
                          model::Decoder::load(checkpoint, spec, *backend, {.arithmetic = options.arithmetic}));
  const std::vector<Subject> subjects = subjects_of(*decoder, layouts);
  const auto total = static_cast<std::int64_t>(subjects.size() * options.rows.size() * options.isas.size());
  std::int64_t measured = 0;
  const auto done = [&] {
    ++measured;
    if (options.progress) options.progress(measured, total);
  };
  KernelFigures figures;
  for (const Subject& subject : subjects) figures.shapes.push_back(subject.shape);
  for (const CpuIsa isa : options.isas) {
    Result<KernelFigures::Body> body = internal_error("nothing was measured");
    // A thread of its own, which may be pinned.
    std::thread([&] { body = measure_body(isa, subjects, options, done, figures.notes); }).join();
    if (!body.ok()) return body.status();
    figures.bodies.push_back(std::move(*body));
  }
  return figures;
}

}  // namespace lanner::eval
