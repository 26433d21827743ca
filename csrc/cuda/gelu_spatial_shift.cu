// gelu_spatial_shift and its backward on a GPU: the strided kernel of spatial_shift, with elements going through GELU, or
// being multiplied by its slope, on their way. Shift and GELU commute.
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "../box.h"
#include "../gelu.h"
#include "../shift_arguments.h"
#include "strided_kernel.h"

namespace s2mlp {
namespace {

// Which approximation is a question at run time, the same for all threads: half the kernels to compile.
template <typename Wide>
__device__ Wide gelu_of(Wide x, bool tanh) {
  return tanh ? gelu<true>(x) : gelu<false>(x);
}

template <typename Wide>
__device__ Wide gelu_slope_of(Wide x, bool tanh) {
  return tanh ? gelu_slope<true>(x) : gelu_slope<false>(x);
}

struct Gelu : LoadsNothing {
  static constexpr int kItems = kElementItemsPerThread;
  bool tanh;

  template <typename T, int kVector>
  __device__ VectorOf<T, kVector> operator()(VectorOf<T, kVector> x, Nothing) const {
#pragma unroll
    for (int v = 0; v < kVector; ++v) {
      x.values[v] = static_cast<T>(gelu_of(static_cast<accumulator_t<T>>(x.values[v]), tanh));
    }
    return x;
  }
};

// Gradients on their way back are multiplied by GELU' of the input, which lies in memory as the output does.
template <typename T, int kVector>
struct TimesGeluSlope {
  static constexpr int kItems = kElementItemsPerThread;
  const VectorOf<T, kVector>* x;
  bool tanh;

  template <typename Index>
  __device__ Packed<T, kVector> load(Index out_offset) const {
    return load_packed(x + out_offset);
  }

  __device__ VectorOf<T, kVector> operator()(VectorOf<T, kVector> grad, const Packed<T, kVector>& packed) const {
    using Wide = accumulator_t<T>;
    const VectorOf<T, kVector> at = unpack<T, kVector>(packed);
#pragma unroll
    for (int v = 0; v < kVector; ++v) {
      const Wide slope = gelu_slope_of(static_cast<Wide>(at.values[v]), tanh);
      grad.values[v] = static_cast<T>(static_cast<Wide>(grad.values[v]) * slope);
    }
    return grad;
  }
};

// ---- Launch ----------------------------------------------------------------------------------------------------------

template <bool kAdjoint, typename T, int kVector, typename Element>
void launch_element(const Call& call, const Element& element) {
  if (call.plan.wide) {
    launch_strided<T, kVector, kAdjoint, int64_t>(call, element);
  } else {
    launch_strided<T, kVector, kAdjoint, int32_t>(call, element);
  }
}

struct Forward {
  bool tanh;

  template <typename T, int kVector>
  void launch(const Call& call) const {
    launch_element<false, T, kVector>(call, Gelu{{}, tanh});
  }
};

struct Backward {
  const void* x;
  bool tanh;

  template <typename T, int kVector>
  void launch(const Call& call) const {
    launch_element<true, T, kVector>(
        call, TimesGeluSlope<T, kVector>{static_cast<const VectorOf<T, kVector>*>(x), tanh});
  }
};

template <typename T, typename Pass>
void launch_vectors(const Call& call, const Pass& pass) {
  constexpr int kFull = kVectorBytes / sizeof(T);
  call.plan.vector == kFull ? pass.template launch<T, kFull>(call) : pass.template launch<T, 1>(call);
}

template <typename Pass>
void launch_dtype(const Call& call, ScalarType dtype, const Pass& pass) {
  switch (dtype) {
    case ScalarType::Double:
      return pass.template launch<double, 1>(call);
    case ScalarType::Float:
      return launch_vectors<float>(call, pass);
    case ScalarType::Half:
      return launch_vectors<torch::headeronly::Half>(call, pass);
    default:
      return launch_vectors<torch::headeronly::BFloat16>(call, pass);
  }
}

Tensor gelu_spatial_shift(
    const Tensor& x,
    IntHeaderOnlyArrayRef offsets,
    std::optional<IntHeaderOnlyArrayRef> group_sizes,
    std::string_view approximate,
    std::string_view padding_mode,
    std::string_view data_format) {
  check_floating_dtype(x, "x");
  const bool tanh = parse_approximate(approximate);
  Tensor out = new_map_like(x);
  const ShiftProblem problem = make_problem(x, out, offsets, group_sizes, padding_mode, data_format);
  if (x.numel() != 0) {
    const LaunchContext context(x);
    const void* in = x.const_data_ptr();
    void* to = out.mutable_data_ptr();
    const Misalignment misalignment = {misalignment_of(in), misalignment_of(to)};
    const LaunchPlan plan = plan_element_launch(problem, static_cast<int64_t>(x.element_size()), misalignment);
    launch_dtype(Call{problem, in, to, misalignment, plan, context}, x.scalar_type(), Forward{tanh});
  }
  return out;
}

Tensor gelu_spatial_shift_backward(
    const Tensor& grad,
    const Tensor& x,
    IntHeaderOnlyArrayRef offsets,
    std::optional<IntHeaderOnlyArrayRef> group_sizes,
    std::string_view approximate,
    std::string_view padding_mode,
    std::string_view data_format) {
  check_floating_dtype(grad, "grad");
  check_like(x, grad);
  const bool tanh = parse_approximate(approximate);
  Tensor out = new_map_like(x);
  const ShiftProblem problem = make_problem(grad, out, offsets, group_sizes, padding_mode, data_format);
  if (grad.numel() != 0) {
    const LaunchContext context(grad);
    const Tensor at = with_strides_of(x, out);
    const void* in = grad.const_data_ptr();
    void* to = out.mutable_data_ptr();
    // Only the lowest bit that is set counts, so one number speaks for both inputs.
    const Misalignment misalignment = {misalignment_of(in) | misalignment_of(at.const_data_ptr()), misalignment_of(to)};
    const LaunchPlan plan = plan_element_launch(problem, static_cast<int64_t>(grad.element_size()), misalignment);
    launch_dtype(Call{problem, in, to, misalignment, plan, context}, grad.scalar_type(),
                 Backward{at.const_data_ptr(), tanh});
  }
  return out;
}

}  // namespace
}  // namespace s2mlp

STABLE_TORCH_LIBRARY_IMPL(S2MLP_LIBRARY, S2MLP_DISPATCH_KEY, m) {
  m.impl("gelu_spatial_shift", S2MLP_BOX(&s2mlp::gelu_spatial_shift));
  m.impl("gelu_spatial_shift_backward", S2MLP_BOX(&s2mlp::gelu_spatial_shift_backward));
}
