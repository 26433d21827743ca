// Which kernel a call takes, how many bytes its accesses and its indices have, and how many blocks it gets: decided from numbers
// alone, so that it can be tested without a GPU and for maps that no machine could hold.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "../shift_problem.h"
#include "kernel_problem.h"

namespace s2mlp {

constexpr int kBlockThreads = 256;
constexpr int kMinBlocks = 3;  // per multiprocessor; left to itself, ptxas spills to fit in more
constexpr int kVectorBytes = 16;  // the widest access
constexpr int kItemsPerThread = 4;
constexpr int kPlaneItemsPerThread = 2;
constexpr int kElementItemsPerThread = 2;  // where elements are computed with, which takes registers
constexpr int kBlocksPerResident = 4;  // grids are capped at this many times what the device holds at once

enum class ShiftKernel : int32_t {
  kChannelVectors,  // channels innermost, neighbours in memory: `vector` channels of a token per item
  kPlaneVectors,    // width innermost, dense planes: 16 bytes of output per item
  kElements,        // anything else: one element per item
};

struct DeviceLimits {
  int multiprocessors;
  int threads_per_multiprocessor;
};

// Bytes by which a tensor's first element misses a 16-byte boundary.
struct Misalignment {
  int in;
  int out;
};

struct LaunchPlan {
  ShiftKernel kernel;
  int vector;            // elements per access
  bool index_64;
  int items_per_thread;  // items whose loads are in flight together
};

// Elements from the first to the last of a tensor of these axes, both included.
inline int64_t extent(const ShiftProblem& p, int64_t Axis::* stride) {
  int64_t last =
      (p.height.size - 1) * p.height.*stride + (p.width.size - 1) * p.width.*stride + (p.channel.size - 1) * p.channel.*stride;
  for (const Axis& axis : p.leading) {
    last += (axis.size - 1) * axis.*stride;
  }
  return last + 1;
}

// An offset can be as large as its axis and a vector can reach past the last element: one bit is kept for the sums.
inline bool fits_32_bits(const ShiftProblem& p) {
  const int64_t limit = std::numeric_limits<int32_t>::max() / 2;
  return std::max({extent(p, &Axis::in_stride), extent(p, &Axis::out_stride), p.elements(), p.height.size, p.width.size}) <= limit;
}

// The largest power of two of channels that can move at once: every group border, every stride and both base addresses
// are multiples of it, and it is at most 16 bytes.
inline int vector_channels(const ShiftProblem& p, int64_t element_size, const Misalignment& misalignment) {
  if (p.channel.in_stride != 1 || p.channel.out_stride != 1) {
    return 1;
  }
  int64_t bits = kVectorBytes / element_size | misalignment.in / element_size | misalignment.out / element_size;
  for (const ShiftGroup& group : p.groups) {
    bits |= group.channel_end;
  }
  const auto add_axis = [&](const Axis& axis) {
    if (axis.size > 1) {
      bits |= axis.in_stride | axis.out_stride;
    }
  };
  add_axis(p.height);
  add_axis(p.width);
  for (const Axis& axis : p.leading) {
    add_axis(axis);
  }
  return static_cast<int>(bits & -bits);
}

// Rows that follow each other without a gap, in both tensors, and output planes that do.
inline bool has_dense_planes(const ShiftProblem& p) {
  const int64_t plane = p.height.size * p.width.size;
  const bool dense_rows = (p.width.size == 1 || (p.width.in_stride == 1 && p.width.out_stride == 1)) &&
      (p.height.size == 1 || (p.height.in_stride == p.width.size && p.height.out_stride == p.width.size));
  const bool dense_output = (p.channel.size == 1 || p.channel.out_stride == plane) &&
      (p.leading.empty() || (p.leading.size() == 1 && p.leading[0].out_stride == plane * p.channel.size));
  return dense_rows && dense_output;
}

inline LaunchPlan plan_launch(const ShiftProblem& p, int64_t element_size, const Misalignment& misalignment) {
  const bool index_64 = !fits_32_bits(p);
  const int full = static_cast<int>(kVectorBytes / element_size);
  if (p.channels_innermost()) {
    int vector = vector_channels(p, element_size, misalignment);
    // Kernels with 64-bit indices exist for full vectors and for single elements only.
    vector = index_64 && vector != full ? 1 : vector;
    return {ShiftKernel::kChannelVectors, vector, index_64, kItemsPerThread};
  }
  if (has_dense_planes(p) && misalignment.out == 0 && p.groups.size() <= kMaxGroups) {
    return {ShiftKernel::kPlaneVectors, full, index_64, kPlaneItemsPerThread};
  }
  return {ShiftKernel::kElements, 1, index_64, kItemsPerThread};
}

// Elements in the vectors of kernels that compute with them. float64 computes for longer than it loads: one at a time.
constexpr int widest_computed(int64_t element_size) { return element_size < 8 ? static_cast<int>(kVectorBytes / element_size) : 1; }

template <typename T>
constexpr int kWidestComputed = widest_computed(sizeof(T));

// Where elements are computed with on their way (GELU): kernels exist for full vectors of channels and for single elements.
inline LaunchPlan plan_element_launch(const ShiftProblem& p, int64_t element_size, const Misalignment& misalignment) {
  const int full = widest_computed(element_size);
  const bool vectors = p.channels_innermost() && vector_channels(p, element_size, misalignment) >= full;
  return {
      p.channels_innermost() ? ShiftKernel::kChannelVectors : ShiftKernel::kElements, vectors ? full : 1, !fits_32_bits(p),
      kElementItemsPerThread};
}

// Blocks for `items` of work; each takes kBlockThreads * items_per_thread items at a time until none are left.
inline int64_t grid_blocks(int64_t items, int items_per_thread, const DeviceLimits& limits) {
  const int64_t tile = int64_t{kBlockThreads} * items_per_thread;
  const int64_t resident = int64_t{limits.multiprocessors} * (limits.threads_per_multiprocessor / kBlockThreads);
  return std::max<int64_t>(1, std::min(kBlocksPerResident * resident, (items + tile - 1) / tile));
}

}  // namespace s2mlp
