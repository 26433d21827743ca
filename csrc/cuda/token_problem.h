// Maps whose channels are innermost: one launch as numbers, and where in the maps a token lies. Host and device: tests walk the same
// functions through maps of more than 2^31 elements.
#pragma once

#include <cstdint>

#include "block_shape.h"
#include "kernel_groups.h"
#include "leading_axes.h"

namespace s2mlp {

// In bytes.
struct TokenStrides {
  uint32_t row;
  uint32_t column;
  uint32_t access;  // from a thread's channels to the next thread's
};

struct TokenProblem {
  PaddingMode mode;
  int32_t vector;  // channels per access
  int32_t element_bytes;  // of a channel
  int32_t first_column;  // of the launch, in accesses
  int32_t height;
  int32_t width;
  Divider<int32_t> by_height;
  Divider<int32_t> by_width;
  TokenStrides in;
  TokenStrides out;
  LeadingAxes leading;
  BlockShape shape;  // rows are tokens, columns are accesses
  int32_t group_count;
  int32_t search_step;
  KernelGroup groups[kMaxGroups];  // distances in bytes
};

struct TokenPlace {
  int32_t image;
  int32_t row;  // counted through all images
  int32_t h;
  int32_t w;
};

S2MLP_HOST_DEVICE TokenPlace locate_token(const TokenProblem& p, int32_t token) {
  const QuotientRemainder<int32_t> row = p.by_width(token);
  const QuotientRemainder<int32_t> image = p.by_height(row.quotient);
  return {image.quotient, row.quotient, image.remainder, row.remainder};
}

// The address of a token, `base` being that of the first one.
template <bool kInput>
S2MLP_HOST_DEVICE uint64_t at_token(const TokenProblem& p, uint64_t base, const TokenPlace& place) {
  const TokenStrides& strides = kInput ? p.in : p.out;
  uint64_t address = multiply_add(place.row, strides.row, base);
  address = multiply_add(place.w, strides.column, address);
  if (!p.leading.regular) {
    const BytePair more = image_offsets(p.leading, place.image);
    address += kInput ? more.in : more.out;
  }
  return address;
}

// Token `u` of a thread that begins at `row`; past the last one, the thread's first.
S2MLP_HOST_DEVICE int32_t token_of(const TokenProblem& p, int32_t row, int u) {
  const int32_t token = row + u * p.shape.next_item;
  return token < p.shape.rows ? token : row;
}

// The address of another token of the same image, in the input.
S2MLP_HOST_DEVICE uint64_t move_token(const TokenProblem& p, uint64_t address, const TokenPlace& place, int32_t h, int32_t w) {
  return address + int64_t{h - place.h} * p.in.row + int64_t{w - place.w} * p.in.column;
}

// The channels of a thread's access, and the group that the first of them belongs to.
struct TokenChannels {
  int32_t begin;
  int32_t end;
  int32_t group;
};

S2MLP_HOST_DEVICE TokenChannels token_channels(const TokenProblem& p, int32_t column) {
  const int32_t begin = column * p.vector;
  return {begin, begin + p.vector, find_group(p, begin)};
}

// Whether group g, after the first one, has some of the channels: those from byte first_byte_of_group on.
S2MLP_HOST_DEVICE bool has_group(const TokenProblem& p, const TokenChannels& channels, int32_t g) {
  return g < p.group_count && p.groups[g].channel_begin < channels.end;
}

S2MLP_HOST_DEVICE int32_t first_byte_of_group(const TokenProblem& p, const TokenChannels& channels, int32_t g) {
  return (p.groups[g].channel_begin - channels.begin) * p.element_bytes;
}

// use(TokenProblem, Grid) for each launch.
template <bool kAdjoint, typename Use>
void for_each_token_launch(
    const ShiftProblem& p, int vector, int64_t element_size, int items, const DeviceLimits& limits, const Use& use) {
  TokenProblem kernel;
  kernel.mode = p.mode;
  kernel.vector = vector;
  kernel.element_bytes = static_cast<int32_t>(element_size);
  kernel.height = static_cast<int32_t>(p.height.size);
  kernel.width = static_cast<int32_t>(p.width.size);
  kernel.by_height = Divider<int32_t>(p.height.size);
  kernel.by_width = Divider<int32_t>(p.width.size);
  const auto strides = [&](int64_t Axis::* stride) {
    const auto bytes = [&](const Axis& axis) { return static_cast<uint32_t>(axis.*stride * element_size); };
    return TokenStrides{bytes(p.height), bytes(p.width), vector * bytes(p.channel)};
  };
  kernel.in = strides(&Axis::in_stride);
  kernel.out = strides(&Axis::out_stride);
  kernel.leading = leading_axes(p, element_size);
  for_each_slice(p, vector, [&](const TableSlice& slice) {
    kernel.first_column = static_cast<int32_t>(slice.begin / vector);
    kernel.group_count = static_cast<int32_t>(slice.last_group - slice.first_group);
    kernel.search_step = search_step_of(kernel.group_count);
    for (int32_t g = 0; g < kernel.group_count; ++g) {
      kernel.groups[g] = kernel_group<kAdjoint>(p, p.groups[slice.first_group + g], kernel.in.row, kernel.in.column);
    }
    const int64_t tokens = p.leading_size * p.height.size * p.width.size;
    const Grid grid = make_grid(tokens, (slice.end - slice.begin) / vector, items, limits);
    kernel.shape = grid.shape;
    use(kernel, grid);
  });
}

}  // namespace s2mlp
