// Maps in dense planes: the parameters of one launch, and the offsets of items. Host and device, like token_problem.h.
//
// An item is one store, of up to 16 bytes. If a plane is not a whole number of items, items straddle planes in a pattern that
// repeats every few planes: this is a period. The sources of an item's elements, as distances from the first plane of the period,
// are the same in all periods of a group.
#pragma once

#include <cstdint>
#include <numeric>

#include "block_shape.h"
#include "kernel_groups.h"
#include "leading_axes.h"

namespace s2mlp {

constexpr int kMostItemElements = 8;  // the most elements of an item, of any element size

S2MLP_HOST_DEVICE constexpr int item_elements(int64_t element_size) {
  return element_size * kMostItemElements < 16 ? kMostItemElements : static_cast<int>(16 / element_size);
}

struct PlaneProblem {
  PaddingMode mode;
  int32_t height;
  int32_t width;
  int32_t channels;
  int32_t planes;  // in all images
  int32_t period_planes;
  uint32_t period_bytes;  // of the output
  int32_t element_bytes;
  int32_t channel_stride;  // of the input, in bytes, like image_stride
  int64_t image_stride;
  int32_t periods_per_tile;  // per thread
  Divider by_width;
  Divider by_plane;
  Divider by_channels;
  BlockShape shape;  // rows are periods, columns are the items of a period
  int32_t group_count;
  int32_t search_step;
  KernelGroup groups[kMaxGroups];  // distances in bytes
};

struct PeriodPlace {
  int32_t channel;  // of the first plane
  int32_t planes;  // fewer than period_planes in the last period
  int64_t in;  // offset of the first plane, in bytes
};

S2MLP_HOST_DEVICE PeriodPlace locate_period(const PlaneProblem& p, int32_t period) {
  const int32_t plane = period * p.period_planes;
  const QuotientRemainder image = p.by_channels(plane);
  const int32_t left = p.planes - plane;
  return {
      image.remainder, left < p.period_planes ? left : p.period_planes,
      image.quotient * p.image_stride + int64_t{image.remainder} * p.channel_stride};
}

// The first period of a thread in its tile. Its periods are consecutive, so that most of them belong to one group.
S2MLP_HOST_DEVICE int32_t first_period(const PlaneProblem& p, const ThreadPlace& thread) {
  return (thread.tile * p.shape.rows_of_block + thread.row) * p.periods_per_tile;
}

struct PlaneElement {
  int32_t plane;  // within the period
  int32_t h;
  int32_t w;
};

S2MLP_HOST_DEVICE PlaneElement locate_element(const PlaneProblem& p, int32_t element) {
  const QuotientRemainder plane = p.by_plane(element);
  const QuotientRemainder row = p.by_width(plane.remainder);
  return {plane.quotient, row.quotient, row.remainder};
}

// The distance, in bytes of the input, from the first plane of a period that begins at `channel` to another plane of the period.
S2MLP_HOST_DEVICE int32_t plane_distance(const PlaneProblem& p, int32_t channel, int32_t plane) {
  const bool next_image = channel + plane >= p.channels;
  return plane * p.channel_stride +
      (next_image ? static_cast<int32_t>(p.image_stride - int64_t{p.channels} * p.channel_stride) : 0);
}

S2MLP_HOST_DEVICE const KernelGroup& group_of_plane(const PlaneProblem& p, int32_t channel, int32_t plane) {
  const int32_t c = channel + plane;
  return p.groups[find_group(p, c >= p.channels ? c - p.channels : c)];
}

S2MLP_HOST_DEVICE int32_t position_in_plane(const PlaneProblem& p, int32_t h, int32_t w) {
  return (h * p.width + w) * p.element_bytes;
}

// Whether all planes of a period belong to one group and one image.
S2MLP_HOST_DEVICE bool is_uniform(const PlaneProblem& p, const PeriodPlace& period, int32_t group) {
  const int32_t end = group + 1 < p.group_count ? p.groups[group + 1].channel_begin : p.channels;
  return period.planes == p.period_planes && period.channel + p.period_planes <= end;
}

inline int64_t period_planes_of(const ShiftProblem& p, int64_t element_size) {
  const int64_t item_bytes = item_elements(element_size) * element_size;
  return item_bytes / std::gcd(p.height.size * p.width.size * element_size, item_bytes);
}

// Calls use(PlaneProblem, Grid).
template <bool kAdjoint, typename Use>
void with_plane_launch(const ShiftProblem& p, int64_t element_size, const DeviceLimits& limits, const Use& use) {
  constexpr int64_t kLeastPeriods = 4;  // per thread and tile: finding sources takes as long as several items
  constexpr int64_t kMostPeriods = 16;
  PlaneProblem kernel;
  const int64_t plane = p.height.size * p.width.size;
  kernel.mode = p.mode;
  kernel.height = static_cast<int32_t>(p.height.size);
  kernel.width = static_cast<int32_t>(p.width.size);
  kernel.channels = static_cast<int32_t>(p.channel.size);
  kernel.planes = static_cast<int32_t>(p.leading_size * p.channel.size);
  kernel.period_planes = static_cast<int32_t>(period_planes_of(p, element_size));
  kernel.period_bytes = static_cast<uint32_t>(kernel.period_planes * plane * element_size);
  kernel.element_bytes = static_cast<int32_t>(element_size);
  kernel.channel_stride = static_cast<int32_t>(p.channel.in_stride * element_size);
  kernel.image_stride = p.leading.empty() ? 0 : p.leading[0].in_stride * element_size;
  kernel.by_width = Divider(p.width.size);
  kernel.by_plane = Divider(plane);
  kernel.by_channels = Divider(p.channel.size);
  kernel.group_count = static_cast<int32_t>(p.groups.size());
  kernel.search_step = search_step_of(kernel.group_count);
  for (int32_t g = 0; g < kernel.group_count; ++g) {
    kernel.groups[g] = kernel_group<kAdjoint>(p, p.groups[g], p.width.size * element_size, element_size);
  }
  const int64_t periods = (kernel.planes + kernel.period_planes - 1) / kernel.period_planes;
  const int64_t items = kernel.period_bytes / (item_elements(element_size) * element_size);
  const int64_t threads = int64_t{limits.multiprocessors} * kMinBlocks * kBlockThreads;
  kernel.periods_per_tile = static_cast<int32_t>(std::clamp<int64_t>(periods * items / threads, kLeastPeriods, kMostPeriods));
  const Grid grid = make_grid(periods, items, kernel.periods_per_tile, limits);
  kernel.shape = grid.shape;
  use(kernel, grid);
}

}  // namespace s2mlp
