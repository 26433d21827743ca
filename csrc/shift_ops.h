// spatial_shift, gelu_spatial_shift and their backward ops, except their kernels: argument checks and output allocation. A Backend
// has the kernels for one device type.
#pragma once

#include "box.h"
#include "shift_arguments.h"

namespace s2mlp {

// empty_like(x). For contiguous maps, which are the usual case, it bypasses the dispatcher: this saves about one of the eight
// microseconds of a call.
inline Tensor new_map_like(const Tensor& x) {
  return allocated([&] {
    if (!x.is_contiguous()) {
      return torch::stable::empty_like(x);
    }
    int32_t dtype = 0;
    int32_t device_type = 0;
    AtenTensorHandle handle = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(x.get(), &dtype));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(x.get(), &device_type));
    TORCH_ERROR_CODE_CHECK(
        aoti_torch_empty_strided(x.dim(), x.sizes().data(), x.strides().data(), dtype, device_type, x.get_device_index(), &handle));
    return Tensor(handle);
  });
}

// Checks that the two maps of a backward op have the same shape, dtype and device.
inline void check_like(const Tensor& x, const Tensor& grad) {
  check_with_grad(x, grad);
  bool same = x.dim() == grad.dim();
  for (int64_t d = 0; same && d < x.dim(); ++d) {
    same = x.size(d) == grad.size(d);
  }
  STD_TORCH_CHECK(same, "x and grad must have the same shape");
}

// x itself if it has the strides of `out`, else a copy that does; `out` is empty_like(x).
inline Tensor with_strides_of(const Tensor& x, const Tensor& out) {
  for (int64_t d = 0; d < x.dim(); ++d) {
    if (x.size(d) > 1 && x.stride(d) != out.stride(d)) {
      Tensor copy = allocated([&] { return torch::stable::empty_like(x); });
      torch::stable::copy_(copy, x);
      return copy;
    }
  }
  return x;
}

// Whether to use GELU's tanh approximation.
inline bool parse_approximate(std::string_view name) {
  STD_TORCH_CHECK(name == "none" || name == "tanh", "approximate must be one of 'none', 'tanh', got '", name, "'");
  return name == "tanh";
}

template <typename Backend>
struct ShiftOps {
  static Tensor spatial_shift(
      const Tensor& x,
      IntHeaderOnlyArrayRef offsets,
      std::optional<IntHeaderOnlyArrayRef> group_sizes,
      std::string_view padding_mode,
      std::string_view data_format) {
    check_readable(x, "x");
    Tensor out = new_map_like(x);
    const ShiftProblem problem = make_problem(x, out, offsets, group_sizes, padding_mode, data_format);
    if (x.numel() != 0) {
      Backend::spatial_shift(problem, x, out);
    }
    return out;
  }

  static Tensor spatial_shift_backward(
      const Tensor& grad,
      IntHeaderOnlyArrayRef offsets,
      std::optional<IntHeaderOnlyArrayRef> group_sizes,
      std::string_view padding_mode,
      std::string_view data_format) {
    check_floating(grad, "grad");
    Tensor out = new_map_like(grad);
    const ShiftProblem problem = make_problem(grad, out, offsets, group_sizes, padding_mode, data_format);
    if (grad.numel() != 0) {
      Backend::spatial_shift_backward(problem, grad, out);
    }
    return out;
  }

  static Tensor gelu_spatial_shift(
      const Tensor& x,
      IntHeaderOnlyArrayRef offsets,
      std::optional<IntHeaderOnlyArrayRef> group_sizes,
      std::string_view approximate,
      std::string_view padding_mode,
      std::string_view data_format) {
    check_floating(x, "x");
    const bool tanh = parse_approximate(approximate);
    Tensor out = new_map_like(x);
    const ShiftProblem problem = make_problem(x, out, offsets, group_sizes, padding_mode, data_format);
    if (x.numel() != 0) {
      Backend::gelu_spatial_shift(problem, x, out, tanh);
    }
    return out;
  }

  static Tensor gelu_spatial_shift_backward(
      const Tensor& grad,
      const Tensor& x,
      IntHeaderOnlyArrayRef offsets,
      std::optional<IntHeaderOnlyArrayRef> group_sizes,
      std::string_view approximate,
      std::string_view padding_mode,
      std::string_view data_format) {
    check_floating(grad, "grad");
    check_like(x, grad);
    const bool tanh = parse_approximate(approximate);
    Tensor out = new_map_like(x);
    const ShiftProblem problem = make_problem(grad, out, offsets, group_sizes, padding_mode, data_format);
    if (grad.numel() != 0) {
      Backend::gelu_spatial_shift_backward(problem, grad, with_strides_of(x, out), out, tanh);
    }
    return out;
  }
};

// Each registers an op and its backward op for a backend; `m` is the library of its dispatch key.
#define S2MLP_IMPLEMENT_SPATIAL_SHIFT(m, Backend)                               \
  m.impl("spatial_shift", S2MLP_BOX(&s2mlp::ShiftOps<Backend>::spatial_shift)); \
  m.impl("spatial_shift_backward", S2MLP_BOX(&s2mlp::ShiftOps<Backend>::spatial_shift_backward))
#define S2MLP_IMPLEMENT_GELU_SPATIAL_SHIFT(m, Backend)                                    \
  m.impl("gelu_spatial_shift", S2MLP_BOX(&s2mlp::ShiftOps<Backend>::gelu_spatial_shift)); \
  m.impl("gelu_spatial_shift_backward", S2MLP_BOX(&s2mlp::ShiftOps<Backend>::gelu_spatial_shift_backward))

}  // namespace s2mlp
