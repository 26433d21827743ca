// The launch planner and the kernels' index arithmetic, callable from Python with numbers alone: no tensors, no PyTorch.
#include "cuda/launch_plan.h"

using namespace s2mlp;

namespace {

// What the kernels compute, once more in 64 bits, from the position of an output element in a contiguous output.
struct Expected {
  int64_t h, w, c, in_map;
  const ShiftGroup* group;
};

Expected expected_at(const ShiftProblem& p, int64_t out_offset, bool channels_innermost) {
  Expected e;
  int64_t rest = out_offset;
  const auto digit = [&rest](int64_t size) {
    const int64_t value = rest % size;
    rest /= size;
    return value;
  };
  if (channels_innermost) {
    e.c = digit(p.channel.size);
    e.w = digit(p.width.size);
    e.h = digit(p.height.size);
  } else {
    e.w = digit(p.width.size);
    e.h = digit(p.height.size);
    e.c = digit(p.channel.size);
  }
  e.in_map = e.c * p.channel.in_stride;
  for (auto axis = p.leading.rbegin(); axis != p.leading.rend(); ++axis) {
    e.in_map += digit(axis->size) * axis->in_stride;
  }
  for (const ShiftGroup& group : p.groups) {
    if (e.c >= group.channel_begin && e.c < group.channel_end) {
      e.group = &group;
    }
  }
  return e;
}

// Whether the kernel's reads for one element, (h, w) with group offsets (dh, dw) at in_offset, are those of the problem.
template <typename Index>
bool reads_as_expected(
    const ShiftProblem& p,
    const Expected& e,
    Index h,
    Index w,
    const KernelGroup<Index>& group,
    int64_t in_offset,
    bool adjoint,
    int64_t last_element) {
  if (h != e.h || w != e.w || group.dh != e.group->dh || group.dw != e.group->dw || in_offset != e.in_map) {
    return false;
  }
  const auto inside = [&](int64_t i, int64_t j) {
    const int64_t offset = in_offset + i * p.height.in_stride + j * p.width.in_stride;
    return i >= 0 && i < p.height.size && j >= 0 && j < p.width.size && offset >= 0 && offset <= last_element;
  };
  if (adjoint) {
    const auto rows = readers(h, group.dh, static_cast<Index>(p.height.size), p.mode);
    const auto columns = readers(w, group.dw, static_cast<Index>(p.width.size), p.mode);
    return rows.size() == 0 || columns.size() == 0 ||
        (inside(rows[0], columns[0]) && inside(rows[rows.size() - 1], columns[columns.size() - 1]));
  }
  const Index i = source_index(h, group.dh, static_cast<Index>(p.height.size), p.mode);
  const Index j = source_index(w, group.dw, static_cast<Index>(p.width.size), p.mode);
  return i < 0 || j < 0 || inside(i, j);
}

// Visits the first and last items and every `step`-th between; returns how many are wrong.
template <typename Visit>
int64_t visit_items(int64_t items, int64_t step, const Visit& wrong) {
  int64_t violations = 0;
  for (int64_t item = 0; item < items; item += step) {
    violations += wrong(item);
  }
  for (int64_t item = std::max<int64_t>(0, items - 4096); item < items; ++item) {
    violations += wrong(item);
  }
  return violations;
}

template <bool kChannelsInnermost, typename Index>
int64_t check_strided(const ShiftProblem& p, const LaunchPlan& plan, bool adjoint, int64_t step) {
  const int64_t last_element = extent(p, &Axis::in_stride) - 1;
  const int vector = plan.vector;
  int64_t violations = 0;
  int64_t covered = 0;
  for_each_table<Index>(p, vector, [&](const StridedProblem<Index>& kernel) {
    covered += kernel.items * vector;
    violations += visit_items(kernel.items, step, [&](int64_t item) {
      const StridedPlace<Index> place = locate(kernel, static_cast<Index>(item));
      // Items in order are outputs in order, so each output has one item.
      const int64_t channels = kernel.channel.size;
      const int64_t all = p.channel.size / vector;
      const int64_t out = kChannelsInnermost ? item / channels * all + kernel.first_channel + item % channels
                                             : ((item / (p.height.size * p.width.size)) / channels * all + kernel.first_channel +
                                                (item / (p.height.size * p.width.size)) % channels) *
                  p.height.size * p.width.size +
              item % (p.height.size * p.width.size);
      if (place.out_offset != out) {
        return 1;
      }
      const Expected e = expected_at(p, out * vector, kChannelsInnermost);
      const bool one_group = e.c + vector <= e.group->channel_end;
      return one_group &&
              reads_as_expected(
                  p, e, place.h, place.w, place.group, int64_t{place.in_offset} * vector, adjoint, last_element - (vector - 1))
          ? 0
          : 1;
    });
  });
  return violations + (covered != p.elements());
}

template <int kVector, bool kAdjoint, typename Index>
int64_t check_planes(const ShiftProblem& p, int misalignment, int64_t step) {
  const int64_t in_extent = extent(p, &Axis::in_stride);
  const PlaneProblem<Index> kernel = plane_problem<Index>(p, kVector, misalignment, in_extent);
  if (kernel.items * kVector < p.elements() || (kernel.items - 1) * kVector >= p.elements()) {
    return 1;
  }
  return visit_items(kernel.items, step, [&](int64_t item) {
    const Index first = static_cast<Index>(item) * kVector;
    for (int v = 0; v < kVector && int64_t{first} + v < p.elements(); ++v) {
      const PlanePlace<Index> place = locate(kernel, static_cast<Index>(first + v));
      if (!reads_as_expected(
              p, expected_at(p, int64_t{first} + v, false), place.h, place.w, place.group, place.in_offset, kAdjoint,
              in_extent - 1)) {
        return 1;
      }
    }
    const ChunkRead<Index> read = chunk_read<kVector, kAdjoint>(kernel, locate(kernel, first), first);
    const int64_t end = int64_t{read.begin} + (read.rest == 0 ? kVector : 2 * kVector);
    const bool aligned = read.begin % kVector == 0;
    return !read.possible || (aligned && read.begin >= misalignment && end <= misalignment + in_extent) ? 0 : 1;
  });
}

template <int kVector, typename Index>
int64_t check_planes(const ShiftProblem& p, int misalignment, bool adjoint, int64_t step) {
  return adjoint ? check_planes<kVector, true, Index>(p, misalignment, step)
                 : check_planes<kVector, false, Index>(p, misalignment, step);
}

template <typename Index>
int64_t check(const ShiftProblem& p, const LaunchPlan& plan, int misalignment, bool adjoint, int64_t step) {
  switch (plan.kernel) {
    case ShiftKernel::kChannelVectors:
      return check_strided<true, Index>(p, plan, adjoint, step);
    case ShiftKernel::kElements:
      return check_strided<false, Index>(p, plan, adjoint, step);
    default:
      break;
  }
  switch (plan.vector) {
    case 2:
      return check_planes<2, Index>(p, misalignment, adjoint, step);
    case 4:
      return check_planes<4, Index>(p, misalignment, adjoint, step);
    case 8:
      return check_planes<8, Index>(p, misalignment, adjoint, step);
    default:
      return check_planes<16, Index>(p, misalignment, adjoint, step);
  }
}

}  // namespace

extern "C" {

// Mirrors of the Python side, field by field.
struct Numbers {
  int64_t leading_count;
  Axis leading[8];
  Axis height, width, channel;
  int64_t group_count;
  const int64_t* offsets;  // dh0, dw0, dh1, ...; channels are cut evenly
  int64_t mode;
  int64_t element_size;
  int64_t in_misalignment, out_misalignment;  // bytes
  int64_t multiprocessors, threads_per_multiprocessor;
};

struct Plan {
  int64_t kernel, vector, index_64, items_per_thread, grid, block;
};

static ShiftProblem problem_of(const Numbers& n) {
  ShiftProblem p;
  p.leading_size = 1;
  for (int64_t d = 0; d < n.leading_count; ++d) {
    p.leading_size *= n.leading[d].size;
    add_leading_axis(p, n.leading[d]);
  }
  p.height = n.height;
  p.width = n.width;
  p.channel = n.channel;
  p.mode = static_cast<PaddingMode>(n.mode);
  for (int64_t g = 0; g < n.group_count; ++g) {
    p.groups.push_back(
        {even_group_begin(g, n.group_count, n.channel.size), even_group_begin(g + 1, n.group_count, n.channel.size),
         reduce_offset(n.offsets[2 * g], n.height.size, p.mode), reduce_offset(n.offsets[2 * g + 1], n.width.size, p.mode)});
  }
  return p;
}

static Misalignment misalignment_of(const Numbers& n) {
  return {static_cast<int>(n.in_misalignment), static_cast<int>(n.out_misalignment)};
}

void s2mlp_plan(const Numbers* n, int64_t elements_computed, Plan* result) {
  const ShiftProblem p = problem_of(*n);
  const LaunchPlan plan = elements_computed ? plan_element_launch(p, n->element_size, misalignment_of(*n))
                                            : plan_launch(p, n->element_size, misalignment_of(*n));
  const DeviceLimits limits = {static_cast<int>(n->multiprocessors), static_cast<int>(n->threads_per_multiprocessor)};
  const int64_t items = (p.elements() + plan.vector - 1) / plan.vector;
  *result = {
      static_cast<int64_t>(plan.kernel),
      plan.vector,
      plan.index_64,
      plan.items_per_thread,
      grid_blocks(items, plan.items_per_thread, limits),
      kBlockThreads};
}

// Items of the planned launch, every `step`-th of them, that write or read where they should not.
int64_t s2mlp_violations(const Numbers* n, int64_t adjoint, int64_t step) {
  const ShiftProblem p = problem_of(*n);
  const LaunchPlan plan = plan_launch(p, n->element_size, misalignment_of(*n));
  const int misalignment = static_cast<int>(n->in_misalignment / n->element_size);
  return plan.index_64 ? check<int64_t>(p, plan, misalignment, adjoint != 0, step)
                       : check<int32_t>(p, plan, misalignment, adjoint != 0, step);
}

// Numbers n for which Divider<int32_t>(divisor) is wrong, of those given.
int64_t s2mlp_wrong_quotients(int64_t divisor, const int64_t* numbers, int64_t count) {
  const Divider<int32_t> divide(divisor);
  int64_t wrong = 0;
  for (int64_t i = 0; i < count; ++i) {
    const auto split = divide(static_cast<int32_t>(numbers[i]));
    wrong += split.quotient != numbers[i] / divisor || split.remainder != numbers[i] % divisor;
  }
  return wrong;
}
}
