// spatial_shift and its adjoint on a CPU. How a map is walked is in shift_map.h.
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "../box.h"
#include "../library.h"
#include "../shift_arguments.h"
#include "shift_map.h"

namespace s2mlp {
namespace {

template <typename T>
void run_forward(const ShiftProblem& problem, const Tensor& in, const Tensor& out) {
  shift_forward(problem, static_cast<const T*>(in.const_data_ptr()), static_cast<T*>(out.mutable_data_ptr()));
}

template <typename T>
void run_adjoint(const ShiftProblem& problem, const Tensor& in, const Tensor& out) {
  shift_adjoint(problem, static_cast<const T*>(in.const_data_ptr()), static_cast<T*>(out.mutable_data_ptr()));
}

Tensor spatial_shift(
    const Tensor& x,
    IntHeaderOnlyArrayRef offsets,
    std::optional<IntHeaderOnlyArrayRef> group_sizes,
    std::string_view padding_mode,
    std::string_view data_format) {
  check_forward_dtype(x);
  Tensor out = new_map_like(x);
  const ShiftProblem problem = make_problem(x, out, offsets, group_sizes, padding_mode, data_format);
  if (x.numel() == 0) {
    return out;
  }
  switch (x.element_size()) {
    case 1:
      run_forward<uint8_t>(problem, x, out);
      break;
    case 2:
      run_forward<uint16_t>(problem, x, out);
      break;
    case 4:
      run_forward<uint32_t>(problem, x, out);
      break;
    default:
      run_forward<uint64_t>(problem, x, out);
  }
  return out;
}

Tensor spatial_shift_backward(
    const Tensor& grad,
    IntHeaderOnlyArrayRef offsets,
    std::optional<IntHeaderOnlyArrayRef> group_sizes,
    std::string_view padding_mode,
    std::string_view data_format) {
  check_floating_dtype(grad, "grad");
  Tensor out = new_map_like(grad);
  const ShiftProblem problem = make_problem(grad, out, offsets, group_sizes, padding_mode, data_format);
  if (grad.numel() == 0) {
    return out;
  }
  switch (grad.scalar_type()) {
    case ScalarType::Double:
      run_adjoint<double>(problem, grad, out);
      break;
    case ScalarType::Float:
      run_adjoint<float>(problem, grad, out);
      break;
    case ScalarType::Half:
      run_adjoint<torch::headeronly::Half>(problem, grad, out);
      break;
    default:
      run_adjoint<torch::headeronly::BFloat16>(problem, grad, out);
  }
  return out;
}

}  // namespace
}  // namespace s2mlp

STABLE_TORCH_LIBRARY_IMPL(S2MLP_LIBRARY, CPU, m) {
  m.impl("spatial_shift", S2MLP_BOX(&s2mlp::spatial_shift));
  m.impl("spatial_shift_backward", S2MLP_BOX(&s2mlp::spatial_shift_backward));
}
