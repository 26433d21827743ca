// GELU and its derivative: exact, GELU(x) = x * Phi(x), and the tanh approximation. For a scalar on the host or the device or,
// on the host, for a vector of floats (cpu/lanes.h), with the same branch-free code.
//
// Both are symmetric. With t = |x| and tail(t) the weight of the negative side, which is 1 - Phi(t) for the exact GELU,
//
//     GELU(x) = max(x, 0) - t * tail(t)        GELU'(x) = x > 0 ? 1 - d(t) : d(t),  d = tail + t * tail'
//
// There is no cancellation for negative x, where x * (1 + erf(x / sqrt 2)) / 2 loses all digits. In float32 the exact tail is
// exp(-t^2 / 2) times half the scaled complementary error function. That function is smooth, and approximated by a polynomial of
// degree 8 in 1 / (1 + 0.34 t), with a relative error of 2.3e-8, fitted by iteratively reweighted least squares over 0 <= t <= 13.
// For bfloat16, whose half unit in the last place is 2e-3, GELU uses shorter polynomials, with a total relative error of 1.1e-4,
// and with AVX-512 an approximate reciprocal. The derivative does not: it is near 1 for half of all inputs, and would not always
// be rounded to nearest.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "shift_geometry.h"

namespace s2mlp {

constexpr double kInverseSqrt2Pi = 0.39894228040143267794;
constexpr double kInverseSqrt2 = 0.70710678118654752440;
constexpr double kLog2E = 1.44269504088896340736;
constexpr double kTanhScale = 1.59576912160573071176;  // 2 * sqrt(2 / pi)
constexpr double kTanhCube = 0.044715;

// The same bits as another type. For vectors this is a cast, which keeps them in registers (cpu/lanes.h).
template <typename To, typename From>
S2MLP_HOST_DEVICE To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  if constexpr (std::is_arithmetic_v<From>) {
    To to;
    std::memcpy(&to, &from, sizeof(to));
    return to;
  } else {
    return reinterpret_cast<To>(from);
  }
}

// The format that the result is rounded to.
enum class Precision { kFloat32, kBFloat16 };

// A constant, in every lane if F is a vector.
template <typename F>
S2MLP_HOST_DEVICE F constant(float value) {
  return F{} + value;
}

// 2^y for -127 <= y <= 0. On the host, the result for -127 is zero.
template <Precision kPrecision, typename F>
S2MLP_HOST_DEVICE F exp2_of_negative(const F& y) {
#if defined(__CUDA_ARCH__)
  return exp2f(y);
#else
  using Bits = std::conditional_t<std::is_arithmetic_v<F>, uint32_t, decltype(y < y)>;
  constexpr float kRound = 12582912.0f + 127;  // adding 1.5 * 2^23 rounds to an integer in the low bits; 127 is the exponent bias
  const F rounded = y + kRound;
  const F power = bit_cast<F>(bit_cast<Bits>(rounded) << 23);
  const F f = y - (rounded - kRound);
  F sum;  // 2^f over -1/2 <= f <= 1/2
  if constexpr (kPrecision == Precision::kBFloat16) {
    sum = f * 5.51717671e-2f + 2.42611580e-1f;  // relative error 7.5e-5
    sum = sum * f + 6.93261009e-1f;
    sum = sum * f + 9.99928047e-1f;
  } else {
    sum = f * 1.32763748e-3f + 9.67553333e-3f;  // relative error 7.5e-8
    sum = sum * f + 5.55071347e-2f;
    sum = sum * f + 2.40221199e-1f;
    sum = sum * f + 6.93146967e-1f;
    sum = sum * f + 1.00000007f;
  }
  return sum * power;
#endif
}

template <Precision kPrecision, typename F>
S2MLP_HOST_DEVICE F reciprocal(const F& x) {
#if defined(__CUDA_ARCH__)
  return __fdividef(1.0f, x);
#else
#if defined(__x86_64__)
  if constexpr (kPrecision == Precision::kBFloat16 && sizeof(F) == 64) {
    F estimate;  // relative error 6.1e-5; a division takes several times longer with 512-bit registers
    asm("vrcp14ps %1, %0" : "=v"(estimate) : "v"(x));
    return estimate;
  }
#endif
  return 1.0f / x;
#endif
}

// a < b ? a : b and a > b ? a : b; b if either is NaN. From vectors the compiler would generate a comparison and a blend.
template <typename F>
S2MLP_HOST_DEVICE F lesser(const F& a, const F& b) {
#if defined(__x86_64__) && !defined(__CUDACC__)
  if constexpr (sizeof(F) >= 32) {
    F out;
    asm("vminps %2, %1, %0" : "=v"(out) : "v"(a), "v"(b));
    return out;
  }
#endif
  return a < b ? a : b;
}

template <typename F>
S2MLP_HOST_DEVICE F greater(const F& a, const F& b) {
#if defined(__x86_64__) && !defined(__CUDACC__)
  if constexpr (sizeof(F) >= 32) {
    F out;
    asm("vmaxps %2, %1, %0" : "=v"(out) : "v"(a), "v"(b));
    return out;
  }
#endif
  return a > b ? a : b;
}

template <typename F>
S2MLP_HOST_DEVICE F absolute(const F& x) {
  if constexpr (std::is_arithmetic_v<F>) {
    return std::fabs(x);
  } else {
    return bit_cast<F>(bit_cast<decltype(x < x)>(x) & 0x7fffffff);
  }
}

// tail(t) and d(t) for t >= 0.
template <typename F>
struct GeluSides {
  F tail;
  F slope;
};

template <bool kTanh, Precision kPrecision, typename F>
S2MLP_HOST_DEVICE GeluSides<F> gelu_sides(const F& t) {
  const F square = t * t;
  F power;
  if constexpr (kTanh) {
    power = t * static_cast<float>(-kLog2E * kTanhScale) * (square * static_cast<float>(kTanhCube) + 1.0f);
  } else {
    power = square * static_cast<float>(-kLog2E / 2);
  }
  const F least = constant<F>(-127.0f);  // below, tails would be subnormal
  const F e = exp2_of_negative<kPrecision, F>(greater(power, least));
  if constexpr (kTanh) {
    const F tail = e * reciprocal<kPrecision, F>(e + 1.0f);
    const F derivative = square * static_cast<float>(3 * kTanhCube * kTanhScale) + static_cast<float>(kTanhScale);
    return {tail, tail * (1.0f - t * (1.0f - tail) * derivative)};
  } else {
    constexpr float kSlope = kPrecision == Precision::kBFloat16 ? 0.38f : 0.34f;
    const F u = reciprocal<kPrecision, F>(t * kSlope + 1.0f);
    F sum;
    if constexpr (kPrecision == Precision::kBFloat16) {
      sum = u * -8.99266842e-2f + 1.88872751e-1f;  // relative error 3.5e-5
      sum = sum * u + 9.19826589e-2f;
      sum = sum * u + 1.57828528e-1f;
      sum = sum * u + 1.51225243e-1f;
    } else {
      const F v = 1.0f - u * 2.0f;
      sum = v * -1.04008701e-4f - 2.76343810e-4f;
      sum = sum * v + 5.05028060e-4f;
      sum = sum * v + 2.11714860e-3f;
      sum = sum * v - 4.21726750e-3f;
      sum = sum * v - 1.34993214e-2f;
      sum = sum * v + 7.44859725e-2f;
      sum = sum * v - 1.70532435e-1f;
      sum = sum * v + 2.47139320e-1f;
    }
    const F scaled = u * sum;
    return {e * scaled, e * (scaled - t * static_cast<float>(kInverseSqrt2Pi))};
  }
}

template <bool kTanh, Precision kPrecision>
S2MLP_HOST_DEVICE GeluSides<double> gelu_sides(double t) {
  if (kTanh) {
    const double e = std::exp(-kTanhScale * t * (1 + kTanhCube * t * t));
    const double tail = e / (1 + e);
    return {tail, tail * (1 - t * (1 - tail) * kTanhScale * (1 + 3 * kTanhCube * t * t))};
  }
  const double tail = 0.5 * std::erfc(t * kInverseSqrt2);
  return {tail, tail - t * kInverseSqrt2Pi * std::exp(-0.5 * t * t)};
}

// |x|, clamped where GELU no longer differs from max(x, 0), so that infinity times zero cannot occur. Propagates NaN.
template <typename F>
S2MLP_HOST_DEVICE F gelu_argument(const F& x) {
  const F t = absolute(x);
  const F end = constant<F>(std::is_same_v<F, double> ? 64.0f : 16.0f);
  return lesser(end, t);
}

template <bool kTanh, Precision kPrecision = Precision::kFloat32, typename F>
S2MLP_HOST_DEVICE F gelu(const F& x) {
  const F t = gelu_argument(x);
  return greater(x, constant<F>(0.0f)) - t * gelu_sides<kTanh, kPrecision>(t).tail;
}

template <bool kTanh, typename F>
S2MLP_HOST_DEVICE F gelu_slope(const F& x) {
  const F slope = gelu_sides<kTanh, Precision::kFloat32>(gelu_argument(x)).slope;
  return x > 0 ? 1 - slope : slope;
}

}  // namespace s2mlp
