// Neighbouring elements that are read and written at once, with the alignment that this requires.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "launch.h"

namespace s2mlp {

template <typename T, int kVector>
struct alignas(sizeof(T) * kVector) VectorOf {
  T values[kVector];
};

// A loaded vector: 32-bit words, which are unpacked where they are used. (The compiler would unpack bfloat16 vectors at once, into
// twice the registers.)
template <typename T, int kVector>
using Packed = std::conditional_t<kVector == 1, VectorOf<T, 1>, uint4>;

template <typename T, int kVector>
__device__ Packed<T, kVector> load_packed(const VectorOf<T, kVector>* from) {
  return *reinterpret_cast<const Packed<T, kVector>*>(from);
}

template <typename T, int kVector>
__device__ VectorOf<T, kVector> unpack(const Packed<T, kVector>& packed) {
  VectorOf<T, kVector> vector;
  memcpy(&vector, &packed, sizeof(vector));
  return vector;
}

// Calls use(std::integral_constant<int, vector>{}) for one of the vector sizes that kernels are compiled for.
template <int kFirst, int... kRest, typename Use>
void with_vector(int vector, const Use& use) {
  if (vector == kFirst) {
    use(std::integral_constant<int, kFirst>{});
  } else if constexpr (sizeof...(kRest) > 0) {
    with_vector<kRest...>(vector, use);
  } else {
    STD_TORCH_CHECK(false, "s2mlp_cuda has no kernel for vectors of ", vector, " elements");
  }
}

// The same for all powers of two up to kFull.
template <int kFull, typename Use>
void with_vector_up_to(int vector, const Use& use) {
  if constexpr (kFull > 1) {
    vector == kFull ? use(std::integral_constant<int, kFull>{}) : with_vector_up_to<kFull / 2>(vector, use);
  } else {
    with_vector<1>(vector, use);
  }
}

inline int misalignment_of(const void* pointer) { return static_cast<int>(reinterpret_cast<uintptr_t>(pointer) % kVectorBytes); }

}  // namespace s2mlp
