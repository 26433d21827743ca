// Element-wise operations that are fused with a shift: what becomes of each value on its way. F is a number, or on the CPU a vector of
// them. Some have an operand, an element of a second map that lies in memory as the output does.
//
// An element-wise operation commutes with a shift, since both leave the other's work alone.
#pragma once

#include "gelu.h"

namespace s2mlp {

// The bare shift, which moves bits.
struct Identity {
  static constexpr bool kHasOperand = false;
};

// Tanh is bool, or std::bool_constant where kernels are compiled for each approximation.
template <typename Tanh, Precision kPrecision = Precision::kFloat32>
struct Gelu {
  static constexpr bool kHasOperand = false;
  Tanh tanh;

  template <typename F>
  S2MLP_HOST_DEVICE F operator()(const F& x) const {
    return tanh ? gelu<true, kPrecision>(x) : gelu<false, kPrecision>(x);
  }
};

// The adjoint: a gradient times GELU' of the input.
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
