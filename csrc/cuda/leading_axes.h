// The leading axes of a map as the CUDA kernels take them: at most two that do not merge into one.
#pragma once

#include <cstdint>

#include "../shift_problem.h"
#include "divide.h"

namespace s2mlp {

constexpr size_t kMaxLeadingAxes = 2;

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

// A pair of strides or of offsets, of the input and of the output, in bytes.
struct BytePair {
  int64_t in;
  int64_t out;
};

// Images that do not follow each other as rows do, or that are counted by two axes. Then what image n adds to the offset of its
// rows, counted through all images, is found here.
struct LeadingAxes {
  bool regular;
  BytePair outer;
  BytePair inner;
  Divider<int32_t> by_inner;
};

S2MLP_HOST_DEVICE BytePair image_offsets(const LeadingAxes& leading, int32_t image) {
  const QuotientRemainder<int32_t> split = leading.by_inner(image);
  const uint32_t outer = static_cast<uint32_t>(split.quotient);
  const uint32_t inner = static_cast<uint32_t>(split.remainder);
  return {outer * leading.outer.in + inner * leading.inner.in, outer * leading.outer.out + inner * leading.inner.out};
}

inline LeadingAxes leading_axes(const ShiftProblem& p, int64_t element_size) {
  LeadingAxes leading = {};
  const auto beyond_rows = [&](const Axis& axis, int64_t images) {
    const int64_t rows = images * p.height.size;
    return BytePair{
        (axis.in_stride - rows * p.height.in_stride) * element_size, (axis.out_stride - rows * p.height.out_stride) * element_size};
  };
  leading.by_inner = Divider<int32_t>(p.leading.empty() ? 1 : p.leading.back().size);
  leading.inner = p.leading.empty() ? BytePair{} : beyond_rows(p.leading.back(), 1);
  leading.outer = p.leading.size() < 2 ? BytePair{} : beyond_rows(p.leading[0], p.leading[1].size);
  leading.regular = (leading.inner.in | leading.inner.out | leading.outer.in | leading.outer.out) == 0;
  return leading;
}

}  // namespace s2mlp
