// The launch planner of the branch ops and their kernels' index arithmetic, callable from Python without tensors.
#include "cuda/branch_kernel_problem.h"

using namespace s2mlp;

namespace {

// Calls wrong(block) for the first and last blocks and every `step`-th one in between; returns the number of wrong blocks.
template <typename Wrong>
int64_t visit_blocks(int64_t blocks, int64_t step, const Wrong& wrong) {
  int64_t violations = 0;
  for (int64_t block = 0; block < blocks; block += step) {
    violations += wrong(block);
  }
  for (int64_t block = std::max<int64_t>(0, blocks - 1024); block < blocks; ++block) {
    violations += wrong(block);
  }
  return violations;
}

// One call, whose index arithmetic is checked against 64-bit arithmetic in elements.
struct Checker {
  const BranchProblem& p;
  const BranchStrides& strides;
  const BranchPlan& plan;
  const BranchWork work;

  int64_t tokens() const { return p.height * p.width; }

  const ShiftGroup& group_of(int64_t channel) const {
    size_t g = 0;
    while (channel >= p.groups[g].channel_end) {
      ++g;
    }
    return p.groups[g];
  }

  bool is_offset(uint32_t offset, const MapStrides& map, int64_t h, int64_t w) const {
    return int64_t{offset} * plan.vector == (p.height > 1 ? h * map.row : 0) + (p.width > 1 ? w * map.column : 0);
  }

  bool is_image_begin(int64_t begin, const MapStrides& map, int64_t image) const {
    return begin * plan.vector == (p.images > 1 ? image * map.image : 0);
  }

  bool is_place(const Place& place, int64_t number) const {
    const int64_t h = number / p.width;
    const int64_t w = number % p.width;
    return place.number == number &&
        (number >= tokens() ||
         (place.w == w && is_offset(place.expanded, strides.expanded, h, w) && is_offset(place.combined, strides.combined, h, w)));
  }

  // Whether a group's direct tokens and their sources agree with the index functions.
  bool is_right(const BranchKernelProblem& kernel, const BranchGroup& found, int64_t channel, const Place& place) const {
    const ShiftGroup& group = group_of(channel);
    const int64_t h = place.number / p.width;
    const int64_t w = place.number % p.width;
    const bool adjoint = is_adjoint(work);
    const Range<int64_t> rows =
        adjoint ? direct_range<true>(group.dh, p.height, p.mode) : direct_range<false>(group.dh, p.height, p.mode);
    const Range<int64_t> columns =
        adjoint ? direct_range<true>(group.dw, p.width, p.mode) : direct_range<false>(group.dw, p.width, p.mode);
    if (found.dh != group.dh || found.dw != group.dw || found.is_direct(place) != (rows.contains(h) && columns.contains(w))) {
      return false;
    }
    if (!adjoint) {
      const int64_t i = source_index(h, group.dh, p.height, p.mode);
      const int64_t j = source_index(w, group.dw, p.width, p.mode);
      const int32_t source = source_offset(kernel, found, locate_token(kernel, place.number));
      const bool right = i < 0 || j < 0 ? source < 0 : is_offset(static_cast<uint32_t>(source), strides.expanded, i, j);
      return right && (!found.is_direct(place) || source == static_cast<int32_t>(place.expanded + found.distance));
    }
    const TokenReaders readers = readers_of(kernel, found, locate_token(kernel, place.number));
    return !found.is_direct(place) ||
        (readers.size() == 1 && kernel.combined.offset({readers.rows[0], readers.columns[0]}) == place.combined + found.distance);
  }

  // Checks the places of a thread, from `number` on in steps until `end`: the first few and the last, with the group of every
  // branch.
  bool are_places(
      const BranchKernelProblem& kernel, Place place, int64_t number, int64_t step, int64_t end, int32_t channel, bool inside)
      const {
    for (int n = 0; n < 3 * kBranchTokens && number < end; ++n, number += step, advance(kernel, place)) {
      if (!is_place(place, number)) {
        return false;
      }
      int next = 0;
      for (int32_t k = 0; inside && k < kernel.branches; ++k) {
        const int64_t element = k * p.channels + int64_t{channel} * plan.vector;
        const int group = branch_group(kernel, k, channel, next);
        if (group != group_of_channel(kernel, k * kernel.channels + channel) ||
            !is_right(kernel, kernel.groups[group], element, place)) {
          return false;
        }
      }
    }
    return number < tokens() || !inside || none_is_direct(kernel, place, channel);
  }

  // Whether a thread beyond the image's last token finds no token direct, so that it reads nothing unchecked.
  bool none_is_direct(const BranchKernelProblem& kernel, Place place, int32_t channel) const {
    for (int u = 0; u < kBranchTokens; ++u, advance(kernel, place)) {
      for (int32_t k = 0; k < kernel.branches; ++k) {
        if (kernel.groups[group_of_channel(kernel, k * kernel.channels + channel)].is_direct(place)) {
          return false;
        }
      }
    }
    return true;
  }

  bool is_map_thread(const BranchKernelProblem& kernel, const BranchBlock& block, int thread) const {
    const int64_t flat = int64_t{block.tile} * 256 + thread;
    const int64_t channels = kernel.launch_channels;
    const BranchItem item = locate_item(kernel, block.tile, thread);
    const int64_t first = flat / channels * kBranchTokens;
    return item.channel == kernel.first_channel + flat % channels &&
        are_places(kernel, item.first, first, 1, std::min(first + kBranchTokens, tokens()), item.channel, true);
  }

  bool is_sum_thread(const BranchKernelProblem& kernel, const BranchBlock& block, int thread) const {
    const int64_t lane = int64_t{block.tile} * plan.lanes + thread % plan.lanes;
    const int64_t begin = block.piece * plan.piece_tokens;
    const int64_t end = std::min(begin + plan.piece_tokens, tokens());
    const SumItem item = locate_sum(kernel, block, thread);
    return item.channel == kernel.first_channel + lane && item.end == end && item.inside == (lane < kernel.launch_channels) &&
        are_places(kernel, item.first, begin + thread / plan.lanes, 256 / plan.lanes, end, item.channel, item.inside);
  }

  int64_t check_launch(const BranchKernelProblem& kernel, int64_t step) const {
    const bool sums = sums_tokens(work);
    const int64_t channels = kernel.launch_channels;
    const int64_t lines = work == BranchWork::kCombineBackwardWeights ? p.branches : 1;
    const int64_t quads = (tokens() + kBranchTokens - 1) / kBranchTokens;
    const int64_t tiles = sums ? (channels + plan.lanes - 1) / plan.lanes : (quads * channels + 255) / 256;
    int64_t violations = kernel.blocks != p.images * plan.pieces * lines * tiles;
    violations += kernel.piece_sums != p.images * lines * p.channels;
    return violations + visit_blocks(kernel.blocks, step, [&](int64_t index) {
      const BranchBlock block = locate_block(kernel, static_cast<int32_t>(index));
      if (block.tile != index % tiles || block.line != index / tiles % lines ||
          block.piece != index / tiles / lines % plan.pieces || block.image != index / tiles / lines / plan.pieces ||
          !is_image_begin(kernel.expanded.image_begin(block.image), strides.expanded, block.image) ||
          !is_image_begin(kernel.combined.image_begin(block.image), strides.combined, block.image)) {
        return 1;
      }
      for (int thread = 0; thread < 256; ++thread) {
        if (!(sums ? is_sum_thread(kernel, block, thread) : is_map_thread(kernel, block, thread))) {
          return 1;
        }
      }
      return 0;
    });
  }

  // Checks the threads of every `step`-th block of all launches; returns the number of wrong blocks.
  int64_t check(int64_t step) const {
    int64_t violations = plan.pieces * plan.piece_tokens < tokens() || (plan.pieces - 1) * plan.piece_tokens >= tokens();
    violations += plan.pieces > 1 && plan.piece_tokens % (256 / plan.lanes * kBranchTokens) != 0;
    int64_t covered = 0;
    for_each_branch_table(p, strides, plan, work, [&](const BranchKernelProblem& kernel) {
      violations += kernel.first_channel * int64_t{plan.vector} != covered;
      covered += kernel.launch_channels * int64_t{plan.vector};
      violations += check_launch(kernel, step);
    });
    return violations + (covered != p.channels);
  }
};

}  // namespace

extern "C" {

// Mirrors of the Python side, field by field.
struct BranchNumbers {
  int64_t images, height, width, branches, channels;
  int64_t group_count;
  const int64_t* sizes;
  const int64_t* offsets;  // dh0, dw0, dh1, ...
  int64_t mode;
  int64_t work;
  int64_t element_size;
  int64_t misalignment;  // bytes
  MapStrides expanded, combined;
  int64_t weights, pool_grad;
};

struct BranchPlanned {
  int64_t vector, fits, launches, blocks, lanes, pieces;
};

static BranchProblem branch_problem_of(const BranchNumbers& n) {
  BranchProblem p = {n.images, n.height, n.width, n.branches, n.channels, {}, static_cast<PaddingMode>(n.mode)};
  int64_t begin = 0;
  for (int64_t g = 0; g < n.group_count; ++g) {
    p.groups.push_back(
        {begin, begin + n.sizes[g], reduce_offset(n.offsets[2 * g], n.height, p.mode),
         reduce_offset(n.offsets[2 * g + 1], n.width, p.mode)});
    begin += n.sizes[g];
  }
  return p;
}

static BranchStrides strides_of(const BranchNumbers& n) { return {n.expanded, n.combined, n.weights, n.pool_grad}; }

static BranchPlan branch_plan_of(const BranchNumbers& n) {
  return plan_branches(
      branch_problem_of(n), strides_of(n), static_cast<BranchWork>(n.work), n.element_size, static_cast<int>(n.misalignment));
}

void s2mlp_branch_plan(const BranchNumbers* n, BranchPlanned* result) {
  const BranchPlan plan = branch_plan_of(*n);
  *result = {plan.vector, plan.fits, 0, 0, plan.lanes, plan.pieces};
  if (plan.fits) {
    for_each_branch_table(
        branch_problem_of(*n), strides_of(*n), plan, static_cast<BranchWork>(n->work), [&](const BranchKernelProblem& kernel) {
      ++result->launches;
      result->blocks += kernel.blocks;
    });
  }
}

int64_t s2mlp_branch_violations(const BranchNumbers* n, int64_t step) {
  const BranchProblem p = branch_problem_of(*n);
  const BranchStrides strides = strides_of(*n);
  const BranchPlan plan = branch_plan_of(*n);
  return Checker{p, strides, plan, static_cast<BranchWork>(n->work)}.check(step);
}
}
