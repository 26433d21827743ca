// The shift table as a kernel argument: passed by value, a few groups per launch.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../shift_problem.h"

namespace s2mlp {

constexpr int kMaxGroups = 64;  // per launch; a table with more groups takes several launches

struct alignas(16) KernelGroup {
  int32_t channel_begin;
  int32_t dh;
  int32_t dw;
  int32_t distance;  // from a position to its source, inside the ranges below
  int32_t row_begin;
  int32_t row_count;
  int32_t column_begin;
  int32_t column_count;

  // Whether position (h, w) has exactly one source, at `distance`. Elsewhere the padding mode decides.
  S2MLP_HOST_DEVICE bool is_direct(int32_t h, int32_t w) const {
    return (static_cast<uint32_t>(h - row_begin) < static_cast<uint32_t>(row_count)) &
        (static_cast<uint32_t>(w - column_begin) < static_cast<uint32_t>(column_count));
  }
};

template <bool kAdjoint>
KernelGroup kernel_group(const ShiftProblem& p, const ShiftGroup& group, int64_t row_stride, int64_t column_stride) {
  const Range<int64_t> rows = direct_range<kAdjoint>(group.dh, p.height.size, p.mode);
  const Range<int64_t> columns = direct_range<kAdjoint>(group.dw, p.width.size, p.mode);
  const bool none = rows.size() <= 0 || columns.size() <= 0;
  const int64_t distance = (kAdjoint ? 1 : -1) * (group.dh * row_stride + group.dw * column_stride);
  KernelGroup kernel;
  kernel.channel_begin = static_cast<int32_t>(group.channel_begin);
  kernel.dh = static_cast<int32_t>(group.dh);
  kernel.dw = static_cast<int32_t>(group.dw);
  kernel.distance = none ? 0 : static_cast<int32_t>(distance);
  kernel.row_begin = static_cast<int32_t>(rows.begin);
  kernel.row_count = none ? 0 : static_cast<int32_t>(rows.size());
  kernel.column_begin = static_cast<int32_t>(columns.begin);
  kernel.column_count = none ? 0 : static_cast<int32_t>(columns.size());
  return kernel;
}

// The group of `channel`, by binary search: the last group that begins at or before it.
template <typename Problem>
S2MLP_HOST_DEVICE int32_t find_group(const Problem& p, int32_t channel) {
  int32_t found = 0;
  for (int32_t step = p.search_step; step > 0; step >>= 1) {
    const int32_t next = found + step;
    if (next < p.group_count && p.groups[next].channel_begin <= channel) {
      found = next;
    }
  }
  return found;
}

// The first step of a binary search: the largest power of two below `count`; 0 for one group.
inline int32_t search_step_of(int32_t count) {
  int32_t step = 0;
  while (std::max(1, 2 * step) < count) {
    step = std::max(1, 2 * step);
  }
  return step;
}

// Channels [begin, end) of a launch and their groups, [first_group, last_group).
struct TableSlice {
  int64_t begin;
  int64_t end;
  size_t first_group;
  size_t last_group;
};

// Calls use(TableSlice) for slices of at most kMaxGroups groups, cut at multiples of `vector` channels.
template <typename Use>
void for_each_slice(const ShiftProblem& p, int64_t vector, const Use& use) {
  TableSlice slice = {0, 0, 0, 0};
  while (slice.end < p.channel.size) {
    slice.begin = slice.end;
    while (p.groups[slice.first_group].channel_end <= slice.begin) {
      ++slice.first_group;
    }
    slice.last_group = std::min(slice.first_group + kMaxGroups, p.groups.size());
    const int64_t end = p.groups[slice.last_group - 1].channel_end;
    slice.end = slice.last_group == p.groups.size() ? end : end / vector * vector;
    use(slice);
  }
}

}  // namespace s2mlp
