// Several neighbouring elements that are read and written at once, and the alignment that this takes.
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

// A vector as it is loaded: in 32-bit words, which are taken apart where they are used. (The compiler would take bfloat16
// vectors apart at once, into twice the registers.)
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

inline int misalignment_of(const void* pointer) {
  return static_cast<int>(reinterpret_cast<uintptr_t>(pointer) % kVectorBytes);
}

}  // namespace s2mlp
