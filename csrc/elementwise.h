// Element-wise operations that can be fused with a shift. F is a scalar, or on the CPU a vector. Some operations have a second
// operand: an element of a second map with the strides of the output.
//
// An element-wise operation commutes with a shift, which only moves values. With zero padding this needs op(0) = 0, as for GELU.
#pragma once

#include "gelu.h"

namespace s2mlp {

// The shift alone, which moves bits.
struct Identity {
  static constexpr bool kHasOperand = false;
};

// Tanh is bool, or std::bool_constant if kernels are compiled per approximation.
template <typename Tanh, Precision kPrecision = Precision::kFloat32>
struct Gelu {
  static constexpr bool kHasOperand = false;
  Tanh tanh;

  template <typename F>
  S2MLP_HOST_DEVICE F operator()(const F& x) const {
    return tanh ? gelu<true, kPrecision>(x) : gelu<false, kPrecision>(x);
  }
};

// The backward pass: the gradient times GELU' of the input.
template <typename Tanh>
struct TimesGeluSlope {
  static constexpr bool kHasOperand = true;
  Tanh tanh;

  template <typename F>
  S2MLP_HOST_DEVICE F operator()(const F& grad, const F& x) const {
    return grad * (tanh ? gelu_slope<true>(x) : gelu_slope<false>(x));
  }
};

}  // namespace s2mlp
