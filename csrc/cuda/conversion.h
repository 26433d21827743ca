// Conversion of the elements of a vector to the accumulator type and back. 16-bit elements are converted as pairs in 32-bit words.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../accumulator.h"
#include "vector_of.h"

#if !defined(S2MLP_CUDA_ON_CPU)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace s2mlp {

template <typename T, int kVector>
struct Accumulators {
  accumulator_t<T> values[kVector];
};

template <typename T, int kVector>
constexpr bool kInWords = sizeof(T) == 2 && kVector > 1;

#if defined(__CUDA_ARCH__)
inline __device__ void round_pair(const float* from, __nv_bfloat162& to) { to = __floats2bfloat162_rn(from[0], from[1]); }
inline __device__ void round_pair(const float* from, __half2& to) { to = __floats2half2_rn(from[0], from[1]); }
#endif

// One instruction per element.
template <typename T, int kVector>
__device__ Accumulators<T, kVector> to_accumulators(const VectorOf<T, kVector>& vector) {
  Accumulators<T, kVector> accumulators;
#pragma unroll
  for (int v = 0; v < kVector; ++v) {
#if defined(__CUDA_ARCH__)
    if constexpr (kInWords<T, kVector> && std::is_same_v<T, torch::headeronly::BFloat16>) {
      uint32_t word;
      memcpy(&word, &vector.values[v / 2 * 2], sizeof(word));
      accumulators.values[v] = __uint_as_float(v % 2 == 0 ? word << 16 : word & 0xffff0000u);
    } else
#endif
    {
      accumulators.values[v] = static_cast<accumulator_t<T>>(vector.values[v]);
    }
  }
  return accumulators;
}

// Rounds to nearest, ties to even: one instruction for two elements.
template <typename T, int kVector>
__device__ VectorOf<T, kVector> to_elements(const Accumulators<T, kVector>& accumulators) {
  VectorOf<T, kVector> vector;
#if defined(__CUDA_ARCH__)
  if constexpr (kInWords<T, kVector>) {
#pragma unroll
    for (int v = 0; v < kVector; v += 2) {
      std::conditional_t<std::is_same_v<T, torch::headeronly::BFloat16>, __nv_bfloat162, __half2> pair;
      round_pair(&accumulators.values[v], pair);
      memcpy(&vector.values[v], &pair, sizeof(pair));
    }
  } else
#endif
  {
#pragma unroll
    for (int v = 0; v < kVector; ++v) {
      vector.values[v] = static_cast<T>(accumulators.values[v]);
    }
  }
  return vector;
}

}  // namespace s2mlp
