// The traversal of an expanded map by the CPU kernels of the branch ops: rows of tokens, in tiles of a few tokens and, within a
// tile, runs of channels. A run lies in one branch, and in a single group of every branch. What is constant along a row is computed
// once per row, and per-channel values are loaded once per tile. Tiles are short, so that memory is still accessed nearly in order.
//
// Per-channel values (weights, sums) are stored in lane order, the order of a run's elements in Lanes: see to_lane_order.
#pragma once

#include <algorithm>
#include <vector>

#include "../branch_problem.h"
#include "instruction_sets.h"
#include "lanes.h"
#include "rows.h"

namespace s2mlp {

// The most bytes of the expanded map in a tile, unless one token has more. For elements that are converted, instructions are the
// bottleneck, which longer tiles save. For others it is memory: shorter tiles keep reads in order (stores are not waited for).
template <typename T>
constexpr int64_t kReadTileBytes = sizeof(T) == 2 ? 8192 : 5120;
constexpr int64_t kWriteTileBytes = 12288;

// Channels [begin, end) of one branch.
struct Run {
  int64_t branch;
  int64_t begin;
  int64_t end;
  int64_t padding;  // of the per-channel values: see kPadding
  ShiftGroup group;
  GroupRow row;  // of the current row

  template <bool kAdjoint>
  S2MLP_INLINE Sources<int64_t> columns(const BranchProblem& p, int64_t w) const {
    return sources<kAdjoint>(w, group.dw, p.width, p.mode);
  }

  // The token that output token w of the row reads: `zeros` if it reads zero padding.
  template <typename T>
  S2MLP_INLINE const T* source(
      const BranchProblem& p, const T* map, const MapStrides& stride, const T* zeros, int64_t w) const {
    if (row.direct.contains(w)) {
      return map + row.from + w * stride.column + branch * p.channels;
    }
    const Sources<int64_t> from = columns<false>(p, w);
    if (row.rows.size() == 0 || from.size() == 0) {
      return zeros;
    }
    return map + row.rows[0] * stride.row + from[0] * stride.column + branch * p.channels;
  }
};

// Padding of per-channel values, in elements after each run, because the last step of a run may be partial.
constexpr int64_t kPadding = 16;

// The runs of an expanded map, branch by branch. Each branch has the same number of runs.
struct Runs {
  std::vector<Run> all;
  int64_t count;  // of one branch

  explicit Runs(const BranchProblem& p) {
    std::vector<int64_t> borders;
    for (const ShiftGroup& group : p.groups) {
      borders.push_back(group.channel_begin % p.channels);
    }
    std::sort(borders.begin(), borders.end());
    borders.erase(std::unique(borders.begin(), borders.end()), borders.end());
    borders.push_back(p.channels);
    count = static_cast<int64_t>(borders.size()) - 1;
    auto group = p.groups.begin();
    for (int64_t k = 0; k < p.branches; ++k) {
      for (int64_t n = 0; n < count; ++n) {
        group += k * p.channels + borders[n] == group->channel_end;
        all.push_back({k, borders[n], borders[n + 1], n * kPadding, *group, {}});
      }
    }
  }

  int64_t padded_channels(const BranchProblem& p) const { return p.channels + count * kPadding; }

  // The runs along row h of the output.
  template <bool kAdjoint>
  std::vector<Run> along(const BranchProblem& p, const MapStrides& stride, int64_t h) const {
    std::vector<Run> runs = all;
    for (Run& run : runs) {
      run.row = group_row<kAdjoint>(run.group, h, p.height, p.width, stride.row, stride.column, p.mode);
    }
    return runs;
  }
};

// The number of tokens in a tile.
template <typename T>
int64_t tile_tokens(const BranchProblem& p, int64_t bytes) {
  return std::max<int64_t>(1, bytes / (p.branches * p.channels * static_cast<int64_t>(sizeof(T))));
}

// Calls walk(tile, ahead) for the tiles of a row, in order. During the call, prefetching starts at token `ahead` of the row.
template <typename T, typename Walk>
S2MLP_INLINE inline void for_each_tile(const BranchProblem& p, int64_t tokens, const Walk& walk) {
  const int64_t ahead_of_tile = tokens_ahead<T>(p.branches * p.channels);
  for (int64_t w = 0; w < p.width; w += tokens) {
    walk(Range<int64_t>{w, std::min(w + tokens, p.width)}, w + tokens + ahead_of_tile);
  }
}

// Calls walk(span) for the spans of a tile: the whole tile if all its tokens are direct, otherwise token by token.
template <typename Walk>
S2MLP_INLINE inline void for_each_span(
    const Range<int64_t>& direct, const Range<int64_t>& tile, const Walk& walk) {
  for (int64_t w = tile.begin; w < tile.end;) {
    const bool is_direct = direct.contains(w) && tile.end <= direct.end;
    const int64_t end = is_direct ? tile.end : w + 1;
    walk(Range<int64_t>{w, end});
    w = end;
  }
}

// Per-channel values in lane order.
template <typename L>
S2MLP_INLINE inline typename L::Step load_channel_values(L, const typename L::Acc* from) {
  typename L::Step step;
  for (int part = 0; part < L::kParts; ++part) {
    step.parts[part] = load_vector<typename L::Vector>(from + part * L::kCount);
  }
  return step;
}

template <typename L>
S2MLP_INLINE inline void store_channel_values(L, typename L::Acc* to, const typename L::Step& step) {
  for (int part = 0; part < L::kParts; ++part) {
    store_vector(to + part * L::kCount, step.parts[part]);
  }
}

// The position of element i of a step in lane order: even elements first, then odd ones, if Lanes works in pairs.
template <typename L>
S2MLP_INLINE inline int64_t lane_of(L, int64_t i) {
  return L::kPairs ? i / 2 + i % 2 * L::kCount : i;
}

// Converts all channels of one branch; values in lane order are padded as above.
template <typename T, int kBytes>
void to_lane_order(const Runs& runs, const accumulator_t<T>* in, accumulator_t<T>* out) {
  for (int64_t n = 0; n < runs.count; ++n) {
    const Run& run = runs.all[n];
    for_each_step<T, kBytes>(run.begin, run.end - run.begin, [&](auto lanes, int64_t first, int64_t count) {
      for (int64_t i = 0; i < count; ++i) {
        out[first + run.padding + lane_of(lanes, i)] = in[first + i];
      }
    });
  }
}

template <typename T, int kBytes>
void from_lane_order(const Runs& runs, const accumulator_t<T>* in, accumulator_t<T>* out) {
  for (int64_t n = 0; n < runs.count; ++n) {
    const Run& run = runs.all[n];
    for_each_step<T, kBytes>(run.begin, run.end - run.begin, [&](auto lanes, int64_t first, int64_t count) {
      for (int64_t i = 0; i < count; ++i) {
        out[first + i] = in[first + run.padding + lane_of(lanes, i)];
      }
    });
  }
}

}  // namespace s2mlp
