// Vectors of float (or double), and conversions of elements to and from them. Uses the compiler's vector extensions: arithmetic,
// comparisons and ?: are element-wise.
//
// Memory is accessed through unaligned vector types, and bits are reinterpreted by casts between vector types. std::memcpy into a
// struct of vectors would be slower: g++ 12 loads 32 bytes as two halves, stores them to the stack and reloads them, which defeats
// store forwarding.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../accumulator.h"
#include "instruction_sets.h"

namespace s2mlp {

template <typename Number, int kLanes>
struct VectorType {
  typedef Number type __attribute__((vector_size(sizeof(Number) * kLanes)));
};

template <typename Vector>
S2MLP_INLINE inline Vector load_vector(const void* from) {
  typedef Vector Unaligned __attribute__((aligned(1), may_alias));
  return *static_cast<const Unaligned*>(from);
}

// Streaming stores require aligned addresses.
template <Stores kStores = Stores::kCached, typename Vector>
S2MLP_INLINE inline void store_vector(void* to, const Vector& vector) {
#if defined(__x86_64__)
  if constexpr (kStores == Stores::kStreaming) {
    auto* const whole = static_cast<Vector*>(to);
    if constexpr (sizeof(Vector) == 16) {
      asm volatile("movntdq %1, %0" : "=m"(*whole) : "x"(vector));
    } else {
      asm volatile("vmovntdq %1, %0" : "=m"(*whole) : "v"(vector));
    }
    return;
  }
#endif
  typedef Vector Unaligned __attribute__((aligned(1), may_alias));
  *static_cast<Unaligned*>(to) = vector;
}

// Elements of type T, converted to accumulator_t<T>, in vector registers of kBytes. A step holds kStep elements as kParts vectors.
// bfloat16 uses two: the even and the odd elements, which are the low and the high halves of 32-bit words, so that no element
// changes lanes.
template <typename T, int kBytes>
struct Lanes {
  using Acc = accumulator_t<T>;
  static constexpr int kCount = kBytes / sizeof(Acc);
  static constexpr bool kPairs = std::is_same_v<T, torch::headeronly::BFloat16>;
  static constexpr bool kHalf = std::is_same_v<T, torch::headeronly::Half>;
  static constexpr bool kSums = kPairs || kHalf || std::is_same_v<T, Acc>;  // other types are only moved
  static constexpr int kParts = kPairs ? 2 : 1;
  static constexpr int kStep = kParts * kCount;
  using Vector = typename VectorType<Acc, kCount>::type;
  using Words = typename VectorType<uint32_t, kCount>::type;
  using Halves = typename VectorType<uint16_t, kCount>::type;

  struct Step {
    Vector parts[kParts];

    S2MLP_INLINE Step& operator+=(const Step& other) {
      for (int part = 0; part < kParts; ++part) {
        parts[part] += other.parts[part];
      }
      return *this;
    }

    S2MLP_INLINE Step& operator*=(const Step& other) {
      for (int part = 0; part < kParts; ++part) {
        parts[part] *= other.parts[part];
      }
      return *this;
    }

    S2MLP_INLINE Step& operator*=(Acc factor) {
      for (int part = 0; part < kParts; ++part) {
        parts[part] *= factor;
      }
      return *this;
    }
  };

  // Elements in their memory format.
  using Register = std::conditional_t<kPairs || !kSums, Words, std::conditional_t<kHalf, Halves, Vector>>;

  S2MLP_INLINE static Step unpack(const Register& elements) {
    Step step;
    if constexpr (kPairs) {
      step.parts[0] = reinterpret_cast<Vector>(elements << 16);
      step.parts[1] = reinterpret_cast<Vector>(elements & 0xffff0000u);
    } else if constexpr (kHalf) {
      step.parts[0] = from_half(elements);
    } else {
      step.parts[0] = elements;
    }
    return step;
  }

  S2MLP_INLINE static Register pack(const Step& step) {
    if constexpr (kPairs) {
      return (to_bfloat16(step.parts[0]) >> 16) | (to_bfloat16(step.parts[1]) & 0xffff0000u);
    } else if constexpr (kHalf) {
      return to_half(step.parts[0]);
    } else {
      return step.parts[0];
    }
  }

  S2MLP_INLINE static Step load(const T* from) { return unpack(load_vector<Register>(from)); }

  template <Stores kStores = Stores::kCached>
  S2MLP_INLINE static void store(T* to, const Step& step) {
    store_vector<kStores>(to, pack(step));
  }

  // Fewer than kStep elements; the others are zero.
  S2MLP_INLINE static Step load_some(const T* from, int64_t count) {
    T padded[kStep] = {};
    std::memcpy(static_cast<void*>(padded), from, count * sizeof(T));
    return load(padded);
  }

  S2MLP_INLINE static void store_some(T* to, const Step& step, int64_t count) {
    T padded[kStep];
    store(padded, step);
    std::memcpy(static_cast<void*>(to), padded, count * sizeof(T));
  }

 private:
  // Words whose upper half is the nearest bfloat16, ties to even.
  S2MLP_INLINE static Words to_bfloat16(const Vector& v) {
    const Words bits = reinterpret_cast<Words>(v);
    const Words nearest = bits + 0x7fff + ((bits >> 16) & 1);
    return v == v ? nearest : bits | 0x00400000u;
  }

  // AVX2 and AVX-512 have instructions for float16 conversion. Without them: the algorithm of torch::headeronly::Half (M. Dukhan's
  // FP16). Multiplication scales the exponent of normal numbers, infinities and NaN; subtraction normalizes subnormal numbers.
  S2MLP_INLINE static Vector from_half(const Halves& halves) {
#if defined(__x86_64__)
    if constexpr (kBytes > 16) {
      Vector out;
      asm("vcvtph2ps %1, %0" : "=v"(out) : "v"(halves));
      return out;
    }
#endif
    const Words word = __builtin_convertvector(halves, Words) << 16;
    const Words sign = word & 0x80000000u;
    const Words twice = word + word;
    const Vector normal = reinterpret_cast<Vector>((twice >> 4) + (0xe0u << 23)) * 0x1p-112f;
    const Vector subnormal = reinterpret_cast<Vector>((twice >> 17) | (126u << 23)) - 0.5f;
    return reinterpret_cast<Vector>(
        sign | (twice < (1u << 27) ? reinterpret_cast<Words>(subnormal) : reinterpret_cast<Words>(normal)));
  }

  S2MLP_INLINE static Halves to_half(const Vector& v) {
#if defined(__x86_64__)
    if constexpr (kBytes > 16) {
      Halves out;
      asm("vcvtps2ph $0, %1, %0" : "=v"(out) : "v"(v));  // rounds to nearest, ties to even
      return out;
    }
#endif
    const Words word = reinterpret_cast<Words>(v);
    const Words twice = word + word;
    const Words sign = word & 0x80000000u;
    const Words bias = twice & 0xff000000u;
    const Words at_least = Words{} + 0x71000000u;
    const Vector magnitude = reinterpret_cast<Vector>(word & 0x7fffffffu);
    const Vector offset = reinterpret_cast<Vector>(((bias < at_least ? at_least : bias) >> 1) + 0x07800000u);
    const Words bits = reinterpret_cast<Words>(magnitude * 0x1p112f * 0x1p-110f + offset);
    const Words nonsign = ((bits >> 13) & 0x7c00u) + (bits & 0x0fffu);
    return __builtin_convertvector((sign >> 16) | (twice > 0xff000000u ? Words{} + 0x7e00u : nonsign), Halves);
  }
};

// Calls step(Lanes, first, count) for each vector step of a run of `count` elements: with registers of kBytes, then with smaller
// ones for the remainder. The last step may be partial.
template <typename T, int kBytes, typename Step>
S2MLP_INLINE inline void for_each_step(int64_t first, int64_t count, const Step& step) {
  using L = Lanes<T, kBytes>;
  for (; count >= L::kStep; first += L::kStep, count -= L::kStep) {
    step(L{}, first, int64_t{L::kStep});
  }
  if (count == 0) {
    return;
  }
  if constexpr (kBytes > 16) {
    for_each_step<T, kBytes / 2>(first, count, step);
  } else {
    step(L{}, first, count);
  }
}

template <typename L, typename T>
S2MLP_INLINE inline typename L::Step load_step(L, const T* from, int64_t count) {
  return count == L::kStep ? L::load(from) : L::load_some(from, count);
}

template <Stores kStores = Stores::kCached, typename L, typename T>
S2MLP_INLINE inline void store_step(L, T* to, const typename L::Step& step, int64_t count) {
  count == L::kStep ? L::template store<kStores>(to, step) : L::store_some(to, step, count);
}

}  // namespace s2mlp
