// The index arithmetic of the spatial shift, forward and adjoint, for host and device.
// Nothing else in this repository computes where an element comes from.
//
// One axis at a time: along an axis of `size` positions, content moves by `offset` positions
// toward higher indices, so output i reads input i - offset. What that means beyond the border
// is the padding mode. Offsets must have gone through reduce_offset() first.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define S2MLP_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define S2MLP_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace s2mlp {

enum class PaddingMode : int32_t { kReplicate, kZeros, kCircular };

// First channel of group `group` when `channels` are cut evenly: floor(group * channels / groups).
S2MLP_HOST_DEVICE int64_t even_group_begin(int64_t group, int64_t groups, int64_t channels) {
  return group * channels / groups;
}

// The same shift with an offset small enough that i - offset and i + offset cannot overflow:
// in [0, size) for circular, in [-size, size] otherwise.
S2MLP_HOST_DEVICE int64_t reduce_offset(int64_t offset, int64_t size, PaddingMode mode) {
  if (size == 0) {
    return 0;
  }
  if (mode == PaddingMode::kCircular) {
    const int64_t remainder = offset % size;
    return remainder < 0 ? remainder + size : remainder;
  }
  return offset > size ? size : (offset < -size ? -size : offset);
}

// Forward: the input position that output i reads, or -1 where it reads a zero.
template <typename Index>
S2MLP_HOST_DEVICE Index source_index(Index i, Index offset, Index size, PaddingMode mode) {
  const Index source = i - offset;
  switch (mode) {
    case PaddingMode::kReplicate:
      return source < 0 ? 0 : (source >= size ? size - 1 : source);
    case PaddingMode::kCircular:
      return source < 0 ? source + size : source;
    default:
      return source >= 0 && source < size ? source : -1;
  }
}

template <typename Index>
struct Range {
  Index begin;
  Index end;

  S2MLP_HOST_DEVICE Index size() const { return end - begin; }
};

// Adjoint: the outputs that read input i. They are always neighbours.
template <typename Index>
S2MLP_HOST_DEVICE Range<Index> reader_range(Index i, Index offset, Index size, PaddingMode mode) {
  const Index reader = i + offset;
  if (mode == PaddingMode::kCircular) {
    const Index wrapped = reader >= size ? reader - size : reader;
    return {wrapped, wrapped + 1};
  }
  const bool replicate = mode == PaddingMode::kReplicate;
  // Under replicate the first input is also read by all outputs before its own reader, the last
  // input by all outputs after it.
  Index begin = replicate && i == 0 ? 0 : reader;
  Index end = replicate && i == size - 1 ? size : reader + 1;
  begin = begin < 0 ? 0 : (begin > size ? size : begin);
  end = end < begin ? begin : (end > size ? size : end);
  return {begin, end};
}

// What position i takes: forward the input that it reads, if it reads one; adjoint the outputs that read it.
template <bool kAdjoint, typename Index>
S2MLP_HOST_DEVICE Range<Index> source_range(Index i, Index offset, Index size, PaddingMode mode) {
  if constexpr (kAdjoint) {
    return reader_range(i, offset, size, mode);
  } else {
    const Index source = source_index(i, offset, size, mode);
    return {source, source < 0 ? source : source + 1};
  }
}

// Positions of an axis that are simply shifted: forward, outputs i that read input i - offset; adjoint, inputs i with the
// one reader i + offset. May be empty, with end < begin.
template <typename Index>
S2MLP_HOST_DEVICE Range<Index> plain_range(Index offset, Index size, PaddingMode mode, bool adjoint) {
  const Index back = adjoint ? -offset : offset;
  Index begin = back > 0 ? back : 0;
  Index end = back < 0 ? size + back : size;
  if (adjoint && mode == PaddingMode::kReplicate) {
    begin = offset > 0 && begin < 1 ? 1 : begin;
    end = offset < 0 && end > size - 1 ? size - 1 : end;
  }
  return {begin, end};
}

// Outputs [begin, end) read inputs source, source + step, ...; a negative source stands for zeros.
template <typename Index>
struct Segment {
  Index begin;
  Index end;
  Index source;
  Index step;
};

// Forward, a whole axis at once: at most three segments that cover [0, size) in order.
template <typename Index>
S2MLP_HOST_DEVICE int axis_segments(Index offset, Index size, PaddingMode mode, Segment<Index> (&segments)[3]) {
  const Index lead = offset > 0 ? offset : 0;
  const Index tail = offset < 0 ? size + offset : size;
  int count = 0;
  if (lead > 0) {
    segments[count++] = {0, lead, source_index<Index>(0, offset, size, mode),
                         static_cast<Index>(mode == PaddingMode::kCircular)};
  }
  if (tail > lead) {
    segments[count++] = {lead, tail, lead - offset, 1};
  }
  if (tail < size) {
    segments[count++] = {tail, size, source_index<Index>(size - 1, offset, size, mode), 0};
  }
  return count;
}

}  // namespace s2mlp
