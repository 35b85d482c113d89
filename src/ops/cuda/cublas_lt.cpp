#include "ops/cuda/cublas_lt.h"

#include <fmt/format.h>
#include <library_types.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <utility>
#include <vector>

#include "ops/cuda/cuda_error.h"

namespace lanner::ops::cuda {
namespace {

// The part of cuBLASLt's binary interface that is used. It has been the same since CUDA 11 and is documented in
// docs.nvidia.com/cuda/cublas; names and numbers are those of its enumerations.
using Code = int;  // cublasStatus_t; 0: success
using Handle = void*;
using Descriptor = void*;
using Layout = void*;
using Preference = void*;

struct Algorithm {
  std::array<std::uint64_t, 8> data;
};
struct HeuristicResult {
  Algorithm algorithm;
  std::size_t workspace_bytes;
  Code state;
  float waves;
  std::array<int, 4> reserved;
};
static_assert(sizeof(HeuristicResult) == 96 && offsetof(HeuristicResult, state) == 72);

constexpr int kCompute32F = 68;                        // CUBLAS_COMPUTE_32F
constexpr int kDescriptorTransposeA = 3;               // CUBLASLT_MATMUL_DESC_TRANSA
constexpr std::int32_t kTranspose = 1;                 // CUBLAS_OP_T
constexpr int kPreferenceWorkspace = 1;                // CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES
constexpr int kPreferenceAlignments[] = {5, 6, 7, 8};  // CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, B, C, D
constexpr std::uint32_t kAlignment = 16;
constexpr std::size_t kMaxPlans = 4096;  // each holds some small objects of the library

/// Rows for which a product's algorithm is chosen: choosing takes the host long, and rows come in any number.
std::int64_t plan_rows(std::int64_t rows) {
  const auto power = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(rows)));
  const std::int64_t unit = std::max<std::int64_t>(1, power / 16);
  return (rows + unit - 1) / unit * unit;
}

cudaDataType_t cuda_type(WeightFormat format) { return format == WeightFormat::kBF16 ? CUDA_R_16BF : CUDA_R_16F; }

}  // namespace

struct CublasLt::Functions {
  Code (*create)(Handle*) = nullptr;
  Code (*destroy)(Handle) = nullptr;
  std::size_t (*version)() = nullptr;
  Code (*descriptor_create)(Descriptor*, int compute_type, int scale_type) = nullptr;
  Code (*descriptor_destroy)(Descriptor) = nullptr;
  Code (*descriptor_set)(Descriptor, int attribute, const void*, std::size_t) = nullptr;
  Code (*layout_create)(Layout*, int type, std::uint64_t rows, std::uint64_t cols, std::int64_t stride) = nullptr;
  Code (*layout_destroy)(Layout) = nullptr;
  Code (*preference_create)(Preference*) = nullptr;
  Code (*preference_destroy)(Preference) = nullptr;
  Code (*preference_set)(Preference, int attribute, const void*, std::size_t) = nullptr;
  Code (*heuristic)(Handle, Descriptor, Layout a, Layout b, Layout c, Layout d, Preference, int wanted,
                    HeuristicResult*, int* found) = nullptr;
  Code (*matmul)(Handle, Descriptor, const void* alpha, const void* a, Layout, const void* b, Layout, const void* beta,
                 const void* c, Layout, void* d, Layout, const Algorithm*, void* workspace, std::size_t,
                 cudaStream_t) = nullptr;

  /// False where the library lacks one.
  bool find(const SharedLibrary& library) {
    bool all = true;
    const auto take = [&]<typename Function>(Function& function, const char* name) {
      function = library.function<Function>(name);
      all = all && function != nullptr;
    };
    take(create, "cublasLtCreate");
    take(destroy, "cublasLtDestroy");
    take(version, "cublasLtGetVersion");
    take(descriptor_create, "cublasLtMatmulDescCreate");
    take(descriptor_destroy, "cublasLtMatmulDescDestroy");
    take(descriptor_set, "cublasLtMatmulDescSetAttribute");
    take(layout_create, "cublasLtMatrixLayoutCreate");
    take(layout_destroy, "cublasLtMatrixLayoutDestroy");
    take(preference_create, "cublasLtMatmulPreferenceCreate");
    take(preference_destroy, "cublasLtMatmulPreferenceDestroy");
    take(preference_set, "cublasLtMatmulPreferenceSetAttribute");
    take(heuristic, "cublasLtMatmulAlgoGetHeuristic");
    take(matmul, "cublasLtMatmul");
    return all;
  }
};

/// What products of one shape are called with. The library is column major, so that it sees
/// outᵀ (width, rows) = weight, stored as (cols, width) and transposed, times inputᵀ (cols, rows).
struct CublasLt::Plan {
  Descriptor descriptor = nullptr;
  Layout weight = nullptr;
  Algorithm algorithm{};
  bool found = false;

  void release(const Functions& functions) const {
    if (descriptor != nullptr) functions.descriptor_destroy(descriptor);
    if (weight != nullptr) functions.layout_destroy(weight);
  }
};

/// Matrices of `rows` rows, where they are fewer than a plan's: its algorithm serves them all.
class CublasLt::Layouts {
 public:
  Layouts(const Functions& functions, const Shape& shape, std::int64_t rows) : functions_(functions) {
    const auto count = static_cast<std::uint64_t>(rows);
    const auto cols = static_cast<std::uint64_t>(shape.cols);
    const auto width = static_cast<std::uint64_t>(shape.width);
    made_ = functions.layout_create(&input_, cuda_type(shape.format), cols, count, shape.input_stride) == 0 &&
            functions.layout_create(&out_, CUDA_R_32F, width, count, shape.out_stride) == 0;
  }
  ~Layouts() {
    for (const Layout layout : {input_, out_}) {
      if (layout != nullptr) functions_.layout_destroy(layout);
    }
  }
  Layouts(const Layouts&) = delete;
  Layouts& operator=(const Layouts&) = delete;
  bool made() const { return made_; }
  Layout input() const { return input_; }
  Layout out() const { return out_; }

 private:
  const Functions& functions_;
  Layout input_ = nullptr;
  Layout out_ = nullptr;
  bool made_ = false;
};

std::size_t CublasLt::ShapeHash::operator()(const Shape& shape) const {
  std::uint64_t hash = 0;
  for (const std::int64_t part : {shape.rows, shape.width, shape.cols, shape.input_stride, shape.weight_stride,
                                  shape.out_stride, static_cast<std::int64_t>(shape.format)}) {
    hash = (hash ^ static_cast<std::uint64_t>(part)) * 0x9E3779B97F4A7C15U;
    hash ^= hash >> 32U;
  }
  return hash;
}

CublasLt::CublasLt(SharedLibrary library, std::unique_ptr<Functions> functions, void* workspace)
    : library_(std::move(library)), functions_(std::move(functions)), workspace_(workspace) {}

CublasLt::~CublasLt() {
  for (const auto& [shape, plan] : plans_) plan.release(*functions_);
  if (handle_ != nullptr) functions_->destroy(handle_);
}

Result<SharedLibrary> CublasLt::find() {
  const std::array<std::string, 3> names = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};
  return SharedLibrary::open(names, cuda_library_folders());
}

Result<std::unique_ptr<CublasLt>> CublasLt::open(void* workspace) {
  LANNER_ASSIGN_OR_RETURN(SharedLibrary library, find());
  auto functions = std::make_unique<Functions>();
  if (!functions->find(library)) {
    return unsupported(fmt::format("{} lacks a function that is needed", library.path()));
  }
  std::unique_ptr<CublasLt> opened(new CublasLt(std::move(library), std::move(functions), workspace));
  if (const Code status = opened->functions_->create(&opened->handle_); status != 0) {
    opened->handle_ = nullptr;
    return unsupported(fmt::format("{} cannot be used here (cuBLAS status {})", opened->library_.path(), status));
  }
  return opened;
}

std::string CublasLt::version() const {
  const std::size_t number = functions_->version();
  return fmt::format("cuBLASLt {}.{}.{}", number / 10000, number / 100 % 100, number % 100);
}

CublasLt::Plan CublasLt::make_plan(const Shape& shape) const {
  const Functions& call = *functions_;
  const Layouts layouts(call, shape, shape.rows);
  const auto width = static_cast<std::uint64_t>(shape.width);
  const auto cols = static_cast<std::uint64_t>(shape.cols);
  Plan plan;
  Preference preference = nullptr;
  const std::uint64_t workspace = kWorkspaceBytes;
  bool good = call.descriptor_create(&plan.descriptor, kCompute32F, CUDA_R_32F) == 0 &&
              call.descriptor_set(plan.descriptor, kDescriptorTransposeA, &kTranspose, sizeof(kTranspose)) == 0 &&
              call.layout_create(&plan.weight, cuda_type(shape.format), cols, width, shape.weight_stride) == 0 &&
              layouts.made() && call.preference_create(&preference) == 0 &&
              call.preference_set(preference, kPreferenceWorkspace, &workspace, sizeof(workspace)) == 0;
  for (const int attribute : kPreferenceAlignments) {
    good = good && call.preference_set(preference, attribute, &kAlignment, sizeof(kAlignment)) == 0;
  }
  HeuristicResult result{};
  int found = 0;
  good = good && call.heuristic(handle_, plan.descriptor, plan.weight, layouts.input(), layouts.out(), layouts.out(),
                                preference, 1, &result, &found) == 0;
  plan.found = good && found == 1 && result.state == 0;
  plan.algorithm = result.algorithm;
  if (preference != nullptr) call.preference_destroy(preference);
  return plan;
}

bool CublasLt::multiply(const GemmArgs& args, cudaStream_t stream) {
  if (reinterpret_cast<std::uintptr_t>(args.out) % kAlignment != 0) return false;  // as plans promise
  const Shape shape{plan_rows(args.rows), args.width,      args.cols,  args.input_stride,
                    args.weight_stride,   args.out_stride, args.format};
  auto entry = plans_.find(shape);
  if (entry == plans_.end()) {
    if (plans_.size() >= kMaxPlans) {
      for (const auto& [old, plan] : plans_) plan.release(*functions_);
      plans_.clear();
    }
    entry = plans_.emplace(shape, make_plan(shape)).first;
  }
  Plan& plan = entry->second;
  if (!plan.found) return false;
  const float alpha = args.add ? args.scale : 1.0F;
  const float beta = args.add ? 1.0F : 0.0F;
  const Layouts layouts(*functions_, shape, args.rows);
  const bool done =
      layouts.made() && functions_->matmul(handle_, plan.descriptor, &alpha, args.weight, plan.weight, args.input,
                                           layouts.input(), &beta, args.out, layouts.out(), args.out, layouts.out(),
                                           &plan.algorithm, workspace_, kWorkspaceBytes, stream) == 0;
  // For want of memory for its kernels, say. What has become of the device shows in the launch that takes its place.
  if (!done) {
    static_cast<void>(cudaGetLastError());
    plan.found = false;
  }
  return plan.found;
}

}  // namespace lanner::ops::cuda
