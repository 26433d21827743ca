// CPU kernels of gelu_spatial_shift and its backward op: those of spatial_shift, fused with GELU or with the product with GELU'.
#include "../library.h"
#include "../shift_ops.h"
#include "shift_map.h"

namespace s2mlp {
namespace {

// Calls use(T{}, std::bool_constant<tanh>{}): kernels are compiled per approximation.
template <typename Use>
void with_kernel(const Tensor& tensor, bool tanh, const Use& use) {
  with_floating_type(tensor, [&](auto element) { tanh ? use(element, std::true_type{}) : use(element, std::false_type{}); });
}

struct Cpu {
  static void gelu_spatial_shift(const ShiftProblem& problem, const Tensor& x, const Tensor& out, bool tanh) {
    with_kernel(x, tanh, [&](auto element, auto tanh) {
      using T = decltype(element);
      shift_map<false>(problem, data<T>(x), mutable_data<T>(out), Epilogue<T, Gelu<decltype(tanh)>>{{tanh}});
    });
  }

  // x has the strides of out.
  static void gelu_spatial_shift_backward(
      const ShiftProblem& problem, const Tensor& grad, const Tensor& x, const Tensor& out, bool tanh) {
    with_kernel(x, tanh, [&](auto element, auto tanh) {
      using T = decltype(element);
      T* begin = mutable_data<T>(out);
      shift_map<true>(problem, data<T>(grad), begin, Epilogue<T, TimesGeluSlope<decltype(tanh)>>{{tanh}, begin, data<T>(x)});
    });
  }
};

}  // namespace
}  // namespace s2mlp

STABLE_TORCH_LIBRARY_IMPL(S2MLP_LIBRARY, CPU, m) { S2MLP_IMPLEMENT_GELU_SPATIAL_SHIFT(m, s2mlp::Cpu); }
