// A call of a shift op: sizes, strides and groups, without tensors. Host only and without PyTorch types, so that code that depends
// on it (the CUDA launch plan) can be tested for maps larger than any memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "shift_geometry.h"

namespace s2mlp {

// An axis of the map, with its element strides in input and output.
struct Axis {
  int64_t size;
  int64_t in_stride;
  int64_t out_stride;
};

// Channels [channel_begin, channel_end) move by (dh, dw) tokens; both offsets are reduced.
struct ShiftGroup {
  int64_t channel_begin;
  int64_t channel_end;
  int64_t dh;
  int64_t dw;
};

struct ShiftProblem {
  std::vector<Axis> leading;  // merged if possible; without axes of size 1
  int64_t leading_size;       // product of their sizes
  Axis height;
  Axis width;
  Axis channel;
  std::vector<ShiftGroup> groups;
  PaddingMode mode;

  // Whether the innermost loop of the kernels is over channels, not width: the axis with the smaller output stride is innermost.
  bool channels_innermost() const {
    const Axis& row_or_column = width.size > 1 ? width : height;
    return channel.size > 1 && (row_or_column.size == 1 || channel.out_stride <= row_or_column.out_stride);
  }

  int64_t elements() const { return leading_size * height.size * width.size * channel.size; }
};

// Sets the leading axes of a problem. Their order does not matter to a shift: they are sorted by output stride, so that as many as
// possible can be merged.
inline void add_leading_axes(ShiftProblem& problem, std::vector<Axis> axes) {
  problem.leading.clear();
  problem.leading_size = 1;
  std::stable_sort(axes.begin(), axes.end(), [](const Axis& a, const Axis& b) { return a.out_stride > b.out_stride; });
  for (const Axis& inner : axes) {
    problem.leading_size *= inner.size;
    if (inner.size == 1) {
      continue;
    }
    if (!problem.leading.empty()) {
      Axis& outer = problem.leading.back();
      if (outer.in_stride == inner.in_stride * inner.size && outer.out_stride == inner.out_stride * inner.size) {
        outer = {outer.size * inner.size, inner.in_stride, inner.out_stride};
        continue;
      }
    }
    problem.leading.push_back(inner);
  }
}

}  // namespace s2mlp
