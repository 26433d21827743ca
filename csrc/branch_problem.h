// A call of a branch op: sizes and groups, without tensors. The branches of a split attention lie side by side: an expanded map has
// K * C channels, channel k * C + c is channel c of branch k, and each branch has its own shift table. Host only, no PyTorch types.
#pragma once

#include <cstdint>
#include <vector>

#include "shift_problem.h"

namespace s2mlp {

// Element strides of a map (images, H, W, channels) with contiguous channels.
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
  std::vector<ShiftGroup> groups;  // of all K * C channels, in order; none is empty, none spans two branches
  PaddingMode mode;
};

}  // namespace s2mlp
