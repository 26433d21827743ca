// Vectors of float (or double) and how elements get into and out of them. The compiler's own vector types: arithmetic,
// comparisons and ?: work lane by lane.
#pragma once

#include <torch/headeronly/util/BFloat16.h>

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

// Elements of type T, computed with in accumulator_t<T>, in registers of kBytes. A step takes kStep elements as kParts
// vectors. bfloat16 takes two: the even and the odd elements, which are the low and the high halves of 32-bit words, so that
// no element ever changes its lane.
template <typename T, int kBytes>
struct Lanes {
  using Wide = accumulator_t<T>;
  static constexpr int kCount = kBytes / sizeof(Wide);
  static constexpr bool kPairs = std::is_same_v<T, torch::headeronly::BFloat16>;
  static constexpr int kParts = kPairs ? 2 : 1;
  static constexpr int kStep = kParts * kCount;
  using Vector = typename VectorType<Wide, kCount>::type;
  using Words = typename VectorType<uint32_t, kCount>::type;

  struct Step {
    Vector parts[kParts];
  };

  S2MLP_INLINE static Step load(const T* from) {
    Step step;
    if constexpr (std::is_same_v<T, Wide>) {
      std::memcpy(&step, from, sizeof(step));
    } else if constexpr (kPairs) {
      Words words;
      std::memcpy(&words, from, sizeof(words));
      const Words even = words << 16;
      const Words odd = words & 0xffff0000u;
      std::memcpy(&step.parts[0], &even, sizeof(even));
      std::memcpy(&step.parts[1], &odd, sizeof(odd));
    } else {
      for (int i = 0; i < kCount; ++i) {
        step.parts[0][i] = static_cast<Wide>(from[i]);
      }
    }
    return step;
  }

  S2MLP_INLINE static void store(T* to, const Step& step) {
    if constexpr (std::is_same_v<T, Wide>) {
      std::memcpy(to, &step, sizeof(step));
    } else if constexpr (kPairs) {
      const Words words = (rounded(step.parts[0]) >> 16) | (rounded(step.parts[1]) & 0xffff0000u);
      std::memcpy(to, &words, sizeof(words));
    } else {
      for (int i = 0; i < kCount; ++i) {
        to[i] = static_cast<T>(step.parts[0][i]);
      }
    }
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
  // Bits whose upper half is the nearest bfloat16, ties to even.
  S2MLP_INLINE static Words rounded(const Vector& v) {
    Words bits;
    std::memcpy(&bits, &v, sizeof(v));
    const Words nearest = bits + 0x7fff + ((bits >> 16) & 1);
    return v == v ? nearest : bits | 0x00400000u;
  }
};

// step(Lanes, first, count) for each vector step of a run of `count` elements, in registers of kBytes and then, for what is
// left, in smaller ones; the last step may have less than a full one.
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

template <typename L, typename T>
S2MLP_INLINE inline void store_step(L, T* to, const typename L::Step& step, int64_t count) {
  count == L::kStep ? L::store(to, step) : L::store_some(to, step, count);
}

}  // namespace s2mlp
