// Code shared by all loops over a map, whichever axis is innermost.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "../accumulator.h"
#include "../shift_problem.h"
#include "lanes.h"
#include "threads.h"

namespace s2mlp {

// Element offsets of a map (H, W, C) in input and output.
struct MapOffset {
  int64_t in = 0;
  int64_t out = 0;
};

// The offsets of the map with leading index `index`.
inline MapOffset map_offset(const ShiftProblem& problem, int64_t index) {
  MapOffset offset;
  for (auto axis = problem.leading.rbegin(); axis != problem.leading.rend(); ++axis) {
    const int64_t position = index % axis->size;
    index /= axis->size;
    offset.in += position * axis->in_stride;
    offset.out += position * axis->out_stride;
  }
  return offset;
}

// The distinct (dh, dw) pairs of all groups.
struct DistinctOffsets {
  std::vector<ShiftGroup> offsets;  // the first group with each pair
  std::vector<size_t> of_group;     // for each group, its index in `offsets`

  explicit DistinctOffsets(const std::vector<ShiftGroup>& groups) {
    std::map<std::pair<int64_t, int64_t>, size_t> known;
    for (const ShiftGroup& group : groups) {
      const auto [entry, is_new] = known.try_emplace({group.dh, group.dw}, offsets.size());
      of_group.push_back(entry->second);
      if (is_new) {
        offsets.push_back(group);
      }
    }
  }
};

// The sum over rows and columns for one channel. Not inlined: with these additional loops, g++ 12 spills vectors of the callers.
template <typename T>
__attribute__((noinline)) T
sum_of(const ShiftProblem& p, const T* in, const Sources<int64_t>& rows, const Sources<int64_t>& columns) {
  accumulator_t<T> sum(0);
  for (int64_t h = 0; h < rows.size(); ++h) {
    for (int64_t w = 0; w < columns.size(); ++w) {
      sum += static_cast<accumulator_t<T>>(in[rows[h] * p.height.in_stride + columns[w] * p.width.in_stride]);
    }
  }
  return static_cast<T>(sum);
}

// The same for a vector step of `count` neighboring channels or columns.
template <typename L, typename T>
S2MLP_INLINE inline typename L::Step sum_of_step(
    L lanes,
    const T* in,
    int64_t row_stride,
    int64_t column_stride,
    const Sources<int64_t>& rows,
    const Sources<int64_t>& columns,
    int64_t count) {
  typename L::Step sum{};
  for (int64_t h = 0; h < rows.size(); ++h) {
    for (int64_t w = 0; w < columns.size(); ++w) {
      sum += load_step(lanes, in + rows[h] * row_stride + columns[w] * column_stride, count);
    }
  }
  return sum;
}

}  // namespace s2mlp
