// The CUDA operators of a build without CUDA kernels, in place of the .cu files. Each raises an error that says how to get the
// kernels.
#include "../branch_ops.h"
#include "../library.h"
#include "../shift_ops.h"

namespace s2mlp {
namespace {

struct Refuse {
  template <typename... Arguments>
  void operator()(const Arguments&...) const {
    throw std::runtime_error(
        "s2mlp_cuda was built without CUDA kernels, but this tensor is on a GPU: rebuild s2mlp_cuda with nvcc on PATH or CUDA_HOME "
        "set, and without S2MLP_CUDA=0");
  }
};

struct WithoutKernels {
  static constexpr Refuse spatial_shift{}, spatial_shift_backward{}, gelu_spatial_shift{}, gelu_spatial_shift_backward{};
  static constexpr Refuse pool{}, combine{}, combine_backward_weights{};

  // Strides are passed as {}, which has no type to deduce.
  template <typename... Arguments>
  static void combine_backward(const BranchProblem&, const Tensor*, const MapStrides&, const Arguments&...) {
    Refuse()();
  }
};

}  // namespace
}  // namespace s2mlp

STABLE_TORCH_LIBRARY_IMPL(S2MLP_LIBRARY, CUDA, m) {
  S2MLP_IMPLEMENT_SPATIAL_SHIFT(m, s2mlp::WithoutKernels);
  S2MLP_IMPLEMENT_GELU_SPATIAL_SHIFT(m, s2mlp::WithoutKernels);
  S2MLP_IMPLEMENT_BRANCH_OPS(m, s2mlp::WithoutKernels);
}
