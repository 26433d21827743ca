// A BranchProblem as the CUDA kernels take it, by value, and which part of it a block and a thread do. Host and device:
// tests walk the same functions through maps that no machine could hold. Indices inside an image have 32 bits, addresses
// have 64.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "launch_plan.h"

namespace s2mlp {

// A launch takes the same channels of every branch, because sums go over the branches. Channels and the strides of maps
// count vectors; the strides of weights and sums count numbers.
struct BranchGroup {
  int32_t channel_begin;
  int32_t dh;
  int32_t dw;
};

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
  Divider<int32_t> by_width;
  Divider<int32_t> by_launch_channels;
  Divider<int32_t> by_tiles;  // blocks are counted by tile, line, image
  Divider<int32_t> by_lines;
  int64_t blocks;
  BranchStrides strides;
  BranchGroup groups[kMaxGroups];  // cut to the channels of this launch, of all branches in order
};

struct BranchBlock {
  int32_t tile;
  int32_t line;  // a branch, where each has a block of its own
  int64_t image;
};

S2MLP_HOST_DEVICE BranchBlock locate_block(const BranchKernelProblem& p, int32_t block) {
  const QuotientRemainder<int32_t> tile = p.by_tiles(block);
  const QuotientRemainder<int32_t> line = p.by_lines(tile.quotient);
  return {tile.remainder, line.remainder, line.quotient};
}

// What a thread of a BranchWork::kMaps launch does: one vector of channels of kBranchTokens tokens that follow each other.
struct BranchItem {
  int32_t channel;
  int32_t first_token;  // may lie behind the image's last one
};

S2MLP_HOST_DEVICE BranchItem locate_item(const BranchKernelProblem& p, int32_t tile, int32_t thread) {
  const QuotientRemainder<int32_t> item = p.by_launch_channels(tile * kBlockThreads + thread);
  return {p.first_channel + item.remainder, item.quotient * kBranchTokens};
}

struct Token {
  int32_t h;
  int32_t w;
};

// The tokens of an item; the image's last one stands in for those behind it.
S2MLP_HOST_DEVICE void locate_tokens(const BranchKernelProblem& p, int32_t first, Token (&tokens)[kBranchTokens]) {
  const QuotientRemainder<int32_t> place = p.by_width(first);
  Token token = {place.quotient, place.remainder};
#if defined(__CUDA_ARCH__)
#pragma unroll
#endif
  for (int u = 0; u < kBranchTokens; ++u) {
    tokens[u] = token;
    if (first + u + 1 < p.tokens && ++token.w == p.width) {
      token.w = 0;
      ++token.h;
    }
  }
}

// The group of channel `c` of branch `k`. `next` is where the branch's groups begin in the table, and is moved on to those
// of the next branch: a loop over the branches looks at each group once.
S2MLP_HOST_DEVICE BranchGroup branch_group(const BranchKernelProblem& p, int32_t k, int32_t c, int& next) {
  BranchGroup group = p.groups[next];
  const int32_t begin = k * p.channels;
  for (++next; next < p.group_count && p.groups[next].channel_begin < begin + p.channels; ++next) {
    if (begin + c >= p.groups[next].channel_begin) {
      group = p.groups[next];
    }
  }
  return group;
}

// The groups of channels [begin, end) of every branch, cut to them; channels count elements.
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

// use(BranchKernelProblem) for each stretch of channels, as long as its groups, of all branches, fit into a table.
template <typename Use>
void for_each_branch_table(const BranchProblem& p, const BranchStrides& strides, int vector, BranchWork work, const Use& use) {
  std::vector<int64_t> borders;  // of groups, in any branch
  for (const ShiftGroup& group : p.groups) {
    borders.push_back((group.channel_end - 1) % p.channels + 1);
  }
  std::sort(borders.begin(), borders.end());
  BranchKernelProblem kernel;
  kernel.mode = p.mode;
  kernel.branches = static_cast<int32_t>(p.branches);
  kernel.height = static_cast<int32_t>(p.height);
  kernel.width = static_cast<int32_t>(p.width);
  kernel.tokens = static_cast<int32_t>(p.height * p.width);
  kernel.channels = static_cast<int32_t>(p.channels / vector);
  kernel.by_width = Divider<int32_t>(p.width);
  const auto in_vectors = [&](const MapStrides& map) {
    return MapStrides{map.image / vector, map.row / vector, map.column / vector};
  };
  kernel.strides = {in_vectors(strides.expanded), in_vectors(strides.combined), strides.weights, strides.pool_grad};
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
      kernel.groups[g] = {
          static_cast<int32_t>(groups[g].channel_begin / vector), static_cast<int32_t>(groups[g].dh),
          static_cast<int32_t>(groups[g].dw)};
    }
    const int64_t channels = (end - begin) / vector;
    const int64_t lines = branch_lines(p, work);
    const int64_t tiles = branch_tiles(p, work, channels, vector);
    kernel.first_channel = static_cast<int32_t>(begin / vector);
    kernel.launch_channels = static_cast<int32_t>(channels);
    kernel.by_launch_channels = Divider<int32_t>(channels);
    kernel.by_tiles = Divider<int32_t>(tiles);
    kernel.by_lines = Divider<int32_t>(lines);
    kernel.blocks = p.images * lines * tiles;
    use(kernel);
    begin = end;
  }
}

}  // namespace s2mlp
