// The multiply-add of address arithmetic.
#pragma once

#include <cstdint>

#include "../shift_geometry.h"

namespace s2mlp {

// a * b + c for non-negative a and b. One instruction on a GPU, which the compiler does not always emit by itself.
S2MLP_HOST_DEVICE uint64_t multiply_add(uint32_t a, uint32_t b, uint64_t c) {
#if defined(__CUDA_ARCH__)
  uint64_t sum;
  asm("mad.wide.u32 %0, %1, %2, %3;" : "=l"(sum) : "r"(a), "r"(b), "l"(c));
  return sum;
#else
  return uint64_t{a} * b + c;
#endif
}

}  // namespace s2mlp
