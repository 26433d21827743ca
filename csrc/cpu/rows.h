// The shift and its adjoint with channels as the innermost axis. The unit of work is a row of tokens (leading index, h), written in
// memory order: token by token, group by group. What is constant for a group along a row is computed once per row.
//
// Groups read different rows of the input, which hardware prefetchers cannot follow. Each input line is therefore prefetched once,
// in memory order: kBytesAhead ahead in the furthest row that a group reads. The other groups find their lines in cache.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <vector>

#include "../shift_problem.h"
#include "cache.h"
#include "epilogue.h"
#include "map_walk.h"
#include "runs.h"

namespace s2mlp {

// The sources of one group for one row of the output.
struct GroupRow {
  Sources<int64_t> rows;  // rows of the input
  Range<int64_t> direct;  // tokens with a single source; that of token w is at from + w * column_stride
  int64_t from;
};

template <bool kAdjoint>
S2MLP_INLINE inline GroupRow group_row(
    const ShiftGroup& group,
    int64_t h,
    int64_t height,
    int64_t width,
    int64_t row_stride,
    int64_t column_stride,
    PaddingMode mode) {
  const Sources<int64_t> rows = sources<kAdjoint>(h, group.dh, height, mode);
  const Range<int64_t> direct = rows.size() == 1 ? direct_range<kAdjoint>(group.dw, width, mode) : Range<int64_t>{0, 0};
  return {rows, direct, rows[0] * row_stride + (kAdjoint ? group.dw : -group.dw) * column_stride};
}

// The distance from an output row to the furthest input row that a group reads, away from the borders.
template <bool kAdjoint>
int64_t furthest_row(const std::vector<ShiftGroup>& groups, int64_t height, PaddingMode mode) {
  const int64_t h = height / 2;
  int64_t furthest = 0;
  for (const ShiftGroup& group : groups) {
    const Sources<int64_t> rows = sources<kAdjoint>(h, group.dh, height, mode);
    furthest = std::max({furthest, rows.first.end - 1 - h, rows.second.end - 1 - h});
  }
  return furthest;
}

// Whether contiguous runs of all groups, at these element strides, start and end at cache line boundaries.
template <typename T>
bool are_whole_lines(const T* out, const std::vector<int64_t>& strides, const std::vector<ShiftGroup>& groups) {
  const auto is_whole = [](int64_t elements) { return elements * static_cast<int64_t>(sizeof(T)) % kLineBytes == 0; };
  return reinterpret_cast<uintptr_t>(out) % kLineBytes == 0 && std::all_of(strides.begin(), strides.end(), is_whole) &&
      std::all_of(groups.begin(), groups.end(), [&](const ShiftGroup& group) { return is_whole(group.channel_end); });
}

// The sum of the input tokens `rows` x `columns`, for a run of channels.
template <typename T, typename V>
S2MLP_INLINE inline void sum_tokens(
    const ShiftProblem& p, T* out, const T* in, const Sources<int64_t>& rows, const Sources<int64_t>& columns, int64_t count, V) {
  if (p.channel.in_stride != 1 || p.channel.out_stride != 1) {
    for (int64_t c = 0; c < count; ++c) {
      out[c * p.channel.out_stride] = sum_of(p, in + c * p.channel.in_stride, rows, columns);
    }
    return;
  }
  for_each_step<T, V::kBytes>(0, count, [&](auto lanes, int64_t first, int64_t step_count) S2MLP_INLINE {
    const auto sum = sum_of_step(lanes, in + first, p.height.in_stride, p.width.in_stride, rows, columns, step_count);
    store_step(lanes, out + first, sum, step_count);
  });
}

// Row h of the output of one map.
template <bool kAdjoint, typename T, typename Op, typename V>
S2MLP_INLINE inline void walk_row(
    const ShiftProblem& p,
    const T* map_in,
    T* map_out,
    int64_t h,
    int64_t rows_ahead,
    GroupRow* rows,
    const Epilogue<T, Op>& epilogue,
    V vectors) {
  const int64_t groups = static_cast<int64_t>(p.groups.size());
  for (int64_t g = 0; g < groups; ++g) {
    rows[g] = group_row<kAdjoint>(p.groups[g], h, p.height.size, p.width.size, p.height.in_stride, p.width.in_stride, p.mode);
  }
  const int64_t in_stride = p.channel.in_stride;
  const int64_t out_stride = p.channel.out_stride;
  const int64_t ahead_of_token = tokens_ahead<T>(p.channel.size);
  const T* ahead = map_in + (h + rows_ahead) * p.height.in_stride + ahead_of_token * p.width.in_stride;
  const int64_t ahead_of_output = ahead_of_token * p.width.out_stride;
  T* token_out = map_out + h * p.height.out_stride;
  for (int64_t w = 0; w < p.width.size; ++w, token_out += p.width.out_stride, ahead += p.width.in_stride) {
    for (int64_t g = 0; g < groups; ++g) {
      const ShiftGroup& group = p.groups[g];
      const GroupRow& row = rows[g];
      const int64_t run = group.channel_end - group.channel_begin;
      const T* from = map_in + group.channel_begin * in_stride;
      T* to = token_out + group.channel_begin * out_stride;
      prefetch_run(ahead + group.channel_begin * in_stride, run);
      if constexpr (V::kStores == Stores::kCached) {
        prefetch_run(to + ahead_of_output, run);
      }
      epilogue.prefetch(to + ahead_of_output, run);
      if (row.direct.contains(w)) {
        epilogue.move(to, out_stride, from + row.from + w * p.width.in_stride, in_stride, run, vectors);
        continue;
      }
      const Sources<int64_t> columns = sources<kAdjoint>(w, group.dw, p.width.size, p.mode);
      const int64_t tokens = row.rows.size() * columns.size();
      if (tokens == 0) {
        zero_run(to, out_stride, run);
        epilogue.finish(to, out_stride, run, vectors);
      } else if (tokens == 1) {
        from += row.rows[0] * p.height.in_stride + columns[0] * p.width.in_stride;
        epilogue.move(to, out_stride, from, in_stride, run, vectors);
      } else if constexpr (kAdjoint) {
        sum_tokens(p, to, from, row.rows, columns, run, vectors);
        epilogue.finish(to, out_stride, run, vectors);
      }
    }
  }
}

// Whether every run of the output starts and ends at a cache line boundary.
template <typename T>
bool runs_are_whole_lines(const ShiftProblem& p, const T* out) {
  std::vector<int64_t> strides = {p.height.out_stride, p.width.out_stride};
  for (const Axis& axis : p.leading) {
    strides.push_back(axis.out_stride);
  }
  return p.channel.out_stride == 1 && p.channel.in_stride == 1 && are_whole_lines(out, strides, p.groups);
}

template <bool kAdjoint, Stores kStores, typename T, typename Op>
void walk_rows(const ShiftProblem& p, const T* in, T* out, const Epilogue<T, Op>& epilogue) {
  const int64_t height = p.height.size;
  const int64_t rows_ahead = furthest_row<kAdjoint>(p.groups, height, p.mode);
  const int64_t grain = grain_of<T>(p.width.size * p.channel.size);
  torch::stable::parallel_for(0, p.leading_size * height, grain, [&](int64_t begin, int64_t end) {
    std::vector<GroupRow> rows(p.groups.size());
    with_vectors<kStores>([&](auto vectors) S2MLP_INLINE {
      for (int64_t row = begin; row < end; ++row) {
        const MapOffset offset = map_offset(p, row / height);
        walk_row<kAdjoint>(p, in + offset.in, out + offset.out, row % height, rows_ahead, rows.data(), epilogue, vectors);
      }
    });
    if constexpr (kStores == Stores::kStreaming) {
      finish_streaming();
    }
  });
}

}  // namespace s2mlp
