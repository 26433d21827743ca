// gelu_spatial_shift and its adjoint on a GPU: the strided kernel of spatial_shift, with GELU, or the product with its slope, fused.
#include "../shift_ops.h"
#include "strided_kernel.h"

namespace s2mlp {
namespace {

template <bool kAdjoint, typename T, typename Op>
void launch(const Call& call, const Op& op) {
  with_vector<kWidestComputed<T>, 1>(call.plan.vector, [&](auto vector) {
    if (call.plan.index_64) {
      launch_strided<T, decltype(vector)::value, kAdjoint, int64_t>(call, op);
    } else {
      launch_strided<T, decltype(vector)::value, kAdjoint, int32_t>(call, op);
    }
  });
}

// Which approximation is a run-time branch, the same for all threads: half the kernels to compile.
struct Cuda {
  static Call plan_call(const ShiftProblem& problem, const Tensor& in, const void* operand, const Tensor& out) {
    const void* from = in.const_data_ptr();
    void* to = out.mutable_data_ptr();
    // Only the lowest bit that is set counts, so one number speaks for both inputs.
    const Misalignment misalignment = {misalignment_of(from) | misalignment_of(operand), misalignment_of(to)};
    const LaunchPlan plan = plan_element_launch(problem, static_cast<int64_t>(in.element_size()), misalignment);
    return {problem, from, to, operand, misalignment, plan, LaunchContext(in)};
  }

  static void gelu_spatial_shift(const ShiftProblem& problem, const Tensor& x, const Tensor& out, bool tanh) {
    const Call call = plan_call(problem, x, nullptr, out);
    with_floating_type(x, [&](auto element) { launch<false, decltype(element)>(call, Gelu<bool>{tanh}); });
  }

  // x lies in memory as out does.
  static void gelu_spatial_shift_backward(
      const ShiftProblem& problem, const Tensor& grad, const Tensor& x, const Tensor& out, bool tanh) {
    const Call call = plan_call(problem, grad, x.const_data_ptr(), out);
    with_floating_type(x, [&](auto element) { launch<true, decltype(element)>(call, TimesGeluSlope<bool>{tanh}); });
  }
};

}  // namespace
}  // namespace s2mlp

STABLE_TORCH_LIBRARY_IMPL(S2MLP_LIBRARY, S2MLP_DISPATCH_KEY, m) { S2MLP_IMPLEMENT_GELU_SPATIAL_SHIFT(m, s2mlp::Cuda); }
