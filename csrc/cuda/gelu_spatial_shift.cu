// gelu_spatial_shift and its backward op on a GPU: the kernels of spatial_shift, fused with GELU or with the product with its
// slope. The approximation is a run-time branch, uniform over all threads, which halves the number of kernels.
#include "../shift_ops.h"
#include "shift_launch.h"

namespace s2mlp {
namespace {

template <bool kAdjoint, typename T, typename Op>
void launch(const Call& call, const Op& op) {
  if (call.plan.kernel == ShiftKernel::kTokens) {
    with_vector<kWidestComputed<T>, 1>(
        call.plan.vector, [&](auto vector) { launch_tokens<T, decltype(vector)::value, kAdjoint>(call, op); });
    return;
  }
  if constexpr (kWidestComputed<T> > 1) {
    if (call.plan.kernel == ShiftKernel::kPlanes) {
      launch_planes<T, kAdjoint>(call, op);
      return;
    }
  }
  launch_elements<T, kAdjoint>(call, op);
}

struct Cuda {
  static void gelu_spatial_shift(const ShiftProblem& problem, const Tensor& x, const Tensor& out, bool tanh) {
    const Call call = plan_call(problem, x, nullptr, out, true);
    with_floating_type(x, [&](auto element) { launch<false, decltype(element)>(call, Gelu<bool>{tanh}); });
  }

  // x has the strides of out.
  static void gelu_spatial_shift_backward(
      const ShiftProblem& problem, const Tensor& grad, const Tensor& x, const Tensor& out, bool tanh) {
    const Call call = plan_call(problem, grad, x.const_data_ptr(), out, true);
    with_floating_type(x, [&](auto element) { launch<true, decltype(element)>(call, TimesGeluSlope<bool>{tanh}); });
  }
};

}  // namespace
}  // namespace s2mlp

STABLE_TORCH_LIBRARY_IMPL(S2MLP_LIBRARY, S2MLP_DISPATCH_KEY, m) { S2MLP_IMPLEMENT_GELU_SPATIAL_SHIFT(m, s2mlp::Cuda); }
