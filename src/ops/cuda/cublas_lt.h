#pragma once
// Matrix products of many rows, by cuBLASLt, which is opened while the program runs: a machine may have a driver and no
// cuBLAS. The build needs neither its headers nor its library.
//
// A product's algorithm is chosen by cuBLASLt's heuristic when a shape is seen first and kept for the next time;
// numbers of rows that are nearly the same share one. One thread at a time. Determinism: the algorithm depends on the
// shape, so that a row's bits may depend on how many rows are computed with it; whoever promises more must not come
// here.

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "core/shared_library.h"
#include "lanner/status.h"
#include "ops/cuda/kernels.h"

namespace lanner::ops::cuda {

class CublasLt final : public MatrixLibrary {
 public:
  static constexpr std::int64_t kWorkspaceBytes = std::int64_t{32} << 20;

  /// `workspace`: kWorkspaceBytes of device memory, used by every product, so that all of them belong on one stream.
  /// kNotFound where there is no library, kUnsupported where it lacks a function or refuses the device.
  static Result<std::unique_ptr<CublasLt>> open(void* workspace);
  /// The library alone, opened for good: what takes long in open(). kNotFound.
  static Result<SharedLibrary> find();
  ~CublasLt() override;
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  /// "cuBLASLt 13.0.2", and the file that it is.
  std::string version() const;
  const std::string& path() const { return library_.path(); }
  /// False where cuBLASLt has no algorithm for the shape, or fails with it: it is not asked for that shape again.
  bool multiply(const GemmArgs& args, cudaStream_t stream) override;

 private:
  struct Functions;
  struct Plan;
  class Layouts;
  struct Shape {
    std::int64_t rows;  // of plan_rows()
    std::int64_t width, cols;
    std::int64_t input_stride, weight_stride, out_stride;
    WeightFormat format;
    bool operator==(const Shape&) const = default;
  };
  struct ShapeHash {
    std::size_t operator()(const Shape& shape) const;
  };

  CublasLt(SharedLibrary library, std::unique_ptr<Functions> functions, void* workspace);
  Plan make_plan(const Shape& shape) const;

  SharedLibrary library_;
  std::unique_ptr<Functions> functions_;
  void* handle_ = nullptr;
  void* workspace_ = nullptr;
  std::unordered_map<Shape, Plan, ShapeHash> plans_;
};

}  // namespace lanner::ops::cuda
