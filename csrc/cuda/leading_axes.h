// The leading axes of a map as a kernel argument: at most two that do not merge into one.
#pragma once

#include <cstdint>

#include "../shift_problem.h"
#include "divide.h"
#include "multiply_add.h"

namespace s2mlp {

constexpr size_t kMaxLeadingAxes = 2;

// Strides or offsets of the input and the output, in bytes.
struct BytePair {
  int64_t in;
  int64_t out;
};

// Nearly all maps are flat: all tokens are one stride apart. For other maps this adds the offsets of the row, counted through all
// images, and of the image. Up to two leading axes that do not merge.
struct LeadingAxes {
  bool flat;
  BytePair row;
  BytePair outer;
  BytePair inner;
  Divider by_inner;
};

S2MLP_HOST_DEVICE BytePair row_and_image_offsets(const LeadingAxes& leading, int32_t row, int32_t image) {
  const QuotientRemainder split = leading.by_inner(image);
  const int64_t r = static_cast<uint32_t>(row);
  const int64_t outer = static_cast<uint32_t>(split.quotient);
  const int64_t inner = static_cast<uint32_t>(split.remainder);
  return {
      r * leading.row.in + outer * leading.outer.in + inner * leading.inner.in,
      r * leading.row.out + outer * leading.outer.out + inner * leading.inner.out};
}

// Offsets in addition to the token's number times the stride of a column.
inline LeadingAxes leading_axes(const ShiftProblem& p, int64_t element_size) {
  LeadingAxes leading = {};
  const auto beyond = [&](const Axis& axis, const Axis& inner, int64_t count) {
    return BytePair{
        (axis.in_stride - count * inner.in_stride) * element_size, (axis.out_stride - count * inner.out_stride) * element_size};
  };
  leading.row = beyond(p.height, p.width, p.width.size);
  leading.by_inner = Divider(p.leading.empty() ? 1 : p.leading.back().size);
  leading.inner = p.leading.empty() ? BytePair{} : beyond(p.leading.back(), p.height, p.height.size);
  leading.outer = p.leading.size() < 2 ? BytePair{} : beyond(p.leading[0], p.height, p.leading[1].size * p.height.size);
  const auto is_zero = [](const BytePair& pair) { return pair.in == 0 && pair.out == 0; };
  leading.flat = is_zero(leading.row) && is_zero(leading.inner) && is_zero(leading.outer);
  return leading;
}

}  // namespace s2mlp
