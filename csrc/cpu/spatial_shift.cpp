// spatial_shift and its adjoint on a CPU. How a map is walked is in shift_map.h.
#include "../box.h"
#include "../library.h"
#include "../shift_arguments.h"
#include "dtypes.h"
#include "shift_map.h"

namespace s2mlp {
namespace {

template <typename T>
void run_forward(const ShiftProblem& problem, const Tensor& in, const Tensor& out) {
  shift_map<false>(problem, data<T>(in), output<T>(out));
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
  with_dtype(grad.scalar_type(), [&](auto element) {
    using T = decltype(element);
    shift_map<true>(problem, data<T>(grad), output<T>(out));
  });
  return out;
}

}  // namespace
}  // namespace s2mlp

STABLE_TORCH_LIBRARY_IMPL(S2MLP_LIBRARY, CPU, m) {
  m.impl("spatial_shift", S2MLP_BOX(&s2mlp::spatial_shift));
  m.impl("spatial_shift_backward", S2MLP_BOX(&s2mlp::spatial_shift_backward));
}
