// A BranchProblem as a kernel argument, passed by value, and the mapping of blocks and threads to work. Host and device: tests
// call the same functions for maps larger than any memory. Indices inside an image have 32 bits, the offset of an image has 64.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "branch_plan.h"

namespace s2mlp {

struct Token {
  int32_t h;
  int32_t w;
};

// The current token of a thread. `number` counts the tokens of an image row by row; beyond the image's last token there is no work.
// Offsets are in vectors; those beyond the last token may wrap and are not used.
struct Place {
  int32_t number;
  int32_t w;
  uint32_t expanded;
  uint32_t combined;
};

// Channels from `channel_begin` on move by (dh, dw) tokens. A direct token has exactly one source, `distance` vectors away,
// whatever the padding mode. Direct are those of the `tokens` tokens from `token_begin` on (whole rows) that lie in the `columns`
// columns from `column_begin` on. There may be none.
struct BranchGroup {
  int32_t channel_begin;
  int32_t dh;
  int32_t dw;
  int32_t distance;
  int32_t token_begin;
  uint32_t tokens;
  int32_t column_begin;
  uint32_t columns;

  // & instead of && avoids a branch.
  S2MLP_HOST_DEVICE bool is_direct(const Place& place) const {
    return (static_cast<uint32_t>(place.number - token_begin) < tokens) & (static_cast<uint32_t>(place.w - column_begin) < columns);
  }
};

// Strides of a map, in vectors.
struct BranchMap {
  int64_t image;
  int32_t row;
  int32_t column;

  S2MLP_HOST_DEVICE int64_t image_begin(int32_t i) const { return i * image; }
  S2MLP_HOST_DEVICE uint32_t offset(const Token& token) const {
    return static_cast<uint32_t>(token.h) * static_cast<uint32_t>(row) +
        static_cast<uint32_t>(token.w) * static_cast<uint32_t>(column);
  }
};

// A launch processes the same channels of every branch, because it sums over the branches. Channels and map strides are in
// vectors; the strides of weights and sums are in elements.
struct BranchKernelProblem {
  PaddingMode mode;
  int32_t group_count;
  int32_t branches;
  int32_t height;
  int32_t width;
  int32_t tokens;    // of an image
  int32_t channels;  // of a branch
  int32_t first_channel;
  int32_t launch_channels;
  int32_t lane_bits;     // log2 of the lanes of a block, in kernels that sum over tokens
  int32_t piece_tokens;
  Place step;  // from a thread's token to its next one
  Place wrap;  // added if the step leaves the row
  Divider by_width;
  Divider by_launch_channels;
  Divider by_tiles;  // blocks are counted by tile, line, piece, image
  Divider by_lines;
  Divider by_pieces;
  int64_t blocks;
  int64_t piece_sums;  // elements that the blocks of one piece write
  BranchMap expanded;
  BranchMap combined;
  int64_t weights;
  int64_t pool_grad;
  BranchGroup groups[kMaxGroups];  // of all branches in order, restricted to the channels of this launch
};

struct BranchBlock {
  int32_t tile;
  int32_t line;   // the branch, if each branch has its own blocks
  int32_t piece;  // of the image's tokens
  int32_t image;
};

S2MLP_HOST_DEVICE BranchBlock locate_block(const BranchKernelProblem& p, int32_t block) {
  const QuotientRemainder tile = p.by_tiles(block);
  const QuotientRemainder line = p.by_lines(tile.quotient);
  const QuotientRemainder piece = p.by_pieces(line.quotient);
  return {tile.remainder, line.remainder, piece.remainder, piece.quotient};
}

S2MLP_HOST_DEVICE Token locate_token(const BranchKernelProblem& p, int32_t number) {
  const QuotientRemainder place = p.by_width(number);
  return {place.quotient, place.remainder};
}

S2MLP_HOST_DEVICE Place locate_place(const BranchKernelProblem& p, int32_t number) {
  const Token token = locate_token(p, number);
  return {number, token.w, p.expanded.offset(token), p.combined.offset(token)};
}

// Moves on to a thread's next token.
S2MLP_HOST_DEVICE void advance(const BranchKernelProblem& p, Place& place) {
  place.number += p.step.number;
  place.w += p.step.w;
  place.expanded += p.step.expanded;
  place.combined += p.step.combined;
  if (place.w >= p.width) {
    place.w += p.wrap.w;
    place.expanded += p.wrap.expanded;
    place.combined += p.wrap.combined;
  }
}

// The work of a thread in kernels that write maps: one vector of channels of kBranchTokens consecutive tokens.
struct BranchItem {
  int32_t channel;
  Place first;  // this token and the following ones may lie beyond the image's last token
};

S2MLP_HOST_DEVICE BranchItem locate_item(const BranchKernelProblem& p, int32_t tile, int32_t thread) {
  const QuotientRemainder item = p.by_launch_channels(tile * kBlockThreads + thread);
  return {p.first_channel + item.remainder, locate_place(p, item.quotient * kBranchTokens)};
}

// The work of a thread in kernels that sum over tokens: one vector of channels of every p.step-th token of a piece.
struct SumItem {
  int32_t channel;
  Place first;  // may lie beyond the piece's last token
  int32_t end;  // of the piece
  bool inside;  // whether the channel belongs to the launch
};

S2MLP_HOST_DEVICE SumItem locate_sum(const BranchKernelProblem& p, const BranchBlock& block, int32_t thread) {
  const int32_t lane = (block.tile << p.lane_bits) + (thread & ((1 << p.lane_bits) - 1));
  const int32_t begin = block.piece * p.piece_tokens;
  const int32_t end = begin + p.piece_tokens;
  return {
      p.first_channel + lane, locate_place(p, begin + (thread >> p.lane_bits)), end < p.tokens ? end : p.tokens,
      lane < p.launch_channels};
}

// The index of the group of channel `c` of branch `k`. `next` is the index of the branch's first group and is advanced to that of
// the next branch, so that a loop over the branches visits each group once.
S2MLP_HOST_DEVICE int branch_group(const BranchKernelProblem& p, int32_t k, int32_t c, int& next) {
  int group = next;
  const int32_t begin = k * p.channels;
  for (++next; next < p.group_count && p.groups[next].channel_begin < begin + p.channels; ++next) {
    if (begin + c >= p.groups[next].channel_begin) {
      group = next;
    }
  }
  return group;
}

// The index of the group of a channel of the expanded map.
S2MLP_HOST_DEVICE int group_of_channel(const BranchKernelProblem& p, int32_t expanded_channel) {
  int group = 0;
  for (int g = 1; g < p.group_count; ++g) {
    group = expanded_channel >= p.groups[g].channel_begin ? g : group;
  }
  return group;
}

// Forward: the offset, in an image of a branch, of the input that a token reads; negative if it reads zero padding.
S2MLP_HOST_DEVICE int32_t source_offset(const BranchKernelProblem& p, const BranchGroup& group, const Token& token) {
  const int32_t h = source_index(token.h, group.dh, p.height, p.mode);
  const int32_t w = source_index(token.w, group.dw, p.width, p.mode);
  return h >= 0 && w >= 0 ? static_cast<int32_t>(p.expanded.offset({h, w})) : -1;
}

// Adjoint: the outputs that read a token.
struct TokenReaders {
  Sources<int32_t> rows;
  Sources<int32_t> columns;

  S2MLP_HOST_DEVICE int32_t size() const { return rows.size() * columns.size(); }
};

S2MLP_HOST_DEVICE TokenReaders readers_of(const BranchKernelProblem& p, const BranchGroup& group, const Token& token) {
  return {readers(token.h, group.dh, p.height, p.mode), readers(token.w, group.dw, p.width, p.mode)};
}

// ---- Host only -------------------------------------------------------------------------------------------------------

// The groups of every branch, restricted to channels [begin, end) of it, in elements.
inline std::vector<ShiftGroup> groups_within(const BranchProblem& p, int64_t begin, int64_t end) {
  std::vector<ShiftGroup> groups;
  for (ShiftGroup group : p.groups) {
    const int64_t branch_begin = group.channel_begin / p.channels * p.channels;
    group.channel_begin = std::max(group.channel_begin, branch_begin + begin);
    group.channel_end = std::min(group.channel_end, branch_begin + end);
    if (group.channel_begin < group.channel_end) {
      groups.push_back(group);
    }
  }
  return groups;
}

inline BranchGroup branch_kernel_group(
    const BranchProblem& p, const BranchKernelProblem& kernel, const ShiftGroup& group, int vector, BranchWork work) {
  const bool adjoint = is_adjoint(work);
  const auto direct = [&](int64_t offset, int64_t size) {
    return adjoint ? direct_range<true>(offset, size, p.mode) : direct_range<false>(offset, size, p.mode);
  };
  const Range<int64_t> rows = direct(group.dh, p.height);
  const Range<int64_t> columns = direct(group.dw, p.width);
  BranchGroup result = {
      static_cast<int32_t>(group.channel_begin / vector), static_cast<int32_t>(group.dh), static_cast<int32_t>(group.dw)};
  // If no token is direct, the distance may exceed the map and 32 bits.
  if (rows.size() > 0 && columns.size() > 0) {
    const BranchMap& map = adjoint ? kernel.combined : kernel.expanded;
    const int64_t forth = group.dh * map.row + group.dw * map.column;
    result.distance = static_cast<int32_t>(adjoint ? forth : -forth);
    result.token_begin = static_cast<int32_t>(rows.begin * p.width);
    result.tokens = static_cast<uint32_t>(rows.size() * p.width);
    result.column_begin = static_cast<int32_t>(columns.begin);
    result.columns = static_cast<uint32_t>(columns.size());
  }
  return result;
}

// Axes of size 1 get a stride of 0, whatever the tensor's stride.
inline BranchMap branch_map(const BranchProblem& p, const MapStrides& map, int vector) {
  return {
      p.images > 1 ? map.image / vector : 0, p.height > 1 ? static_cast<int32_t>(map.row / vector) : 0,
      p.width > 1 ? static_cast<int32_t>(map.column / vector) : 0};
}

// The fields that all launches have in common.
inline BranchKernelProblem branch_kernel_problem(
    const BranchProblem& p, const BranchStrides& strides, const BranchPlan& plan, BranchWork work) {
  BranchKernelProblem kernel;
  kernel.mode = p.mode;
  kernel.branches = static_cast<int32_t>(p.branches);
  kernel.height = static_cast<int32_t>(p.height);
  kernel.width = static_cast<int32_t>(p.width);
  kernel.tokens = static_cast<int32_t>(p.height * p.width);
  kernel.channels = static_cast<int32_t>(p.channels / plan.vector);
  kernel.lane_bits = 0;
  while ((1 << kernel.lane_bits) < plan.lanes) {
    ++kernel.lane_bits;
  }
  kernel.piece_tokens = static_cast<int32_t>(plan.piece_tokens);
  kernel.by_width = Divider(p.width);
  kernel.by_lines = Divider(branch_lines(p, work));
  kernel.by_pieces = Divider(plan.pieces);
  kernel.piece_sums = p.images * branch_lines(p, work) * p.channels;
  kernel.expanded = branch_map(p, strides.expanded, plan.vector);
  kernel.combined = branch_map(p, strides.combined, plan.vector);
  kernel.weights = strides.weights;
  kernel.pool_grad = strides.pool_grad;
  kernel.step = locate_place(kernel, sums_tokens(work) ? kBlockThreads / plan.lanes : 1);
  const auto to_next_row = [&](const BranchMap& map) { return map.offset({1, 0}) - map.offset({0, kernel.width}); };
  kernel.wrap = {0, -kernel.width, to_next_row(kernel.expanded), to_next_row(kernel.combined)};
  return kernel;
}

// Calls use(BranchKernelProblem) for ranges of channels, each as long as possible while its groups, of all branches, fit into a
// table.
template <typename Use>
void for_each_branch_table(
    const BranchProblem& p, const BranchStrides& strides, const BranchPlan& plan, BranchWork work, const Use& use) {
  std::vector<int64_t> borders;  // of groups, in any branch
  for (const ShiftGroup& group : p.groups) {
    borders.push_back((group.channel_end - 1) % p.channels + 1);
  }
  std::sort(borders.begin(), borders.end());
  BranchKernelProblem kernel = branch_kernel_problem(p, strides, plan, work);
  int64_t begin = 0;
  while (begin < p.channels) {
    std::vector<ShiftGroup> groups;
    int64_t end = begin;
    for (auto border = std::upper_bound(borders.begin(), borders.end(), begin); border != borders.end(); ++border) {
      std::vector<ShiftGroup> longer = groups_within(p, begin, *border);
      if (longer.size() > kMaxGroups) {
        break;
      }
      groups = std::move(longer);
      end = *border;
    }
    kernel.group_count = static_cast<int32_t>(groups.size());
    for (int g = 0; g < kernel.group_count; ++g) {
      kernel.groups[g] = branch_kernel_group(p, kernel, groups[g], plan.vector, work);
    }
    const int64_t channels = (end - begin) / plan.vector;
    const int64_t tiles = branch_tiles(p, plan, work, channels);
    kernel.first_channel = static_cast<int32_t>(begin / plan.vector);
    kernel.launch_channels = static_cast<int32_t>(channels);
    kernel.by_launch_channels = Divider(channels);
    kernel.by_tiles = Divider(tiles);
    kernel.blocks = p.images * plan.pieces * branch_lines(p, work) * tiles;
    use(kernel);
    begin = end;
  }
}

}  // namespace s2mlp
