#pragma once
// How near the CPU's matrix products come to what the machine can do: each shape that a model has, by itself, for
// several numbers of rows and each instruction set.
//
// A shape is what one operation multiplies by: q, k and v are one, gate and up are one. A figure is of the whole
// product as a step has it, with the input made ready (quantized where the weight is) and the result added to the
// output, but without norms and gates. Weights come cold, as in a step: as many copies of a shape are gone through in
// turn as do not fit the caches.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/cpu_info.h"
#include "eval/generation_benchmark.h"
#include "eval/roofline.h"
#include "lanner/status.h"
#include "model/checkpoint.h"
#include "ops/backend.h"

namespace lanner::eval {

struct KernelBenchmarkOptions {
  std::vector<std::int32_t> rows = {1, 2, 4, 8, 16, 64, 512};
  std::vector<CpuIsa> isas = {selected_cpu_isa()};  // none above detected_cpu_isa()
  int threads = 0;                                  // 0: available_processors()
  bool pin_threads = false;                         // each to a processor of its own
  ops::Arithmetic arithmetic = ops::Arithmetic::kFast;
  bool deterministic = false;
  double seconds = 0.1;  // of each shape and number of rows, after one call that is not counted
  /// Called while the caller waits: measurements done and to be done; may be empty.
  std::function<void(std::int64_t, std::int64_t)> progress;
};

/// A product that a model's step has.
struct KernelShape {
  std::string name;                // of the operation: "qkv", "attention out", "gate up", "down", "head"
  std::vector<std::int64_t> rows;  // of its parts
  std::int64_t cols = 0;
  std::string formats;      // of its parts, said once where they are alike: "int4" or "int4, int8"
  std::int64_t bytes = 0;   // of the packed weights
  std::int64_t layers = 0;  // how many of the model's operations have it
  // Multiplications and additions of an input row, by the peak that they are held against: of quantized parts 4 a
  // parameter, since an activation is two bytes.
  double int8_ops_per_row = 0;
  double float32_ops_per_row = 0;

  /// "int8", "fp32", or both.
  const char* products() const {
    return int8_ops_per_row == 0 ? "fp32" : float32_ops_per_row == 0 ? "int8" : "int8 and fp32";
  }
};

struct KernelFigure {
  std::size_t shape = 0;  // of KernelFigures::shapes
  std::int32_t rows = 0;
  Spread seconds;
  double limit_seconds = 0;  // the larger of what reading the weights and of what the operations take at least
  bool read_bound = false;   // whether it is the reading

  double share() const { return limit_seconds / seconds.median; }
};

struct KernelFigures {
  struct Body {
    CpuIsa isa = CpuIsa::kGeneric;
    Roofline limits;
    std::vector<KernelFigure> figures;  // of each shape each number of rows
  };
  std::vector<KernelShape> shapes;
  std::vector<Body> bodies;        // one for each of isas
  std::vector<std::string> notes;  // what whoever reads the figures should know
};

/// Loads the model, so that its layouts are those of a real start. kInvalidArgument for options that make no sense,
/// else what loading and memory can fail with.
Result<KernelFigures> measure_kernels(const model::Checkpoint& checkpoint, const KernelBenchmarkOptions& options);

}  // namespace lanner::eval
