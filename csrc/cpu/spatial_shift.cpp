// CPU kernels of spatial_shift and its adjoint. shift_map.h has the loops over the map.
#include "../library.h"
#include "../shift_ops.h"
#include "shift_map.h"

namespace s2mlp {
namespace {

struct Cpu {
  static void spatial_shift(const ShiftProblem& problem, const Tensor& x, const Tensor& out) {
    with_word_type(x, [&](auto word) {
      using T = decltype(word);
      shift_map<false>(problem, data<T>(x), mutable_data<T>(out), Epilogue<T, Identity>{});
    });
  }

  static void spatial_shift_backward(const ShiftProblem& problem, const Tensor& grad, const Tensor& out) {
    with_floating_type(grad, [&](auto element) {
      using T = decltype(element);
      shift_map<true>(problem, data<T>(grad), mutable_data<T>(out), Epilogue<T, Identity>{});
    });
  }
};

}  // namespace
}  // namespace s2mlp

STABLE_TORCH_LIBRARY_IMPL(S2MLP_LIBRARY, CPU, m) { S2MLP_IMPLEMENT_SPATIAL_SHIFT(m, s2mlp::Cpu); }
