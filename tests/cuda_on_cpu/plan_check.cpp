// The shift's launch planner and its kernels' index arithmetic, callable from Python without tensors and without PyTorch.
#include "cuda/launch_plan.h"

using namespace s2mlp;

namespace {

// Reference offsets in bytes, computed in 64 bits from the definition.
struct Truth {
  const ShiftProblem& p;
  int64_t element_size;

  // The offset of channel 0 of the map with this leading index.
  int64_t map_offset(int64_t index, int64_t Axis::* stride) const {
    int64_t offset = 0;
    for (auto axis = p.leading.rbegin(); axis != p.leading.rend(); ++axis) {
      offset += index % axis->size * *axis.*stride;
      index /= axis->size;
    }
    return offset * element_size;
  }

  int64_t offset(int64_t index, int64_t c, int64_t h, int64_t w, int64_t Axis::* stride) const {
    return map_offset(index, stride) + (c * p.channel.*stride + h * p.height.*stride + w * p.width.*stride) * element_size;
  }

  const ShiftGroup& group(int64_t c) const {
    return *std::find_if(p.groups.begin(), p.groups.end(), [c](const ShiftGroup& group) { return c < group.channel_end; });
  }
};

struct Checked {
  int64_t violations = 0;
  int64_t elements = 0;

  void expect(bool right) { violations += !right; }
};

// Calls visit(block) for every `step`-th block and the last ones.
template <typename Visit>
void visit_blocks(int64_t blocks, int64_t step, const Visit& visit) {
  for (int64_t block = 0; block < blocks; block += step) {
    visit(static_cast<int32_t>(block));
  }
  for (int64_t block = std::max<int64_t>(1, blocks - 2); step > 1 && block < blocks; ++block) {
    visit(static_cast<int32_t>(block));
  }
}

// Calls visit(row) for the rows at which a block's tiles begin: all of them, or the first and the last ones.
template <typename Visit>
void visit_tiles(const BlockShape& shape, int32_t first, bool all, const Visit& visit) {
  for (int64_t row = first; row < shape.rows; row += shape.next_tile) {
    if (all || row < int64_t{first} + 2 * shape.next_tile || row >= int64_t{shape.rows} - 2 * shape.next_tile) {
      visit(static_cast<int32_t>(row));
    }
  }
}

template <bool kAdjoint>
void check_token(
    const Truth& truth,
    const TokenProblem& kernel,
    int32_t token,
    int32_t column,
    const TokenChannels& channels,
    Checked& checked) {
  const ShiftProblem& p = truth.p;
  const int64_t w = token % p.width.size;
  const int64_t h = token / p.width.size % p.height.size;
  const int64_t index = token / p.width.size / p.height.size;
  const TokenPlace place = locate_token(kernel, token);
  const uint64_t in = at_token<true>(kernel, multiply_add(column, kernel.in.access, 0), place);
  const uint64_t out = at_token<false>(kernel, multiply_add(column, kernel.out.access, 0), place);
  checked.expect(place.h == h && place.w == w);
  checked.expect(static_cast<int64_t>(in) == truth.offset(index, channels.begin, h, w, &Axis::in_stride));
  checked.expect(static_cast<int64_t>(out) == truth.offset(index, channels.begin, h, w, &Axis::out_stride));
  for (int32_t g = channels.group; g < channels.group_end; ++g) {
    const KernelGroup& group = kernel.groups[g];
    const int64_t c = std::max(channels.begin, group.channel_begin);
    const ShiftGroup& right = truth.group(c);
    const auto rows = sources<kAdjoint>(h, right.dh, p.height.size, p.mode);
    const auto columns = sources<kAdjoint>(w, right.dw, p.width.size, p.mode);
    const int64_t count = rows.size() * columns.size();
    checked.expect(group.dh == right.dh && group.dw == right.dw);
    checked.expect(g == channels.group || first_byte_of_group(kernel, channels, g) == (c - channels.begin) * truth.element_size);
    const int64_t source = truth.offset(index, channels.begin, rows[0], columns[0], &Axis::in_stride);
    if (group.is_direct(h, w)) {
      checked.expect(count == 1 && static_cast<int64_t>(in + group.distance) == source);
    } else if (count > 0) {
      checked.expect(static_cast<int64_t>(move_token(kernel, in, place, rows[0], columns[0])) == source);
    }
  }
  checked.elements += kernel.vector;
}

template <bool kAdjoint>
Checked check_tokens(const Truth& truth, const LaunchPlan& plan, const DeviceLimits& limits, int64_t step) {
  Checked checked;
  const int items = kItemsPerThread;
  for_each_token_launch<kAdjoint>(
      truth.p, plan.vector, truth.element_size, items, limits, [&](const TokenProblem& kernel, const Grid& grid) {
    visit_blocks(grid.blocks, step, [&](int32_t block) {
      for (int32_t thread = 0; thread < grid.threads; ++thread) {
        const ThreadPlace place = locate_thread(kernel.shape, block, thread);
        if (place.column < 0) {
          continue;
        }
        const int32_t column = kernel.first_column + place.column;
        const TokenChannels channels = token_channels(kernel, column);
        visit_tiles(kernel.shape, first_row(kernel.shape, place, items), step == 1, [&](int32_t row) {
          for (int u = 0; u < items && row + u * kernel.shape.rows_of_block < kernel.shape.rows; ++u) {
            check_token<kAdjoint>(truth, kernel, row + u * kernel.shape.rows_of_block, column, channels, checked);
          }
        });
      }
    });
  });
  return checked;
}

void check_element_of_period(const Truth& truth, const PlaneProblem& kernel, int32_t row, int32_t element, Checked& checked) {
  const ShiftProblem& p = truth.p;
  const PeriodPlace period = locate_period(kernel, row);
  const PlaneElement place = locate_element(kernel, element);
  if (place.plane >= period.planes) {
    return;
  }
  const int64_t plane = int64_t{row} * kernel.period_planes + place.plane;
  const int64_t index = plane / p.channel.size;
  const int64_t c = plane % p.channel.size;
  const int64_t out = int64_t{row} * kernel.period_bytes + int64_t{element} * truth.element_size;
  const int64_t in = period.in + plane_distance(kernel, period.channel, place.plane) + position_in_plane(kernel, place.h, place.w);
  const KernelGroup& group = group_of_plane(kernel, period.channel, place.plane);
  const ShiftGroup& right = truth.group(c);
  checked.expect(out == truth.offset(index, c, place.h, place.w, &Axis::out_stride));
  checked.expect(in == truth.offset(index, c, place.h, place.w, &Axis::in_stride));
  checked.expect(group.dh == right.dh && group.dw == right.dw);
  const int32_t found = find_group(kernel, period.channel);
  checked.expect(!is_uniform(kernel, period, found) || &kernel.groups[found] == &group);
  ++checked.elements;
}

template <bool kAdjoint>
Checked check_planes(const Truth& truth, const DeviceLimits& limits, int64_t step) {
  Checked checked;
  with_plane_launch<kAdjoint>(truth.p, truth.element_size, limits, [&](const PlaneProblem& kernel, const Grid& grid) {
    const int elements = item_elements(truth.element_size);
    visit_blocks(grid.blocks, step, [&](int32_t block) {
      for (int32_t thread = 0; thread < grid.threads; ++thread) {
        const ThreadPlace place = locate_thread(kernel.shape, block, thread);
        if (place.column < 0) {
          continue;
        }
        visit_tiles(kernel.shape, first_period(kernel, place), step == 1, [&](int32_t tile) {
          for (int32_t row = tile; row < std::min(tile + kernel.periods_per_tile, kernel.shape.rows); ++row) {
            for (int e = 0; e < elements; ++e) {
              check_element_of_period(truth, kernel, row, place.column * elements + e, checked);
            }
          }
        });
      }
    });
  });
  return checked;
}

Checked check_elements(const Truth& truth, const DeviceLimits& limits, int64_t step) {
  const ShiftProblem& p = truth.p;
  Checked checked;
  const int items = kElementItemsPerThread;
  for_each_element_launch(p, truth.element_size, items, limits, [&](const ElementProblem& kernel, const Grid& grid) {
    visit_blocks(grid.blocks, step, [&](int32_t block) {
      for (int32_t thread = 0; thread < grid.threads; ++thread) {
        const ThreadPlace at = locate_thread(kernel.shape, block, thread);
        if (at.column < 0) {
          continue;
        }
        visit_tiles(kernel.shape, first_row(kernel.shape, at, items), step == 1, [&](int32_t row) {
          for (int u = 0; u < items && row + u * kernel.shape.rows_of_block < kernel.shape.rows; ++u) {
            const int64_t line = row + u * kernel.shape.rows_of_block;
            const ElementPlace place = locate(kernel, static_cast<int32_t>(line), at.column);
            const bool last = p.channels_innermost();
            const int64_t outer = line / (last ? p.width.size : p.height.size);
            const int64_t channels = last ? kernel.shape.columns : kernel.channels;
            const int64_t h = last ? outer % p.height.size : line % p.height.size;
            const int64_t w = last ? line % p.width.size : at.column;
            const int64_t c = kernel.first_channel + (last ? at.column : outer % channels);
            const int64_t index = outer / (last ? p.height.size : channels);
            const ElementGroup& group = kernel.groups[find_group(kernel, place.channel)];
            checked.expect(place.h == h && place.w == w && place.channel == c);
            checked.expect(place.in == truth.offset(index, c, 0, 0, &Axis::in_stride));
            checked.expect(place.out == truth.offset(index, c, h, w, &Axis::out_stride));
            checked.expect(group.dh == truth.group(c).dh && group.dw == truth.group(c).dw);
            ++checked.elements;
          }
        });
      }
    });
  });
  return checked;
}

}  // namespace

extern "C" {

// Mirrors of the Python side, field by field.
struct Numbers {
  int64_t leading_count;
  Axis leading[8];
  Axis height, width, channel;
  int64_t group_count;
  const int64_t* sizes;  // channels of each group
  const int64_t* offsets;  // dh0, dw0, dh1, ...
  int64_t mode;
  int64_t element_size;
  int64_t in_misalignment, out_misalignment;  // bytes
  int64_t multiprocessors, threads_per_multiprocessor;
  int64_t computed;
};

struct Plan {
  int64_t kernel, vector, launches, blocks, threads;
};

static ShiftProblem problem_of(const Numbers& n) {
  ShiftProblem p;
  add_leading_axes(p, {n.leading, n.leading + n.leading_count});
  p.height = n.height;
  p.width = n.width;
  p.channel = n.channel;
  p.mode = static_cast<PaddingMode>(n.mode);
  int64_t begin = 0;
  for (int64_t g = 0; g < n.group_count; ++g) {
    const int64_t end = begin + n.sizes[g];
    if (end > begin) {
      p.groups.push_back(
          {begin, end, reduce_offset(n.offsets[2 * g], n.height.size, p.mode),
           reduce_offset(n.offsets[2 * g + 1], n.width.size, p.mode)});
    }
    begin = end;
  }
  return p;
}

static LaunchPlan plan_of(const Numbers& n) {
  const Misalignment misalignment = {static_cast<int>(n.in_misalignment), static_cast<int>(n.out_misalignment)};
  return plan_launch(problem_of(n), n.element_size, misalignment, n.computed != 0);
}

static DeviceLimits limits_of(const Numbers& n) {
  return {static_cast<int>(n.multiprocessors), static_cast<int>(n.threads_per_multiprocessor)};
}

void s2mlp_plan(const Numbers* n, Plan* result) {
  const ShiftProblem p = problem_of(*n);
  const LaunchPlan plan = plan_of(*n);
  *result = {static_cast<int64_t>(plan.kernel), plan.vector, 0, 0, 0};
  const auto add = [&](const auto&, const Grid& grid) {
    ++result->launches;
    result->blocks += grid.blocks;
    result->threads = grid.threads;
  };
  if (plan.kernel == ShiftKernel::kTokens) {
    for_each_token_launch<false>(p, plan.vector, n->element_size, kItemsPerThread, limits_of(*n), add);
  } else if (plan.kernel == ShiftKernel::kPlanes) {
    with_plane_launch<false>(p, n->element_size, limits_of(*n), add);
  } else if (plan.kernel == ShiftKernel::kElements) {
    for_each_element_launch(p, n->element_size, kElementItemsPerThread, limits_of(*n), add);
  }
}

// Counts, in every `step`-th block of the planned launches, wrong results of its threads and the output elements that they
// computed.
void s2mlp_check(const Numbers* n, int64_t adjoint, int64_t step, int64_t* violations, int64_t* elements) {
  const ShiftProblem p = problem_of(*n);
  const LaunchPlan plan = plan_of(*n);
  const Truth truth = {p, n->element_size};
  Checked checked;
  if (plan.kernel == ShiftKernel::kTokens) {
    checked =
        adjoint ? check_tokens<true>(truth, plan, limits_of(*n), step) : check_tokens<false>(truth, plan, limits_of(*n), step);
  } else if (plan.kernel == ShiftKernel::kPlanes) {
    checked = adjoint ? check_planes<true>(truth, limits_of(*n), step) : check_planes<false>(truth, limits_of(*n), step);
  } else if (plan.kernel == ShiftKernel::kElements) {
    checked = check_elements(truth, limits_of(*n), step);
  }
  *violations = checked.violations;
  *elements = checked.elements;
}

// The number of given numbers n for which Divider(divisor) is wrong.
int64_t s2mlp_wrong_quotients(int64_t divisor, const int64_t* numbers, int64_t count) {
  const Divider divide(divisor);
  int64_t wrong = 0;
  for (int64_t i = 0; i < count; ++i) {
    const auto split = divide(static_cast<int32_t>(numbers[i]));
    wrong += split.quotient != numbers[i] / divisor || split.remainder != numbers[i] % divisor;
  }
  return wrong;
}
}
