// The shift and its adjoint with width as the innermost axis. The unit of work is a stretch of planes (leading index, channels of
// one group) that fits into L1.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <vector>

#include "../shift_problem.h"
#include "blended_planes.h"
#include "cache.h"
#include "epilogue.h"
#include "map_walk.h"
#include "runs.h"

namespace s2mlp {

constexpr int64_t kStretchBytes = 16384;

// A long contiguous run. Only the first and the last store may cross a cache line.
template <typename V, typename T>
S2MLP_INLINE inline void copy_stretch(T* to, const T* from, int64_t count, V) {
  constexpr int64_t kStep = V::kBytes / sizeof(T);
  constexpr int64_t kAhead = kBytesAhead / sizeof(T);
  int64_t i = 0;
  if (count >= kStep) {
    copy_register<V::kBytes>(to, from);
    i = kStep - static_cast<int64_t>(reinterpret_cast<uintptr_t>(to) % V::kBytes / sizeof(T));
  }
  for (; i + kStep <= count; i += kStep) {
    __builtin_prefetch(from + i + kAhead);
    __builtin_prefetch(to + i + kAhead);
    copy_register<V::kBytes>(to + i, from + i);
  }
  copy_dense<V>(to + i, from + i, count - i);
}

// The segments of one axis for one group.
struct AxisMap {
  Segment<int64_t> segments[3];
  int count;

  AxisMap(int64_t offset, int64_t size, PaddingMode mode) : count(axis_segments(offset, size, mode, segments)) {}

  // The longest segment with contiguous inputs, or null.
  const Segment<int64_t>* main() const {
    const Segment<int64_t>* longest = nullptr;
    for (const Segment<int64_t>& s : *this) {
      if (s.step == 1 && (longest == nullptr || s.end - s.begin > longest->end - longest->begin)) {
        longest = &s;
      }
    }
    return longest;
  }

  const Segment<int64_t>* begin() const { return segments; }
  const Segment<int64_t>* end() const { return segments + count; }
};

// Writes the outputs of one segment of rows and one segment of columns, for `count` planes.
template <typename T, typename V>
S2MLP_INLINE inline void copy_rectangle(
    const ShiftProblem& p,
    T* out,
    const T* in,
    int64_t count,
    const Segment<int64_t>& row,
    const Segment<int64_t>& column,
    V vectors) {
  const bool is_column = column.end - column.begin == 1;  // then runs are vertical
  const Axis& outer_axis = is_column ? p.width : p.height;
  const Axis& inner_axis = is_column ? p.height : p.width;
  const Segment<int64_t>& outer = is_column ? column : row;
  const Segment<int64_t>& inner = is_column ? row : column;
  const int64_t run = inner.end - inner.begin;
  const int64_t out_stride = inner_axis.out_stride;
  const int64_t in_stride = inner.step * inner_axis.in_stride;
  out += inner.begin * out_stride;
  for (int64_t i = outer.begin; i < outer.end; ++i) {
    T* to = out + i * outer_axis.out_stride;
    if (outer.source < 0 || inner.source < 0) {
      for (int64_t c = 0; c < count; ++c) {
        zero_run(to + c * p.channel.out_stride, out_stride, run);
      }
    } else {
      const T* from =
          in + (outer.source + (i - outer.begin) * outer.step) * outer_axis.in_stride + inner.source * inner_axis.in_stride;
      for (int64_t c = 0; c < count; ++c) {
        copy_run(to + c * p.channel.out_stride, out_stride, from + c * p.channel.in_stride, in_stride, run, vectors);
      }
    }
  }
}

// Whether planes and their rows are contiguous in input and output.
inline bool planes_are_dense(const ShiftProblem& p) {
  const int64_t plane = p.height.size * p.width.size;
  const auto row_by_row = [&](int64_t width, int64_t height, int64_t channel) {
    return (p.width.size == 1 || width == 1) && (p.height.size == 1 || height == p.width.size) &&
        (p.channel.size == 1 || channel == plane);
  };
  return row_by_row(p.width.in_stride, p.height.in_stride, p.channel.in_stride) &&
      row_by_row(p.width.out_stride, p.height.out_stride, p.channel.out_stride);
}

// The shift of `count` planes, rectangle by rectangle. If planes are contiguous, the main rectangles of all planes are copied as
// one run of memory; values that this writes outside of them are overwritten.
template <typename T, typename V>
S2MLP_INLINE inline void copy_planes(
    const ShiftProblem& p, bool dense, T* out, const T* in, int64_t count, const AxisMap& rows, const AxisMap& columns, V vectors) {
  const Segment<int64_t>* main_row = dense ? rows.main() : nullptr;
  const Segment<int64_t>* main_column = dense ? columns.main() : nullptr;
  const bool at_once = main_row != nullptr && main_column != nullptr;
  if (at_once) {
    const int64_t elements = count * p.height.size * p.width.size;
    const int64_t shift = (main_row->source - main_row->begin) * p.width.size + main_column->source - main_column->begin;
    const int64_t begin = std::max<int64_t>(0, -shift);
    const int64_t end = std::min(elements, elements - shift);
    copy_stretch(out + begin, in + begin + shift, end - begin, vectors);
  }
  for (const Segment<int64_t>& row : rows) {
    for (const Segment<int64_t>& column : columns) {
      if (!(at_once && &row == main_row && &column == main_column)) {
        copy_rectangle(p, out, in, count, row, column, vectors);
      }
    }
  }
}

// The rows and columns of one plane near the border, where the adjoint sums several inputs.
template <typename T, typename V>
S2MLP_INLINE inline void sum_folded(const ShiftProblem& p, T* out, const T* in, const ShiftGroup& group, V) {
  const Axis& height = p.height;
  const Axis& width = p.width;
  const Range<int64_t> rows = folded_range(group.dh, height.size, p.mode);
  for (int64_t h = rows.begin; h < rows.end; ++h) {
    const Sources<int64_t> from_rows = readers(h, group.dh, height.size, p.mode);
    T* row_out = out + h * height.out_stride;
    if (group.dw == 0 && width.in_stride == 1 && width.out_stride == 1) {
      for_each_step<T, V::kBytes>(0, width.size, [&](auto lanes, int64_t first, int64_t count) S2MLP_INLINE {
        const Sources<int64_t> itself = {{0, 1}, {0, 0}};
        store_step(lanes, row_out + first, sum_of_step(lanes, in + first, height.in_stride, 0, from_rows, itself, count), count);
      });
    } else {
      for (int64_t w = 0; w < width.size; ++w) {
        row_out[w * width.out_stride] = sum_of(p, in, from_rows, readers(w, group.dw, width.size, p.mode));
      }
    }
  }
  const Range<int64_t> columns = folded_range(group.dw, width.size, p.mode);
  for (int64_t w = columns.begin; w < columns.end; ++w) {
    const Sources<int64_t> from_columns = readers(w, group.dw, width.size, p.mode);
    for (int64_t h = 0; h < height.size; ++h) {
      out[h * height.out_stride + w * width.out_stride] = sum_of(p, in, readers(h, group.dh, height.size, p.mode), from_columns);
    }
  }
}

// The shift or the adjoint of `count` planes, rectangle by rectangle. The adjoint is a shift by the negative offsets, except for
// rows and columns near the border.
template <bool kAdjoint, typename T, typename V>
S2MLP_INLINE inline void walk_planes_by_rectangles(
    const ShiftProblem& p, bool dense, T* out, const T* in, int64_t count, const ShiftGroup& group, V vectors) {
  if constexpr (kAdjoint) {
    const PaddingMode mode = mode_of_shift_back(p.mode);
    const AxisMap rows(reduce_offset(-group.dh, p.height.size, mode), p.height.size, mode);
    const AxisMap columns(reduce_offset(-group.dw, p.width.size, mode), p.width.size, mode);
    copy_planes(p, dense, out, in, count, rows, columns, vectors);
    for (int64_t c = 0; c < count; ++c) {
      sum_folded(p, out + c * p.channel.out_stride, in + c * p.channel.in_stride, group, vectors);
    }
  } else {
    const AxisMap rows(group.dh, p.height.size, p.mode);
    const AxisMap columns(group.dw, p.width.size, p.mode);
    copy_planes(p, dense, out, in, count, rows, columns, vectors);
  }
}

// Applies the fused operation to planes in place; contiguous planes are one run.
template <typename T, typename Op, typename V>
S2MLP_INLINE inline void finish_planes(
    const ShiftProblem& p, bool dense, T* out, int64_t count, const Epilogue<T, Op>& epilogue, V vectors) {
  if (dense) {
    epilogue.finish(out, int64_t{1}, count * p.height.size * p.width.size, vectors);
    return;
  }
  for (int64_t c = 0; c < count; ++c) {
    for (int64_t h = 0; h < p.height.size; ++h) {
      epilogue.finish(out + c * p.channel.out_stride + h * p.height.out_stride, p.width.out_stride, p.width.size, vectors);
    }
  }
}

// Streaming stores are used only for blended planes without a fused operation: data that bypassed the caches must not be read again.
template <bool kAdjoint, Stores kStores, typename T, typename Op>
void walk_planes(const ShiftProblem& p, const T* in, T* out, const Epilogue<T, Op>& epilogue) {
  const int64_t channels = p.channel.size;
  const int64_t plane_elements = p.height.size * p.width.size;
  const int64_t most = std::max<int64_t>(1, kStretchBytes / static_cast<int64_t>(plane_elements * sizeof(T)));
  const bool dense = planes_are_dense(p);
  const DistinctOffsets distinct(p.groups);
  std::vector<Blend> blends(distinct.offsets.size());
  for (size_t d = 0; dense && d < blends.size(); ++d) {
    blends[d] = make_blend<kAdjoint>(p, distinct.offsets[d], sizeof(T));
  }
  torch::stable::parallel_for(0, p.leading_size * channels, grain_of<T>(plane_elements), [&](int64_t begin, int64_t end) {
    with_vectors<kStores>([&](auto vectors) S2MLP_INLINE {
      constexpr Vectors<decltype(vectors)::kBytes> cached;
      for (int64_t plane = begin, count; plane < end; plane += count) {
        const int64_t c = plane % channels;
        const MapOffset offset = map_offset(p, plane / channels);
        const auto group = std::upper_bound(
            p.groups.begin(), p.groups.end(), c, [](int64_t channel, const ShiftGroup& g) { return channel < g.channel_end; });
        count = std::min({group->channel_end - c, end - plane, most});
        const T* planes_in = in + offset.in + c * p.channel.in_stride;
        T* planes_out = out + offset.out + c * p.channel.out_stride;
        const Blend& blend = blends[distinct.of_group[group - p.groups.begin()]];
        const int64_t elements = count * plane_elements;
        if (blend.period != 0 && elements * static_cast<int64_t>(sizeof(T)) >= kLeastBlendBytes) {
          blend_planes(planes_out, planes_in, elements, blend, vectors);
        } else {
          walk_planes_by_rectangles<kAdjoint>(p, dense, planes_out, planes_in, count, *group, cached);
        }
        finish_planes(p, dense, planes_out, count, epilogue, cached);
      }
    });
    if constexpr (kStores == Stores::kStreaming) {
      finish_streaming();
    }
  });
}

}  // namespace s2mlp
