// Element-wise operations that can be fused with a shift. F is a scalar or, on the CPU, a vector. Some operations have a second
// operand: an element of a second map with the strides of the output.
//
// An element-wise operation commutes with a shift, which only moves values. With zero padding this needs op(0) = 0, as for GELU.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "gelu.h"

namespace s2mlp {

// The format that results of type T are rounded to.
template <typename T>
constexpr Precision kPrecisionOf = std::is_same_v<T, torch::headeronly::BFloat16> ? Precision::kBFloat16
    : std::is_same_v<T, torch::headeronly::Half>                                  ? Precision::kFloat16
                                                                                  : Precision::kFloat32;

// The shift alone, which only copies bits.
struct Identity {
  static constexpr bool kHasOperand = false;
};

// Tanh is bool, or std::bool_constant if kernels are compiled per approximation.
template <typename Tanh>
struct Gelu {
  static constexpr bool kHasOperand = false;
  Tanh tanh;

  template <Precision kPrecision, typename F>
  S2MLP_HOST_DEVICE F apply(const F& x) const {
    return tanh ? gelu<true, kPrecision>(x) : gelu<false, kPrecision>(x);
  }
};

// The backward pass: the gradient times GELU' of the input.
template <typename Tanh>
struct TimesGeluSlope {
  static constexpr bool kHasOperand = true;
  Tanh tanh;

  template <Precision kPrecision, typename F>
  S2MLP_HOST_DEVICE F apply(const F& grad, const F& x) const {
    return grad * (tanh ? gelu_slope<true, kPrecision>(x) : gelu_slope<false, kPrecision>(x));
  }
};

// Calls use(operation for one approximation), so that a GPU branches once per vector, not per element.
template <template <typename> typename Op, typename Use>
S2MLP_HOST_DEVICE void with_approximation(const Op<bool>& op, const Use& use) {
  if (op.tanh) {
    use(Op<std::true_type>{});
  } else {
    use(Op<std::false_type>{});
  }
}

}  // namespace s2mlp
