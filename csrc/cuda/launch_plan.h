// The choice of the kernel and of the bytes per access. It depends on sizes and strides only, so that it can be tested without a
// GPU and for maps larger than any memory.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../shift_problem.h"
#include "block_shape.h"
#include "divide.h"
#include "element_problem.h"
#include "kernel_groups.h"
#include "plane_problem.h"
#include "token_problem.h"

namespace s2mlp {

constexpr int kVectorBytes = 16;  // the widest access
constexpr int kItemsPerThread = 4;  // with their loads in flight together
constexpr int kElementItemsPerThread = 2;  // the same, for items with two loads or of a single element

enum class ShiftKernel : int32_t {
  kTokens,  // channels innermost: `vector` channels of a token per access
  kPlanes,  // width innermost, dense planes
  kElements,  // anything else
  kTooLarge,
};

// The addresses of the tensors modulo 16 bytes.
struct Misalignment {
  int in;
  int out;  // of the output and of tensors with its strides
};

struct LaunchPlan {
  ShiftKernel kernel;
  int vector;
};

// Channels per access: the largest power of two, of at most 16 bytes, that divides their number, all strides and both base
// addresses.
inline int vector_channels(const ShiftProblem& p, int64_t element_size, const Misalignment& misalignment) {
  if (p.channel.in_stride != 1 || p.channel.out_stride != 1) {
    return 1;
  }
  int64_t bits = kVectorBytes / element_size | misalignment.in / element_size | misalignment.out / element_size | p.channel.size;
  const auto add_axis = [&](const Axis& axis) {
    if (axis.size > 1) {
      bits |= axis.in_stride | axis.out_stride;
    }
  };
  add_axis(p.height);
  add_axis(p.width);
  for (const Axis& axis : p.leading) {
    add_axis(axis);
  }
  return static_cast<int>(bits & -bits);
}

// The limit of 32-bit counters. A block advances by less than 2^25 rows before it checks for the end.
constexpr int64_t kCountLimit = (int64_t{1} << 31) - (int64_t{1} << 25);
constexpr int64_t kOffsetLimit = int64_t{1} << 31;
// The longest axis whose positions can be shifted in 32 bits: the arithmetic of shift_geometry.h takes sums of two sizes.
constexpr int64_t kAxisLimit = int64_t{1} << 30;

inline bool fits_axes(const ShiftProblem& p) { return std::max(p.height.size, p.width.size) <= kAxisLimit; }

// Whether the rows and columns of one image span less than 2 GiB, and tokens and channels can be counted in 32 bits.
inline bool fits_tokens(const ShiftProblem& p, int64_t element_size) {
  const auto span = [&](int64_t Axis::* stride) {
    const auto of_axis = [&](const Axis& axis) { return (axis.size - 1) * axis.*stride; };
    return (of_axis(p.height) + of_axis(p.width) + of_axis(p.channel) + 1) * element_size;
  };
  return fits_axes(p) && p.leading.size() <= kMaxLeadingAxes && p.leading_size * p.height.size * p.width.size < kCountLimit &&
      p.channel.size < kCountLimit && span(&Axis::in_stride) < kOffsetLimit && span(&Axis::out_stride) < kOffsetLimit;
}

// Whether rows are contiguous in both tensors, and planes are contiguous in the output.
inline bool has_dense_planes(const ShiftProblem& p) {
  const int64_t plane = p.height.size * p.width.size;
  const bool dense_rows = (p.width.size == 1 || (p.width.in_stride == 1 && p.width.out_stride == 1)) &&
      (p.height.size == 1 || (p.height.in_stride == p.width.size && p.height.out_stride == p.width.size));
  const bool dense_output = (p.channel.size == 1 || p.channel.out_stride == plane) &&
      (p.leading.empty() || (p.leading.size() == 1 && p.leading[0].out_stride == plane * p.channel.size));
  return dense_rows && dense_output;
}

// Whether the planes of a period belong to two images at most and span less than 2 GiB, and planes can be counted in 32 bits.
inline bool fits_planes(const ShiftProblem& p, int64_t element_size) {
  const int64_t planes = period_planes_of(p, element_size);
  const int64_t next_image = p.leading.empty() ? 0 : std::abs(p.leading[0].in_stride - p.channel.size * p.channel.in_stride);
  const int64_t span = planes * std::max(p.channel.in_stride, p.height.size * p.width.size) + (planes > 1 ? next_image : 0);
  return fits_axes(p) && (p.leading.empty() || planes <= p.channel.size + 1) && p.leading_size * p.channel.size < kCountLimit &&
      p.groups.size() <= kMaxGroups && span * element_size < kOffsetLimit;
}

inline bool fits_elements(const ShiftProblem& p) {
  const int64_t inner = p.channels_innermost() ? p.channel.size : p.width.size;
  return fits_axes(p) && p.elements() / inner < kCountLimit && p.leading.size() <= kMaxLeading && p.channel.size < kCountLimit;
}

// The vector size of kernels that compute with elements. float64 takes longer to compute than to load: one element at a time.
constexpr int widest_computed(int64_t element_size) { return element_size < 8 ? static_cast<int>(kVectorBytes / element_size) : 1; }

template <typename T>
constexpr int kWidestComputed = widest_computed(sizeof(T));

// `computed`: an epilogue computes with the elements (GELU). Its kernels exist for full vectors of channels and for single
// channels.
inline LaunchPlan plan_launch(const ShiftProblem& p, int64_t element_size, const Misalignment& misalignment, bool computed) {
  if (p.channels_innermost() && fits_tokens(p, element_size)) {
    const int vector = vector_channels(p, element_size, misalignment);
    const int widest = widest_computed(element_size);
    return {ShiftKernel::kTokens, !computed ? vector : (vector >= widest ? widest : 1)};
  }
  const bool planes = has_dense_planes(p) && misalignment.out == 0 && !(computed && widest_computed(element_size) == 1);
  if (!p.channels_innermost() && planes && fits_planes(p, element_size)) {
    return {ShiftKernel::kPlanes, item_elements(element_size)};
  }
  return {fits_elements(p) ? ShiftKernel::kElements : ShiftKernel::kTooLarge, 1};
}

}  // namespace s2mlp
