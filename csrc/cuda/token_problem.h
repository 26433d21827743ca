// Maps with channels innermost: the parameters of one launch, and the addresses of tokens. Host and device: tests call the same
// functions for maps of more than 2^31 elements.
#pragma once

#include <cstdint>

#include "block_shape.h"
#include "kernel_groups.h"
#include "leading_axes.h"

namespace s2mlp {

// In bytes.
struct TokenStrides {
  uint32_t column;
  uint32_t access;  // from a thread's channels to the next thread's
};

struct TokenProblem {
  PaddingMode mode;
  int32_t vector;  // channels per access
  int32_t element_bytes;
  int32_t first_column;  // of the launch, in accesses
  int32_t height;
  int32_t width;
  Divider by_height;
  Divider by_width;
  uint32_t in_row;  // the stride of the input's rows, in bytes
  TokenStrides in;
  TokenStrides out;
  LeadingAxes leading;
  BlockShape shape;  // rows are tokens, columns are accesses
  int32_t group_count;
  int32_t search_step;
  KernelGroup groups[kMaxGroups];  // distances in bytes
};

struct TokenPlace {
  int32_t token;
  int32_t image;
  int32_t row;  // counted through all images
  int32_t h;
  int32_t w;
};

S2MLP_HOST_DEVICE TokenPlace locate_token(const TokenProblem& p, int32_t token) {
  const QuotientRemainder row = p.by_width(token);
  const QuotientRemainder image = p.by_height(row.quotient);
  return {token, image.quotient, row.quotient, image.remainder, row.remainder};
}

// The address of a token of a flat map, given the address of the first token.
template <bool kInput>
S2MLP_HOST_DEVICE uint64_t at_flat_token(const TokenProblem& p, uint64_t base, int32_t token) {
  return multiply_add(token, kInput ? p.in.column : p.out.column, base);
}

// The address of a token of any map.
template <bool kInput>
S2MLP_HOST_DEVICE uint64_t at_token(const TokenProblem& p, uint64_t base, const TokenPlace& place) {
  uint64_t address = at_flat_token<kInput>(p, base, place.token);
  if (!p.leading.flat) {
    const BytePair more = row_and_image_offsets(p.leading, place.row, place.image);
    address += kInput ? more.in : more.out;
  }
  return address;
}

// The address of another input token of the same image.
S2MLP_HOST_DEVICE uint64_t move_token(const TokenProblem& p, uint64_t address, const TokenPlace& place, int32_t h, int32_t w) {
  return address + int64_t{h - place.h} * p.in_row + int64_t{w - place.w} * p.in.column;
}

// The channels of a thread's access, and the groups [group, group_end) that they belong to.
struct TokenChannels {
  int32_t begin;
  int32_t group;
  int32_t group_end;
};

S2MLP_HOST_DEVICE TokenChannels token_channels(const TokenProblem& p, int32_t column) {
  const int32_t begin = column * p.vector;
  const int32_t group = find_group(p, begin);
  int32_t group_end = group + 1;
  while (group_end < p.group_count && p.groups[group_end].channel_begin < begin + p.vector) {
    ++group_end;
  }
  return {begin, group, group_end};
}

// The byte of the access at which group g, not the first group, begins.
S2MLP_HOST_DEVICE int32_t first_byte_of_group(const TokenProblem& p, const TokenChannels& channels, int32_t g) {
  return (p.groups[g].channel_begin - channels.begin) * p.element_bytes;
}

// The stride of an axis of size 1 does not matter: it is chosen so that the map is flat if possible.
inline ShiftProblem with_useful_strides(ShiftProblem p) {
  if (p.width.size == 1) {
    p.width = p.height.size == 1 ? Axis{1, 0, 0} : Axis{1, p.height.in_stride, p.height.out_stride};
  }
  if (p.height.size == 1) {
    p.height = {1, p.width.size * p.width.in_stride, p.width.size * p.width.out_stride};
  }
  return p;
}

// Calls use(TokenProblem, Grid) for each launch.
template <bool kAdjoint, typename Use>
void for_each_token_launch(
    const ShiftProblem& problem, int vector, int64_t element_size, int items, const DeviceLimits& limits, const Use& use) {
  const ShiftProblem p = with_useful_strides(problem);
  TokenProblem kernel;
  kernel.mode = p.mode;
  kernel.vector = vector;
  kernel.element_bytes = static_cast<int32_t>(element_size);
  kernel.height = static_cast<int32_t>(p.height.size);
  kernel.width = static_cast<int32_t>(p.width.size);
  kernel.by_height = Divider(p.height.size);
  kernel.by_width = Divider(p.width.size);
  const auto strides = [&](int64_t Axis::* stride) {
    const auto bytes = [&](const Axis& axis) { return static_cast<uint32_t>(axis.*stride * element_size); };
    return TokenStrides{bytes(p.width), vector * bytes(p.channel)};
  };
  kernel.in_row = static_cast<uint32_t>(p.height.in_stride * element_size);
  kernel.in = strides(&Axis::in_stride);
  kernel.out = strides(&Axis::out_stride);
  kernel.leading = leading_axes(p, element_size);
  for_each_slice(p, vector, [&](const TableSlice& slice) {
    kernel.first_column = static_cast<int32_t>(slice.begin / vector);
    kernel.group_count = static_cast<int32_t>(slice.last_group - slice.first_group);
    kernel.search_step = search_step_of(kernel.group_count);
    for (int32_t g = 0; g < kernel.group_count; ++g) {
      kernel.groups[g] = kernel_group<kAdjoint>(p, p.groups[slice.first_group + g], kernel.in_row, kernel.in.column);
    }
    const int64_t tokens = p.leading_size * p.height.size * p.width.size;
    const Grid grid = make_grid(tokens, (slice.end - slice.begin) / vector, items, limits);
    kernel.shape = grid.shape;
    use(kernel, grid);
  });
}

}  // namespace s2mlp
