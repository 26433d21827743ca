// Maps of any strides: the parameters of one launch, and the offsets of elements. Host and device, like token_problem.h.
//
// The unit of work is a line along the inner axis of the output: channels or width. Offsets have 64 bits; the number of lines and
// the number of elements per line have 31.
#pragma once

#include <cstdint>

#include "block_shape.h"
#include "kernel_groups.h"

namespace s2mlp {

constexpr int kMaxLeading = 31;  // an index of 31 bits has no more axes of size 2 or more

// Strides in bytes.
struct ElementAxis {
  Divider by_size;
  int64_t in_stride;
  int64_t out_stride;
};

struct ElementGroup {
  int32_t channel_begin;
  int32_t dh;
  int32_t dw;
};

struct ElementProblem {
  PaddingMode mode;
  bool channels_innermost;
  int32_t first_channel;  // of the launch
  int32_t channels;
  int32_t height;
  int32_t width;
  ElementAxis row;
  ElementAxis column;
  ElementAxis channel;
  int32_t leading_count;
  ElementAxis leading[kMaxLeading];  // the innermost one last
  BlockShape shape;  // rows are lines, columns are the elements of a line
  int32_t group_count;
  int32_t search_step;
  ElementGroup groups[kMaxGroups];
};

struct ElementPlace {
  int32_t h;
  int32_t w;
  int32_t channel;
  int64_t in;  // the offset of channel and leading axes, without row and column
  int64_t out;  // the offset of the element
};

S2MLP_HOST_DEVICE ElementPlace locate(const ElementProblem& p, int32_t line, int32_t inner) {
  // Lines are numbered by (leading, h, w) or by (leading, channel, h).
  const QuotientRemainder middle = p.channels_innermost ? p.column.by_size(line) : p.row.by_size(line);
  const QuotientRemainder outer = p.channels_innermost ? p.row.by_size(middle.quotient) : p.channel.by_size(middle.quotient);
  ElementPlace place;
  place.h = p.channels_innermost ? outer.remainder : middle.remainder;
  place.w = p.channels_innermost ? middle.remainder : inner;
  place.channel = p.first_channel + (p.channels_innermost ? inner : outer.remainder);
  place.in = place.channel * p.channel.in_stride;
  place.out = place.channel * p.channel.out_stride + place.h * p.row.out_stride + place.w * p.column.out_stride;
  int32_t index = outer.quotient;
#if defined(__CUDACC__)
#pragma unroll 1
#endif
  for (int d = p.leading_count - 1; d >= 0; --d) {
    const QuotientRemainder split = p.leading[d].by_size(index);
    index = split.quotient;
    place.in += split.remainder * p.leading[d].in_stride;
    place.out += split.remainder * p.leading[d].out_stride;
  }
  return place;
}

// Calls use(ElementProblem, Grid) for each launch.
template <typename Use>
void for_each_element_launch(const ShiftProblem& p, int64_t element_size, int items, const DeviceLimits& limits, const Use& use) {
  ElementProblem kernel;
  const auto axis = [&](const Axis& a) {
    return ElementAxis{Divider(a.size), a.in_stride * element_size, a.out_stride * element_size};
  };
  kernel.mode = p.mode;
  kernel.channels_innermost = p.channels_innermost();
  kernel.height = static_cast<int32_t>(p.height.size);
  kernel.width = static_cast<int32_t>(p.width.size);
  kernel.row = axis(p.height);
  kernel.column = axis(p.width);
  kernel.channel = axis(p.channel);
  kernel.leading_count = static_cast<int32_t>(p.leading.size());
  for (int d = 0; d < kernel.leading_count; ++d) {
    kernel.leading[d] = axis(p.leading[d]);
  }
  for_each_slice(p, 1, [&](const TableSlice& slice) {
    const int64_t channels = slice.end - slice.begin;
    kernel.first_channel = static_cast<int32_t>(slice.begin);
    kernel.channels = static_cast<int32_t>(channels);
    kernel.channel.by_size = Divider(channels);
    kernel.group_count = static_cast<int32_t>(slice.last_group - slice.first_group);
    kernel.search_step = search_step_of(kernel.group_count);
    for (int32_t g = 0; g < kernel.group_count; ++g) {
      const ShiftGroup& group = p.groups[slice.first_group + g];
      kernel.groups[g] = {
          static_cast<int32_t>(group.channel_begin), static_cast<int32_t>(group.dh), static_cast<int32_t>(group.dw)};
    }
    const int64_t inner = kernel.channels_innermost ? channels : p.width.size;
    const Grid grid = make_grid(p.leading_size * p.height.size * p.width.size * channels / inner, inner, items, limits);
    kernel.shape = grid.shape;
    use(kernel, grid);
  });
}

}  // namespace s2mlp
