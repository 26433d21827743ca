// spatial_shift and its adjoint on a GPU: any strides, gathers only (no atomics, no barriers). The forward pass only copies bits,
// so it is compiled per access size, not per dtype.
#include "../shift_ops.h"
#include "shift_launch.h"

namespace s2mlp {
namespace {

void launch_forward(const Call& call) {
  if (call.plan.kernel == ShiftKernel::kTokens) {
    const int64_t bytes = call.plan.vector * call.element_size;
    with_word_type(TypeList<uint8_t, uint16_t, uint32_t, uint64_t, uint4>{}, bytes, [&](auto access) {
      launch_tokens<decltype(access), 1, false>(call, Identity{});
    });
    return;
  }
  with_word_type(TypeList<uint8_t, uint16_t, uint32_t, uint64_t>{}, call.element_size, [&](auto element) {
    using T = decltype(element);
    call.plan.kernel == ShiftKernel::kPlanes ? launch_planes<T, false>(call, Identity{})
                                             : launch_elements<T, false>(call, Identity{});
  });
}

template <typename T>
void launch_adjoint(const Call& call) {
  if (call.plan.kernel == ShiftKernel::kTokens) {
    with_vector_up_to<kVectorBytes / sizeof(T)>(
        call.plan.vector, [&](auto vector) { launch_tokens<T, decltype(vector)::value, true>(call, Identity{}); });
  } else if (call.plan.kernel == ShiftKernel::kPlanes) {
    launch_planes<T, true>(call, Identity{});
  } else {
    launch_elements<T, true>(call, Identity{});
  }
}

struct Cuda {
  static void spatial_shift(const ShiftProblem& problem, const Tensor& x, const Tensor& out) {
    launch_forward(plan_call(problem, x, nullptr, out, false));
  }

  static void spatial_shift_backward(const ShiftProblem& problem, const Tensor& grad, const Tensor& out) {
    const Call call = plan_call(problem, grad, nullptr, out, false);
    with_floating_type(grad, [&](auto element) { launch_adjoint<decltype(element)>(call); });
  }
};

}  // namespace
}  // namespace s2mlp

STABLE_TORCH_LIBRARY_IMPL(S2MLP_LIBRARY, S2MLP_DISPATCH_KEY, m) { S2MLP_IMPLEMENT_SPATIAL_SHIFT(m, s2mlp::Cuda); }
