// A ShiftProblem as the CUDA kernels take it, by value, and where in it an item of work lies. Host and device: tests walk
// the same functions through maps of more than 2^31 elements.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../shift_problem.h"
#include "divide.h"

namespace s2mlp {

constexpr int kMaxGroups = 64;   // per launch; a table with more groups takes several launches
constexpr int kMaxLeading = 62;  // more axes of size > 1 than that do not fit into a 64-bit element count

template <typename Index>
struct KernelGroup {
  Index channel_begin;
  Index dh;
  Index dw;
};

// Offsets of the group that channel `c` belongs to. Every group is looked at, because reading a kernel's parameters at
// addresses that differ from thread to thread is slow; tables are short.
template <typename Problem, typename Index>
S2MLP_HOST_DEVICE KernelGroup<Index> group_of(const Problem& p, Index c) {
  KernelGroup<Index> group = p.groups[0];
  for (int g = 1; g < p.group_count; ++g) {
    if (c >= p.groups[g].channel_begin) {
      group = p.groups[g];
    }
  }
  return group;
}

// ---- Any strides: an item is `vector` neighbouring channels of a token, or one element --------------------------------

template <typename Index>
struct KernelAxis {
  Index size;
  Index in_stride;
  Index out_stride;
};

template <typename Index>
struct LeadingAxis {
  Divider<Index> by_size;
  Index in_stride;
  Index out_stride;
};

// Channel sizes, numbers and all strides count vectors along the channel axis.
template <typename Index>
struct StridedProblem {
  PaddingMode mode;
  bool channels_innermost;  // items are counted by channel, column, row; otherwise by column, row, channel
  Divider<Index> by_digit[3];
  int32_t group_count;
  int32_t leading_count;
  Index first_channel;
  int64_t items;
  KernelAxis<Index> height;
  KernelAxis<Index> width;
  KernelAxis<Index> channel;  // size: the channels of this launch
  KernelGroup<Index> groups[kMaxGroups];
  LeadingAxis<Index> leading[kMaxLeading];
};

template <typename Index>
struct StridedPlace {
  Index in_offset;   // of the map and the channel
  Index out_offset;  // of the element
  Index h;
  Index w;
  KernelGroup<Index> group;
};

template <typename Index>
S2MLP_HOST_DEVICE StridedPlace<Index> locate(const StridedProblem<Index>& p, Index item) {
  const QuotientRemainder<Index> inner = p.by_digit[0](item);
  const QuotientRemainder<Index> middle = p.by_digit[1](inner.quotient);
  const QuotientRemainder<Index> outer = p.by_digit[2](middle.quotient);
  StridedPlace<Index> place;
  place.h = p.channels_innermost ? outer.remainder : middle.remainder;
  place.w = p.channels_innermost ? middle.remainder : inner.remainder;
  const Index c = (p.channels_innermost ? inner.remainder : outer.remainder) + p.first_channel;
  place.group = group_of(p, c);
  place.in_offset = c * p.channel.in_stride;
  place.out_offset = c * p.channel.out_stride + place.h * p.height.out_stride + place.w * p.width.out_stride;
  Index rest = outer.quotient;
  for (int d = p.leading_count - 1; d >= 0; --d) {
    const QuotientRemainder<Index> split = p.leading[d].by_size(rest);
    rest = split.quotient;
    place.in_offset += split.remainder * p.leading[d].in_stride;
    place.out_offset += split.remainder * p.leading[d].out_stride;
  }
  return place;
}

template <typename Index>
KernelAxis<Index> kernel_axis(const Axis& axis, int vector) {
  return {static_cast<Index>(axis.size), static_cast<Index>(axis.in_stride / vector), static_cast<Index>(axis.out_stride / vector)};
}

// use(StridedProblem) for each slice of the group table, at most kMaxGroups groups at a time.
template <typename Index, typename Use>
void for_each_table(const ShiftProblem& p, int vector, const Use& use) {
  StridedProblem<Index> kernel;
  kernel.mode = p.mode;
  kernel.channels_innermost = p.channels_innermost();
  kernel.leading_count = static_cast<int32_t>(p.leading.size());
  for (int d = 0; d < kernel.leading_count; ++d) {
    const Axis& axis = p.leading[d];
    kernel.leading[d] = {
        Divider<Index>(axis.size), static_cast<Index>(axis.in_stride / vector), static_cast<Index>(axis.out_stride / vector)};
  }
  kernel.height = kernel_axis<Index>(p.height, vector);
  kernel.width = kernel_axis<Index>(p.width, vector);
  const int groups = static_cast<int>(p.groups.size());
  for (int first = 0; first < groups; first += kMaxGroups) {
    kernel.group_count = std::min(kMaxGroups, groups - first);
    for (int g = 0; g < kernel.group_count; ++g) {
      const ShiftGroup& group = p.groups[first + g];
      kernel.groups[g] = {
          static_cast<Index>(group.channel_begin / vector), static_cast<Index>(group.dh), static_cast<Index>(group.dw)};
    }
    const int64_t begin = p.groups[first].channel_begin;
    const int64_t channels = (p.groups[first + kernel.group_count - 1].channel_end - begin) / vector;
    kernel.first_channel = static_cast<Index>(begin / vector);
    // Vectors of more than one channel exist only where channels are neighbours, in the input and in the output.
    kernel.channel = vector > 1 ? kernel_axis<Index>({channels, 1, 1}, 1)
                                : kernel_axis<Index>({channels, p.channel.in_stride, p.channel.out_stride}, 1);
    kernel.by_digit[0] = Divider<Index>(kernel.channels_innermost ? channels : p.width.size);
    kernel.by_digit[1] = Divider<Index>(kernel.channels_innermost ? p.width.size : p.height.size);
    kernel.by_digit[2] = Divider<Index>(kernel.channels_innermost ? p.height.size : channels);
    kernel.items = p.leading_size * p.height.size * p.width.size * channels;
    use(kernel);
  }
}

// ---- Dense planes: an item is 16 bytes of the output, counted through all planes --------------------------------------

template <typename Index>
struct PlaneProblem {
  PaddingMode mode;
  int32_t group_count;
  int32_t misalignment;  // elements between the 16-byte boundary before the input and its first element
  Index height;
  Index width;
  Index plane_size;
  Divider<Index> by_plane;
  Divider<Index> by_width;
  Divider<Index> by_channel;
  Index channel_stride;  // of the input; the output's planes follow each other
  Index leading_stride;
  Index in_extent;  // elements from the input's first to its last, both included
  Index elements;
  int64_t items;
  KernelGroup<Index> groups[kMaxGroups];
};

template <typename Index>
struct PlanePlace {
  Index in_offset;  // of the plane
  Index h;
  Index w;
  KernelGroup<Index> group;
};

template <typename Index>
S2MLP_HOST_DEVICE PlanePlace<Index> locate(const PlaneProblem<Index>& p, Index element) {
  const QuotientRemainder<Index> plane = p.by_plane(element);
  const QuotientRemainder<Index> row = p.by_width(plane.remainder);
  const QuotientRemainder<Index> channel = p.by_channel(plane.quotient);
  return {
      channel.quotient * p.leading_stride + channel.remainder * p.channel_stride, row.quotient, row.remainder,
      group_of(p, channel.remainder)};
}

// The aligned 16-byte chunks of the input that hold what an item's elements read when they are simply shifted. Counted in
// elements from the 16-byte boundary before the input.
template <typename Index>
struct ChunkRead {
  Index begin;     // of the first chunk
  int32_t rest;    // elements of it to skip; if there are any, the next chunk is read too
  bool possible;   // the chunks lie in the input, and the item is whole and of one plane
};

template <int kVector, bool kAdjoint, typename Index>
S2MLP_HOST_DEVICE ChunkRead<Index> chunk_read(const PlaneProblem<Index>& p, const PlanePlace<Index>& place, Index first) {
  const Index flat = place.h * p.width + place.w;
  const Index shift = place.group.dh * p.width + place.group.dw;
  const Index source = place.in_offset + p.misalignment + (kAdjoint ? flat + shift : flat - shift);
  const int32_t rest = static_cast<int32_t>(source & (kVector - 1));
  const Index begin = source - rest;
  const Index end = begin + (rest == 0 ? kVector : 2 * kVector);
  return {
      begin, rest,
      begin >= p.misalignment && end <= p.misalignment + p.in_extent && flat + kVector <= p.plane_size &&
          first + kVector <= p.elements};
}

template <typename Index>
PlaneProblem<Index> plane_problem(const ShiftProblem& p, int vector, int misalignment, int64_t in_extent) {
  PlaneProblem<Index> kernel;
  kernel.mode = p.mode;
  kernel.group_count = static_cast<int32_t>(p.groups.size());
  kernel.misalignment = misalignment;
  kernel.height = static_cast<Index>(p.height.size);
  kernel.width = static_cast<Index>(p.width.size);
  kernel.plane_size = static_cast<Index>(p.height.size * p.width.size);
  kernel.by_plane = Divider<Index>(p.height.size * p.width.size);
  kernel.by_width = Divider<Index>(p.width.size);
  kernel.by_channel = Divider<Index>(p.channel.size);
  kernel.channel_stride = static_cast<Index>(p.channel.in_stride);
  kernel.leading_stride = static_cast<Index>(p.leading.empty() ? 0 : p.leading[0].in_stride);
  kernel.in_extent = static_cast<Index>(in_extent);
  kernel.elements = static_cast<Index>(p.elements());
  kernel.items = (p.elements() + vector - 1) / vector;
  for (int g = 0; g < kernel.group_count; ++g) {
    const ShiftGroup& group = p.groups[g];
    kernel.groups[g] = {static_cast<Index>(group.channel_begin), static_cast<Index>(group.dh), static_cast<Index>(group.dw)};
  }
  return kernel;
}

}  // namespace s2mlp
