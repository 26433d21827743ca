// How a call of a branch op is launched: bytes per access, and the work of its blocks. The plan depends on sizes and strides only,
// so that it can be tested without a GPU and for maps larger than any memory. It does not depend on the device: the order of
// summation is the same on every GPU.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../branch_problem.h"
#include "launch_plan.h"

namespace s2mlp {

constexpr int kBranchTokens = 4;      // per thread, with their loads in flight together
constexpr int64_t kEnoughBlocks = 256;  // in kernels that sum over tokens; with fewer, an image's tokens are divided among blocks
constexpr int64_t kBranchLimit = int64_t{1} << 30;  // for 32-bit counts: one bit is kept for sums

// Element strides of the tensors of a branch op; zeros for tensors that it does not have.
struct BranchStrides {
  MapStrides expanded;  // of the map with all branches
  MapStrides combined;  // of the map with the channels of one branch
  int64_t weights;  // from image to image
  int64_t pool_grad;
};

enum class BranchWork : int32_t { kPool, kCombine, kCombineBackward, kCombineBackwardWeights };

// Whether a thread sums over the tokens of an image; otherwise it writes kBranchTokens tokens of a map.
constexpr bool sums_tokens(BranchWork work) { return work == BranchWork::kPool || work == BranchWork::kCombineBackwardWeights; }

// Whether tokens are inputs, whose readers are looked up; otherwise they are outputs.
constexpr bool is_adjoint(BranchWork work) { return work == BranchWork::kPool || work == BranchWork::kCombineBackward; }

struct BranchPlan {
  int vector;  // elements per access: 16 bytes, or one element
  int lanes;  // vectors of channels side by side in a block that sums over tokens; its other threads process other tokens
  int64_t pieces;  // parts into which the tokens of an image are divided, with blocks of their own
  int64_t piece_tokens;  // tokens per piece; the last piece may have fewer
  bool fits;  // whether indices inside an image, and the number of blocks, fit into 32 bits, and any table into kMaxGroups
};

inline int64_t divide_up(int64_t n, int64_t divisor) { return (n + divisor - 1) / divisor; }

inline int64_t branch_lines(const BranchProblem& p, BranchWork work) {
  return work == BranchWork::kCombineBackwardWeights ? p.branches : 1;
}

// The number of blocks for one piece of one image, or of one branch of it, in a launch over `channels` vectors of channels.
inline int64_t branch_tiles(const BranchProblem& p, const BranchPlan& plan, BranchWork work, int64_t channels) {
  return sums_tokens(work) ? divide_up(channels, plan.lanes)
                           : divide_up(divide_up(p.height * p.width, kBranchTokens) * channels, kBlockThreads);
}

// The number of lanes that minimizes the work of all blocks: rounds of kBranchTokens tokens, idle ones included, plus an overhead
// of about one round per block.
inline int choose_lanes(int64_t tokens, int64_t channels, int vector) {
  const int narrowest = vector > 1 ? 8 : 32;
  const auto cost = [&](int lanes) {
    return divide_up(channels, lanes) * (divide_up(tokens, kBlockThreads / lanes * kBranchTokens) + 1);
  };
  int best = narrowest;
  for (const int lanes : {2 * narrowest, 4 * narrowest}) {
    best = cost(lanes) < cost(best) ? lanes : best;
  }
  return best;
}

// Divides the tokens of an image into pieces if there are fewer than kEnoughBlocks blocks. Each thread has kBranchTokens tokens of
// a piece or a multiple, so that tokens that a thread loads together belong to one piece.
inline void divide_tokens(const BranchProblem& p, BranchWork work, BranchPlan& plan) {
  const int64_t rounds = divide_up(p.height * p.width, kBlockThreads / plan.lanes * kBranchTokens);
  const int64_t blocks = p.images * branch_lines(p, work) * branch_tiles(p, plan, work, p.channels / plan.vector);
  if (blocks >= kEnoughBlocks || rounds <= 2) {
    return;
  }
  const int64_t piece_rounds = divide_up(rounds, std::min(rounds, divide_up(2 * kEnoughBlocks, blocks)));
  plan.pieces = divide_up(rounds, piece_rounds);
  plan.piece_tokens = piece_rounds * (kBlockThreads / plan.lanes) * kBranchTokens;
}

// The number of channels per access: a full vector if all accesses are aligned, otherwise 1. `misalignment` is the bitwise OR of
// the misalignments of all base addresses, of maps and of per-channel values.
inline int branch_vector(const BranchProblem& p, const BranchStrides& strides, int64_t element_size, int misalignment) {
  const int full = widest_computed(element_size);
  int64_t bits = misalignment == 0 ? 0 : 1;
  for (const ShiftGroup& group : p.groups) {
    bits |= group.channel_end;
  }
  for (const MapStrides& map : {strides.expanded, strides.combined}) {
    bits |= (p.images > 1 ? map.image : 0) | (p.height > 1 ? map.row : 0) | (p.width > 1 ? map.column : 0);
  }
  bits |= p.images > 1 ? strides.weights | strides.pool_grad : 0;
  return bits % full == 0 ? full : 1;
}

// The number of vectors that an image of these strides and channels spans, from its first to its last.
inline int64_t image_extent(const BranchProblem& p, const MapStrides& map, int64_t channels, int vector) {
  return ((p.height - 1) * map.row + (p.width - 1) * map.column + channels) / vector;
}

inline BranchPlan plan_branches(
    const BranchProblem& p, const BranchStrides& strides, BranchWork work, int64_t element_size, int misalignment) {
  const int64_t tokens = p.height * p.width;
  const int64_t expanded_channels = p.branches * p.channels;
  BranchPlan plan = {branch_vector(p, strides, element_size, misalignment), 1, 1, tokens, false};
  const int64_t channels = p.channels / plan.vector;
  if (p.branches > kMaxGroups || tokens >= kBranchLimit || expanded_channels >= kBranchLimit ||
      image_extent(p, strides.expanded, expanded_channels, plan.vector) >= kBranchLimit ||
      image_extent(p, strides.combined, p.channels, plan.vector) >= kBranchLimit) {
    return plan;
  }
  if (sums_tokens(work)) {
    plan.lanes = choose_lanes(tokens, channels, plan.vector);
    divide_tokens(p, work, plan);
  }
  const int64_t tiles = branch_tiles(p, plan, work, channels);
  plan.fits = tiles * kBlockThreads < kBranchLimit && p.images * branch_lines(p, work) * plan.pieces * tiles < kBranchLimit;
  return plan;
}

}  // namespace s2mlp
