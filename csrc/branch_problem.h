// One call of a branch op as numbers. The branches of a split attention lie side by side: a expanded map has K * C channels,
// channel k * C + c being channel c of branch k, and each branch has a shift table of its own. Host only, no PyTorch types.
#pragma once

#include <cstdint>
#include <vector>

#include "shift_problem.h"

namespace s2mlp {

// Element strides of a map (images, H, W, channels) whose channels are neighbours in memory.
struct MapStrides {
  int64_t image;
  int64_t row;
  int64_t column;
};

struct BranchProblem {
  int64_t images;
  int64_t height;
  int64_t width;
  int64_t branches;  // K
  int64_t channels;  // C, of one branch
  std::vector<ShiftGroup> groups;  // of all K * C channels in order; none is empty, none reaches into another branch
  PaddingMode mode;
};

}  // namespace s2mlp
