// The multiplication of which addresses are made.
#pragma once

#include <cstdint>

#include "../shift_geometry.h"

namespace s2mlp {

// a * b + c for a and b that are not negative. One instruction of a GPU, which the compiler would not always find.
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
