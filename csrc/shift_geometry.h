// The index arithmetic of the spatial shift, forward and adjoint, for host and device. No other code in this repository computes
// source indices.
//
// Axes are independent. Along an axis of `size` positions, content moves by `offset` positions toward higher indices: output i
// reads input i - offset. The padding mode defines what is read beyond the border. Offsets must first be reduced by
// reduce_offset().
#pragma once

#include <cstdint>

#include "padding.h"

#if defined(__CUDACC__)
#define S2MLP_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define S2MLP_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace s2mlp {

// The first channel of group `group` if `channels` are split evenly: floor(group * channels / groups).
S2MLP_HOST_DEVICE int64_t even_group_begin(int64_t group, int64_t groups, int64_t channels) { return group * channels / groups; }

// An equivalent offset, small enough that i - offset, i + offset and 2 * (size - 1) + offset cannot overflow: in [0, size) for
// circular, in (-size, size) for reflect, in [-size, size] otherwise. An Index of 32 bits takes sizes of up to 2^30.
S2MLP_HOST_DEVICE int64_t reduce_offset(int64_t offset, int64_t size, PaddingMode mode) {
  if (size == 0) {
    return 0;
  }
  switch (mode) {
    case PaddingMode::kReplicate:
    case PaddingMode::kZeros:
      return offset > size ? size : (offset < -size ? -size : offset);
    case PaddingMode::kCircular: {
      const int64_t remainder = offset % size;
      return remainder < 0 ? remainder + size : remainder;
    }
    case PaddingMode::kReflect: {  // periodic: ... 2 1 | 0 1 2 3 | 2 1 ...
      if (size == 1) {
        return 0;
      }
      const int64_t period = 2 * (size - 1);
      const int64_t remainder = offset % period;
      return remainder >= size ? remainder - period : (remainder <= -size ? remainder + period : remainder);
    }
  }
  return 0;
}

// Positions [begin, end).
template <typename Index>
struct Range {
  Index begin;
  Index end;

  S2MLP_HOST_DEVICE Index size() const { return end - begin; }
  S2MLP_HOST_DEVICE bool contains(Index i) const { return i >= begin && i < end; }
};

// Forward: the input position that output i reads, or -1 if it reads zero padding.
template <typename Index>
S2MLP_HOST_DEVICE Index source_index(Index i, Index offset, Index size, PaddingMode mode) {
  const Index source = i - offset;
  switch (mode) {
    case PaddingMode::kReplicate:
      return source < 0 ? 0 : (source >= size ? size - 1 : source);
    case PaddingMode::kZeros:
      return source >= 0 && source < size ? source : -1;
    case PaddingMode::kCircular:
      return source < 0 ? source + size : source;
    case PaddingMode::kReflect:
      return source < 0 ? -source : (source >= size ? 2 * (size - 1) - source : source);
  }
  return -1;
}

// The positions whose values are summed up in position i. Forward: the input that output i reads, if any. Adjoint: the outputs that
// read input i. At most two ranges; the first is empty only if both are.
template <typename Index>
struct Sources {
  Range<Index> first;
  Range<Index> second;

  S2MLP_HOST_DEVICE Index size() const { return first.size() + second.size(); }
  S2MLP_HOST_DEVICE Index operator[](Index n) const {
    return n < first.size() ? first.begin + n : second.begin + (n - first.size());
  }
};

// Adjoint: the outputs that read input i.
template <typename Index>
S2MLP_HOST_DEVICE Sources<Index> readers(Index i, Index offset, Index size, PaddingMode mode) {
  const Index reader = i + offset;
  const Range<Index> none = {0, 0};
  const Range<Index> direct = reader >= 0 && reader < size ? Range<Index>{reader, reader + 1} : none;
  switch (mode) {
    case PaddingMode::kReplicate: {
      // The first input is also read by all outputs below i + offset, the last input by all outputs above it.
      Index begin = i == 0 ? 0 : reader;
      Index end = i == size - 1 ? size : reader + 1;
      begin = begin < 0 ? 0 : (begin > size ? size : begin);
      end = end < begin ? begin : (end > size ? size : end);
      return {{begin, end}, none};
    }
    case PaddingMode::kZeros:
      return {direct, none};
    case PaddingMode::kCircular: {
      const Index wrapped = reader >= size ? reader - size : reader;
      return {{wrapped, wrapped + 1}, none};
    }
    case PaddingMode::kReflect: {
      const Index mirrored = offset > 0 ? offset - i : 2 * (size - 1) + offset - i;
      const bool has_mirrored = mirrored >= 0 && mirrored < size && mirrored != reader;
      const Range<Index> folded = has_mirrored ? Range<Index>{mirrored, mirrored + 1} : none;
      return direct.size() == 0 ? Sources<Index>{folded, none} : Sources<Index>{direct, folded};
    }
  }
  return {none, none};
}

template <bool kAdjoint, typename Index>
S2MLP_HOST_DEVICE Sources<Index> sources(Index i, Index offset, Index size, PaddingMode mode) {
  if constexpr (kAdjoint) {
    return readers(i, offset, size, mode);
  } else {
    const Index source = source_index(i, offset, size, mode);
    return {{source, source < 0 ? source : source + 1}, {0, 0}};
  }
}

// Adjoint: the inputs near the border that outputs other than i + offset may read, because of padding. Empty for modes in which at
// most one output reads an input. Begins or ends at the border that content moves away from, or one position beside it.
template <typename Index>
S2MLP_HOST_DEVICE Range<Index> folded_range(Index offset, Index size, PaddingMode mode) {
  const Range<Index> none = {0, 0};
  switch (mode) {
    case PaddingMode::kReplicate:
      return offset > 0 ? Range<Index>{0, 1} : (offset < 0 ? Range<Index>{size - 1, size} : none);
    case PaddingMode::kZeros:
    case PaddingMode::kCircular:
      return none;
    case PaddingMode::kReflect:
      return offset > 0 ? Range<Index>{1, offset + 1} : (offset < 0 ? Range<Index>{size - 1 + offset, size - 1} : none);
  }
  return none;
}

// Outside of folded_range(), the adjoint is the shift by -offset with this padding mode: zeros where an input near the other border
// is read by no output, circular where each is read by one.
S2MLP_HOST_DEVICE PaddingMode mode_of_shift_back(PaddingMode mode) {
  switch (mode) {
    case PaddingMode::kReplicate:
    case PaddingMode::kZeros:
    case PaddingMode::kReflect:
      return PaddingMode::kZeros;
    case PaddingMode::kCircular:
      return PaddingMode::kCircular;
  }
  return mode;
}

// The positions of an axis with a single source, at a constant distance. Forward: outputs i that read input i - offset. Adjoint:
// inputs i that only output i + offset reads. May be empty, with end < begin.
template <bool kAdjoint, typename Index>
S2MLP_HOST_DEVICE Range<Index> direct_range(Index offset, Index size, PaddingMode mode) {
  const Index back = kAdjoint ? -offset : offset;
  Index begin = back > 0 ? back : 0;
  Index end = back < 0 ? size + back : size;
  if (kAdjoint) {
    const Range<Index> folded = folded_range(offset, size, mode);  // empty, or near the border that content moves away from
    begin = offset > 0 && begin < folded.end ? folded.end : begin;
    end = offset < 0 && folded.size() > 0 && end > folded.begin ? folded.begin : end;
  }
  return {begin, end};
}

// Output begin + n of a segment reads input source + n * step; a negative source stands for zeros.
template <typename Index>
struct Segment {
  Index begin;
  Index end;
  Index source;
  Index step;
};

// The step of a segment that reads beyond the border. Beyond one border, the sources of consecutive outputs must be at a constant
// distance in every mode; for a negative source, the step does not matter.
template <typename Index>
S2MLP_HOST_DEVICE Index step_beyond_border(PaddingMode mode) {
  switch (mode) {
    case PaddingMode::kReplicate:
    case PaddingMode::kZeros:
      return 0;
    case PaddingMode::kCircular:
      return 1;
    case PaddingMode::kReflect:
      return -1;
  }
  return 0;
}

// Forward: a whole axis as at most three segments, which cover [0, size) in order.
template <typename Index>
S2MLP_HOST_DEVICE int axis_segments(Index offset, Index size, PaddingMode mode, Segment<Index> (&segments)[3]) {
  const Index lead = offset > 0 ? offset : 0;
  const Index tail = offset < 0 ? size + offset : size;
  const Index step = step_beyond_border<Index>(mode);
  int count = 0;
  if (lead > 0) {
    segments[count++] = {0, lead, source_index<Index>(0, offset, size, mode), step};
  }
  if (tail > lead) {
    segments[count++] = {lead, tail, lead - offset, 1};
  }
  if (tail < size) {
    segments[count++] = {tail, size, source_index<Index>(tail, offset, size, mode), step};
  }
  return count;
}

}  // namespace s2mlp
