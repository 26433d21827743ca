// GELU and its slope: exact, GELU(x) = x * Phi(x), and the tanh approximation. For a scalar on the host or the device,
// or, on the host, for a vector of floats (cpu/lanes.h): the same branch-free code.
//
// Both are symmetric: with t = |x| and tail(t) the weight of the negative side, 1 - Phi(t) for exact GELU,
//
//     GELU(x) = max(x, 0) - t * tail(t)        GELU'(x) = x > 0 ? 1 - d(t) : d(t),  d = tail + t * tail'
//
// There is no cancellation for negative x, where x * (1 + erf(x / sqrt 2)) / 2 loses all accuracy. d changes sign at t0 = 0.7518;
// approximations of d have t0 - t as an explicit factor, so that they are accurate there, too.
//
// In float32 and in 16 bits, both are computed from polynomials, fitted by iteratively reweighted least squares. 16-bit results are
// correctly rounded for at least 99.9% of all inputs, with errors below one unit in the last place for the others
// (tests/ops/test_gelu_spatial_shift.py). Results below the smallest normal float32 may be flushed to zero.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "reinterpret_bits.h"
#include "shift_geometry.h"

namespace s2mlp {

constexpr double kInverseSqrt2Pi = 0.39894228040143267794;
constexpr double kInverseSqrt2 = 0.70710678118654752440;
constexpr double kLog2E = 1.44269504088896340736;
constexpr double kTanhScale = 1.59576912160573071176;  // 2 * sqrt(2 / pi)
constexpr double kTanhCube = 0.044715;
constexpr double kSlopeZero = 0.75179152469356445746;  // t0 of exact GELU

// The format that results are rounded to.
enum class Precision { kFloat32, kBFloat16, kFloat16 };

// A constant, broadcast to all lanes if F is a vector.
template <typename F>
S2MLP_HOST_DEVICE F constant(float value) {
  return F{} + value;
}

// c0 + c1 * x + c2 * x^2 + ...
template <typename F>
S2MLP_HOST_DEVICE F polynomial(const F&, float c0) {
  return constant<F>(c0);
}

template <typename F, typename... Floats>
S2MLP_HOST_DEVICE F polynomial(const F& x, float c0, Floats... rest) {
  return polynomial<F>(x, rest...) * x + c0;
}

// c0 + c2 * square + c4 * square^2 + ...
template <typename F>
S2MLP_HOST_DEVICE F every_other(const F&, float c0, float = 0) {
  return constant<F>(c0);
}

template <typename F, typename... Floats>
S2MLP_HOST_DEVICE F every_other(const F& square, float c0, float, float c2, Floats... rest) {
  return every_other<F>(square, c2, rest...) * square + c0;
}

// The same polynomial. On the host, even and odd powers are evaluated separately: one more multiplication, half the latency.
template <typename F, typename... Floats>
S2MLP_HOST_DEVICE F long_polynomial(const F& x, float c0, Floats... rest) {
#if defined(__CUDA_ARCH__)
  return polynomial<F>(x, c0, rest...);
#else
  const F square = x * x;
  return every_other<F>(square, rest...) * x + every_other<F>(square, c0, rest...);
#endif
}

// a < b ? a : b and a > b ? a : b; NaN if b is NaN. In assembly for vectors, because the compiler emits a comparison and a
// selection.
template <typename F>
S2MLP_HOST_DEVICE F lesser(const F& a, const F& b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  if constexpr (std::is_same_v<F, float>) {
    float out;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(out) : "f"(a), "f"(b));
    return out;
  }
#elif defined(__x86_64__) && !defined(__CUDACC__)
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
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  if constexpr (std::is_same_v<F, float>) {
    float out;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(out) : "f"(a), "f"(b));
    return out;
  }
#elif defined(__x86_64__) && !defined(__CUDACC__)
  if constexpr (sizeof(F) >= 32) {
    F out;
    asm("vmaxps %2, %1, %0" : "=v"(out) : "v"(a), "v"(b));
    return out;
  }
#endif
  return a > b ? a : b;
}

// 2^y for y < 128; results below the smallest normal number are flushed to zero. The device's instruction has a relative error of
// 2^-22.
template <Precision kPrecision, typename F>
S2MLP_HOST_DEVICE F exp2_flushed(const F& y) {
#if defined(__CUDA_ARCH__)
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(y));
  return power;
#else
  using Bits = std::conditional_t<std::is_arithmetic_v<F>, uint32_t, decltype(y < y)>;
  constexpr float kRound = 12582912.0f + 127;  // adding 1.5 * 2^23 rounds to an integer, in the low bits; 127 is added to exponents
  const F exponent = greater(constant<F>(-127.0f), y);
  const F rounded = exponent + kRound;
  const F power = reinterpret_bits<F>(reinterpret_bits<Bits>(rounded) << 23);
  const F f = exponent - (rounded - kRound);
  if constexpr (kPrecision == Precision::kBFloat16) {  // 2^f over -1/2 <= f <= 1/2, relative error 7.5e-5
    return polynomial(f, 9.99928047e-1f, 6.93261009e-1f, 2.42611580e-1f, 5.51717671e-2f) * power;
  } else {  // 7.5e-8
    return polynomial(f, 1.00000007f, 6.93146967e-1f, 2.40221199e-1f, 5.55071347e-2f, 9.67553333e-3f, 1.32763748e-3f) * power;
  }
#endif
}

// 1 / x for 2^-126 <= x <= 2^127. The error of the device's instruction is at most one unit in the last place.
template <Precision kPrecision, typename F>
S2MLP_HOST_DEVICE F reciprocal(const F& x) {
#if defined(__CUDA_ARCH__)
  float out;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
#else
#if defined(__x86_64__)
  if constexpr (kPrecision == Precision::kBFloat16 && sizeof(F) == 64) {
    F estimate;  // relative error 6.1e-5; division of 64-byte vectors is several times slower
    asm("vrcp14ps %1, %0" : "=v"(estimate) : "v"(x));
    return estimate;
  }
#endif
  return 1.0f / x;
#endif
}

template <typename F>
S2MLP_HOST_DEVICE F absolute(const F& x) {
  if constexpr (std::is_arithmetic_v<F>) {
    return std::fabs(x);
  } else {
    return reinterpret_bits<F>(reinterpret_bits<decltype(x < x)>(x) & 0x7fffffff);
  }
}

// |x|, clamped where GELU no longer differs from max(x, 0), so that infinity times zero cannot occur. NaN is propagated.
template <typename F>
S2MLP_HOST_DEVICE F gelu_argument(const F& x, float end) {
  return lesser(constant<F>(end), absolute(x));
}

// In float32, the exact tail is exp(-t^2 / 2) times half the scaled complementary error function. The latter is smooth and
// approximated by a polynomial of degree 8 in 1 / (1 + 0.34 t), with a relative error of 2.3e-8 over 0 <= t <= 13.
template <bool kTanh, typename F>
struct GeluFloat32 {
  static constexpr Precision kPrecision = Precision::kFloat32;
  static constexpr float kEnd = 16.0f;

  S2MLP_HOST_DEVICE static F value(const F& x) {
    const F t = gelu_argument(x, kEnd);
    return greater(constant<F>(0.0f), x) - t * tail(t);
  }

  S2MLP_HOST_DEVICE static F slope(const F& x) {
    const F t = gelu_argument(x, kEnd);
    const F d = negative_slope(t);
    const F slope = x > 0 ? 1 - d : d;
#if defined(__CUDACC__) || defined(S2MLP_CUDA_ON_CPU)
    if constexpr (!kTanh) {
      // Near zero, half the error of the device's exponential (at most 2.4e-7) carries over to the slope, for up to 2.8e-7 in
      // total. An odd polynomial of degree 7, whose own error is 1e-8, reduces this to 1.2e-7.
      const F near = x * polynomial(t * t, 7.978844047e-1f, -2.659535408e-1f, 5.972568318e-2f, -8.873429149e-3f) + 0.5f;
      return t < 0.5f ? near : slope;
    }
#endif
    return slope;
  }

 private:
  S2MLP_HOST_DEVICE static F tail(const F& t) {
    const F square = t * t;
    if constexpr (kTanh) {
      const F e = exp_tanh(t, square);
      return e * reciprocal<kPrecision, F>(e + 1.0f);
    } else {
      const F u = reciprocal<kPrecision, F>(t * 0.34f + 1.0f);
      const F scaled = u *
          polynomial(1.0f - u * 2.0f, 2.47139320e-1f, -1.70532435e-1f, 7.44859725e-2f, -1.34993214e-2f, -4.21726750e-3f,
                     2.11714860e-3f, 5.05028060e-4f, -2.76343810e-4f, -1.04008701e-4f);
      return exp_exact(square) * scaled;
    }
  }

  // d(t). For exact GELU, d(t) / ((t0 - t) exp(-t^2 / 2)) is smooth and approximated by a polynomial of degree 7 in 1 / (1 + 0.32
  // t), relative error 1.8e-8. Rounding errors of the factors are relative to |d|, which is at most 0.13 where the slope exceeds 1.
  S2MLP_HOST_DEVICE static F negative_slope(const F& t) {
    const F square = t * t;
    if constexpr (kTanh) {
      const F e = exp_tanh(t, square);
      const F tail = e * reciprocal<kPrecision, F>(e + 1.0f);
      const F derivative = square * static_cast<float>(3 * kTanhCube * kTanhScale) + static_cast<float>(kTanhScale);
      return tail * (1.0f - t * (1.0f - tail) * derivative);
    } else {
      constexpr float kZero = static_cast<float>(kSlopeZero);
      const F to_zero = (kZero - t) + static_cast<float>(kSlopeZero - kZero);
      const F u = reciprocal<kPrecision, F>(t * 0.32f + 1.0f);
      const F ratio = polynomial(
          1.0f - u * 2.0f, 4.758713841e-1f, -1.177563071e-1f, 5.509478226e-2f, -1.623642072e-2f, 1.235265285e-3f, 1.019459451e-3f,
          -1.993992628e-4f, -1.026742902e-4f);
      return to_zero * (exp_exact(square) * ratio);
    }
  }

  S2MLP_HOST_DEVICE static F exp_exact(const F& square) {
    return exp2_flushed<kPrecision, F>(square * static_cast<float>(-kLog2E / 2));
  }

  S2MLP_HOST_DEVICE static F exp_tanh(const F& t, const F& square) {
    return exp2_flushed<kPrecision, F>(
        t * static_cast<float>(-kLog2E * kTanhScale) * (square * static_cast<float>(kTanhCube) + 1.0f));
  }
};

// In 16 bits, polynomials approximate the logarithms of the exact tail and of d(t) / (t0 - t): few instructions, and no reciprocal.
// Both are scaled, so that they are not flushed to zero while their product with t, or t0 - t, is a normal number.
template <bool kTanh, Precision kPrecision, typename F>
struct Gelu16Bits {
  static constexpr bool kShort = kPrecision == Precision::kBFloat16;

  S2MLP_HOST_DEVICE static F value(const F& x) {
#if !defined(__CUDACC__) && !defined(S2MLP_CUDA_ON_CPU)
    if constexpr (kShort && !kTanh) {  // on CPUs, an estimated reciprocal and two shorter polynomials are faster
      const F t = gelu_argument(x, 16.0f);
      const F e = exp2_flushed<kPrecision, F>(t * t * static_cast<float>(-kLog2E / 2));
      const F u = reciprocal<kPrecision, F>(t * 0.38f + 1.0f);
      const F sum = polynomial(u, 1.51225243e-1f, 1.57828528e-1f, 9.19826589e-2f, 1.88872751e-1f, -8.99266842e-2f);  // 3.5e-5
      return greater(constant<F>(0.0f), x) - t * (e * (u * sum));
    }
#endif
    constexpr double kEnd = kShort ? (kTanh ? 10.15 : 13.24) : 5.75;
    const F s = saturated(absolute(x) * static_cast<float>(1 / kEnd));  // t / kEnd; from 1 on, t * tail rounds to zero
    F tail;  // kEnd * tail
    if constexpr (kTanh) {
      const F power = s * s * static_cast<float>(kLog2E * kTanhScale * kTanhCube * kEnd * kEnd * kEnd) +
          static_cast<float>(kLog2E * kTanhScale * kEnd);
      const float log2_end = kShort ? 3.34340782f : 2.52356196f;
      const F e = exp2_flushed<kPrecision, F>(power * s - log2_end);
      tail = reciprocal<kPrecision, F>(e + static_cast<float>(1 / kEnd));
    } else if constexpr (kShort) {  // relative error 1e-5 up to t = 1, 3e-4 up to 8, 1e-3 at the end
      tail = exp2_flushed<kPrecision, F>(long_polynomial(
          s, 2.726827145f, -15.24016666f, -80.46047211f, -124.0636749f, 255.4886017f, -368.2994995f, 341.7420044f, -180.6915436f,
          41.01510620f));
    } else {  // 2e-6 up to t = 1, 1.2e-5 at the end
      tail = exp2_flushed<kPrecision, F>(long_polynomial(
          s, 1.523562193f, -6.618983746f, -15.17564869f, -10.09708309f, 8.597577095f, -4.219457150f, 0.1645165682f, 0.9617482424f,
          -0.3522941768f));
    }
    return greater(constant<F>(0.0f), x) - s * tail;
  }

  // With the host's short exponential and estimated reciprocal, too few results would be correctly rounded: both are those of
  // float32.
  S2MLP_HOST_DEVICE static F slope(const F& x) {
    if constexpr (kTanh) {  // with s = sigmoid(z), GELU = x * s: s * (1 + x * (1 - s) * z')
      constexpr float kEnd = kShort ? 10.25f : 6.5f;
      constexpr float kScale = 1.0f / 256;
      const F y = greater(constant<F>(-kEnd), lesser(constant<F>(kEnd), x));
      const F square = y * y;
      const F power = square * static_cast<float>(-kLog2E * kTanhScale * kTanhCube) - static_cast<float>(kLog2E * kTanhScale);
      const F e = exp2_flushed<Precision::kFloat32, F>(power * y - 8.0f);
      const F s = reciprocal<Precision::kFloat32, F>(e + kScale);  // 256 times the sigmoid
      const F derivative =
          square * static_cast<float>(3 * kTanhCube * kTanhScale * kScale) + static_cast<float>(kTanhScale * kScale);
      return s * (y * derivative * (e * s) + kScale);
    } else {
      constexpr float kEnd = kShort ? 13.4f : 6.3f;
      const F t = gelu_argument(x, kEnd);
      F ratio;  // 16 * d(t) / (t0 - t)
      if constexpr (kShort) {  // relative error 2.6e-4 up to t = 2, 6e-4 up to 8, 1.6e-3 at the end
        ratio = exp2_flushed<Precision::kFloat32, F>(long_polynomial(
            t, 3.411583900f, -3.811789155e-1f, -5.691143870e-1f, -4.425937310e-2f, 8.732918650e-3f, -1.107103773e-3f,
            8.517158130e-5f, -3.593334895e-6f, 6.351656623e-8f));
      } else {  // 3e-6 up to t = 1, 1.6e-5 up to 4, 5e-5 at the end
        ratio = exp2_flushed<Precision::kFloat32, F>(long_polynomial(
            t, 3.411594629f, -3.831562698e-1f, -5.608771443e-1f, -5.444542691e-2f, 1.447817497e-2f, -2.830331447e-3f,
            3.720691311e-4f, -2.878330815e-5f, 9.773305010e-7f));
      }
      const F d = (static_cast<float>(kSlopeZero / 16) - t * (1.0f / 16)) * ratio;
      return x > 0 ? 1 - d : d;
    }
  }

 private:
  // min(x, 1) for x >= 0. NaN may become zero.
  S2MLP_HOST_DEVICE static F saturated(const F& x) {
#if defined(__CUDA_ARCH__)
    return __saturatef(x);
#else
    return lesser(constant<F>(1.0f), x);
#endif
  }
};

template <bool kTanh>
struct GeluFloat64 {
  S2MLP_HOST_DEVICE static double value(double x) {
    const double t = argument(x);
    return (x < 0 ? 0 : x) - t * tail(t);
  }

  S2MLP_HOST_DEVICE static double slope(double x) {
    const double t = argument(x);
    const double tail_t = tail(t);
    const double d = kTanh ? tail_t * (1 - t * (1 - tail_t) * kTanhScale * (1 + 3 * kTanhCube * t * t))
                           : tail_t - t * kInverseSqrt2Pi * std::exp(-0.5 * t * t);
    return x > 0 ? 1 - d : d;
  }

 private:
  S2MLP_HOST_DEVICE static double argument(double x) {
    const double t = std::fabs(x);
    return 64.0 < t ? 64.0 : t;
  }

  S2MLP_HOST_DEVICE static double tail(double t) {
    if (kTanh) {
      const double e = std::exp(-kTanhScale * t * (1 + kTanhCube * t * t));
      return e / (1 + e);
    }
    return 0.5 * std::erfc(t * kInverseSqrt2);
  }
};

template <bool kTanh, Precision kPrecision, typename F>
using GeluOf = std::conditional_t<
    std::is_same_v<F, double>,
    GeluFloat64<kTanh>,
    std::conditional_t<kPrecision == Precision::kFloat32, GeluFloat32<kTanh, F>, Gelu16Bits<kTanh, kPrecision, F>>>;

template <bool kTanh, Precision kPrecision, typename F>
S2MLP_HOST_DEVICE F gelu(const F& x) {
  return GeluOf<kTanh, kPrecision, F>::value(x);
}

template <bool kTanh, Precision kPrecision, typename F>
S2MLP_HOST_DEVICE F gelu_slope(const F& x) {
  return GeluOf<kTanh, kPrecision, F>::slope(x);
}

}  // namespace s2mlp
