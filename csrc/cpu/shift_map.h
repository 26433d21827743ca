// The spatial shift and its adjoint over a map in memory: threaded, any strides, no temporary of the tensor's size.
//
// Both walk the axis that is densest in the output innermost. With channels innermost the unit of
// work is a row of tokens (leading index, h), written in the order of memory, and of copying a token's
// channels of one group; with width innermost it is a plane (leading index, channel) and a row of that plane. Every output
// element is written once, by one thread, in an order that does not depend on the thread count.
//
// What a shift is fused with comes as a Fused: see ShiftAlone.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstring>

#include "../accumulator.h"
#include "../shift_problem.h"
#include "instruction_sets.h"

namespace s2mlp {

constexpr int64_t kGrainElements = 32768;  // below this many elements a second thread costs more than it brings
constexpr int64_t kAccumulators = 128;     // channels summed at a time, small enough for registers and L1
constexpr size_t kMemcpyBytes = 32;        // a shorter run is copied faster in line than by a call

template <typename T>
void copy_run(T* out, int64_t out_stride, const T* in, int64_t in_stride, int64_t count) {
  if (out_stride == 1 && in_stride == 1 && count * sizeof(T) >= kMemcpyBytes) {
    std::memcpy(out, in, count * sizeof(T));
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    out[i * out_stride] = in[i * in_stride];
  }
}

template <typename T>
void zero_run(T* out, int64_t out_stride, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    out[i * out_stride] = T(0);
  }
}

// The segments of one axis for one group.
struct AxisMap {
  Segment<int64_t> segments[3];
  int count;

  AxisMap(int64_t offset, int64_t size, PaddingMode mode) : count(axis_segments(offset, size, mode, segments)) {}

  // The longest stretch whose inputs are neighbours, or null.
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

template <typename T>
void copy_segment(T* row_out, const T* row_in, const Axis& axis, const Segment<int64_t>& segment) {
  T* to = row_out + segment.begin * axis.out_stride;
  const int64_t count = segment.end - segment.begin;
  if (segment.source < 0) {
    zero_run(to, axis.out_stride, count);
  } else {
    copy_run(to, axis.out_stride, row_in + segment.source * axis.in_stride, segment.step * axis.in_stride, count);
  }
}

// One plane (height, width), each axis by its own map. Where rows follow each other without a gap, whole
// stretches of rows are copied at once; what that puts into the columns outside the main segment is
// overwritten row by row.
template <typename T>
void copy_plane(T* out, const T* in, const Axis& height, const Axis& width, const AxisMap& rows, const AxisMap& columns) {
  const bool dense = width.in_stride == 1 && width.out_stride == 1 && height.in_stride == width.size &&
      height.out_stride == width.size;
  const Segment<int64_t>* main = dense ? columns.main() : nullptr;
  for (const Segment<int64_t>& row : rows) {
    const bool at_once = main != nullptr && row.step == 1;
    if (at_once) {
      const int64_t shift = row.source * width.size + main->source - row.begin * width.size - main->begin;
      const int64_t begin = std::max(row.begin * width.size, -shift);
      const int64_t end = std::min(row.end * width.size, height.size * width.size - shift);
      std::memcpy(out + begin, in + begin + shift, (end - begin) * sizeof(T));
    }
    for (const Segment<int64_t>& column : columns) {
      if (at_once && &column == main) {
        continue;
      }
      for (int64_t h = row.begin; h < row.end; ++h) {
        T* row_out = out + h * height.out_stride;
        if (row.source < 0) {
          zero_run(row_out + column.begin * width.out_stride, width.out_stride, column.end - column.begin);
        } else {
          const int64_t source = row.source + (h - row.begin) * row.step;
          copy_segment(row_out, in + source * height.in_stride, width, column);
        }
      }
    }
  }
}

// Where the map of leading index `index` starts.
struct MapOffset {
  int64_t in = 0;
  int64_t out = 0;
};

inline MapOffset map_offset(const ShiftProblem& problem, int64_t index) {
  MapOffset offset;
  for (auto axis = problem.leading.rbegin(); axis != problem.leading.rend(); ++axis) {
    const int64_t position = index % axis->size;
    index /= axis->size;
    offset.in += position * axis->in_stride;
    offset.out += position * axis->out_stride;
  }
  return offset;
}

// Where a run of elements comes from.
template <typename T>
struct Source {
  const T* run;
  int64_t stride;
  int64_t ahead;  // elements from here to what will be read two tokens later
};

// What is done to elements on their way: `move` writes a run to its place, and `finish` is called for each run of outputs
// that was written by other means (summed up, or as part of a plane) and is still in cache. to_ahead is as Source::ahead.
struct ShiftAlone {
  template <typename T, typename Bytes>
  S2MLP_INLINE void move(T* to, int64_t to_stride, int64_t to_ahead, const Source<T>& in, int64_t count, Bytes) const {
    copy_run(to, to_stride, in.run, in.stride, count);
  }
  template <typename T, typename Bytes>
  S2MLP_INLINE void finish(T*, int64_t, int64_t, Bytes) const {}
};

// Finishes a rectangle of the output, as one run where it is dense.
template <typename T, typename Fused, typename Bytes>
S2MLP_INLINE inline void finish_rectangle(const Fused& fused, T* out, const Axis& outer, const Axis& inner, Bytes bytes) {
  if (inner.out_stride == 1 && outer.out_stride == inner.size) {
    fused.finish(out, int64_t{1}, outer.size * inner.size, bytes);
    return;
  }
  for (int64_t i = 0; i < outer.size; ++i) {
    fused.finish(out + i * outer.out_stride, inner.out_stride, inner.size, bytes);
  }
}

// body(in, out, h) for each (leading index, h), pointers at the start of that leading index.
template <typename T, typename Body>
void for_each_row(const ShiftProblem& problem, const T* in, T* out, const Body& body) {
  const int64_t height = problem.height.size;
  const int64_t row_elements = problem.width.size * problem.channel.size;
  const int64_t grain = std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, row_elements));
  torch::stable::parallel_for(0, problem.leading_size * height, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const MapOffset offset = map_offset(problem, row / height);
      body(in + offset.in, out + offset.out, row % height);
    }
  });
}

// body(in, out, group) for each (leading index, channel), pointers at the start of that plane.
template <typename T, typename Body>
void for_each_plane(const ShiftProblem& problem, const T* in, T* out, const Body& body) {
  const int64_t channels = problem.channel.size;
  const int64_t plane_elements = problem.height.size * problem.width.size;
  const int64_t grain = std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, plane_elements));
  torch::stable::parallel_for(0, problem.leading_size * channels, grain, [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const int64_t c = plane % channels;
      const MapOffset offset = map_offset(problem, plane / channels);
      const auto group = std::upper_bound(
          problem.groups.begin(), problem.groups.end(), c,
          [](int64_t channel, const ShiftGroup& g) { return channel < g.channel_end; });
      body(in + offset.in + c * problem.channel.in_stride, out + offset.out + c * problem.channel.out_stride, *group);
    }
  });
}

// Row h of the output of one map, token by token.
template <typename T, typename Fused, typename Bytes>
S2MLP_INLINE inline void shift_row(
    const ShiftProblem& p, const T* map_in, T* map_out, int64_t h, const Fused& fused, Bytes bytes) {
  T* token_out = map_out + h * p.height.out_stride;
  for (int64_t w = 0; w < p.width.size; ++w, token_out += p.width.out_stride) {
    for (const ShiftGroup& group : p.groups) {
      const int64_t source_h = source_index(h, group.dh, p.height.size, p.mode);
      const int64_t source_w = source_index(w, group.dw, p.width.size, p.mode);
      const int64_t run = group.channel_end - group.channel_begin;
      T* to = token_out + group.channel_begin * p.channel.out_stride;
      if (source_h < 0 || source_w < 0) {
        zero_run(to, p.channel.out_stride, run);
      } else {
        const T* from = map_in + source_h * p.height.in_stride + source_w * p.width.in_stride +
            group.channel_begin * p.channel.in_stride;
        fused.move(to, p.channel.out_stride, 2 * p.width.out_stride,
                   Source<T>{from, p.channel.in_stride, 2 * p.width.in_stride}, run, bytes);
      }
    }
  }
}

template <typename T, typename Fused = ShiftAlone>
void shift_forward(const ShiftProblem& p, const T* in, T* out, const Fused& fused = {}) {
  if (p.channels_innermost()) {
    for_each_row(p, in, out, [&](const T* map_in, T* map_out, int64_t h) {
      with_widest_instructions([&](auto bytes) S2MLP_INLINE { shift_row(p, map_in, map_out, h, fused, bytes); });
    });
    return;
  }
  for_each_plane(p, in, out, [&](const T* plane_in, T* plane_out, const ShiftGroup& group) {
    copy_plane(plane_out, plane_in, p.height, p.width, AxisMap(group.dh, p.height.size, p.mode),
               AxisMap(group.dw, p.width.size, p.mode));
    with_widest_instructions([&](auto bytes) S2MLP_INLINE { finish_rectangle(fused, plane_out, p.height, p.width, bytes); });
  });
}

// The outputs that read one input, as a rectangle of the map.
struct Readers {
  Range<int64_t> rows;
  Range<int64_t> columns;
};

// The loops of the two functions below are written twice, so that the compiler vectorises them where strides are one.
template <typename T>
void add_run(accumulator_t<T>* sums, const T* in, int64_t in_stride, int64_t count) {
  if (in_stride == 1) {
    for (int64_t r = 0; r < count; ++r) {
      sums[r] += static_cast<accumulator_t<T>>(in[r]);
    }
    return;
  }
  for (int64_t r = 0; r < count; ++r) {
    sums[r] += static_cast<accumulator_t<T>>(in[r * in_stride]);
  }
}

template <typename T>
void store_run(T* out, int64_t out_stride, const accumulator_t<T>* sums, int64_t count) {
  if (out_stride == 1) {
    for (int64_t r = 0; r < count; ++r) {
      out[r] = static_cast<T>(sums[r]);
    }
    return;
  }
  for (int64_t r = 0; r < count; ++r) {
    out[r * out_stride] = static_cast<T>(sums[r]);
  }
}

// Sums over `readers`, for `count` neighbours along the axis `run`: out[r] = sum of in[reader, r].
template <typename T>
void sum_readers(const ShiftProblem& p, T* out, const T* in, const Readers& readers, const Axis& run, int64_t count) {
  accumulator_t<T> sums[kAccumulators];
  for (int64_t first = 0; first < count; first += kAccumulators) {
    const int64_t block = std::min(kAccumulators, count - first);
    std::fill(sums, sums + block, accumulator_t<T>(0));
    for (int64_t h = readers.rows.begin; h < readers.rows.end; ++h) {
      for (int64_t w = readers.columns.begin; w < readers.columns.end; ++w) {
        const T* from = in + h * p.height.in_stride + w * p.width.in_stride + first * run.in_stride;
        add_run(sums, from, run.in_stride, block);
      }
    }
    store_run(out + first * run.out_stride, run.out_stride, sums, block);
  }
}

// Under replicate, the border row and column of a plane whose tokens have more than one reader.
template <typename T>
void sum_plane_border(const ShiftProblem& p, T* out, const T* in, const ShiftGroup& group) {
  const int64_t border_h = group.dh > 0 ? 0 : p.height.size - 1;
  const int64_t border_w = group.dw > 0 ? 0 : p.width.size - 1;
  const Range<int64_t> rows = reader_range(border_h, group.dh, p.height.size, p.mode);
  const Range<int64_t> columns = reader_range(border_w, group.dw, p.width.size, p.mode);
  T* row_out = out + border_h * p.height.out_stride;
  T* column_out = out + border_w * p.width.out_stride;
  if (group.dw == 0) {
    sum_readers(p, row_out, in, {rows, {0, 1}}, p.width, p.width.size);
  } else if (group.dh == 0) {
    sum_readers(p, column_out, in, {{0, 1}, columns}, p.height, p.height.size);
  } else {
    for (int64_t w = 0; w < p.width.size; ++w) {
      sum_readers(p, row_out + w * p.width.out_stride, in,
                  {rows, reader_range(w, group.dw, p.width.size, p.mode)}, p.width, 1);
    }
    for (int64_t h = 0; h < p.height.size; ++h) {
      sum_readers(p, column_out + h * p.height.out_stride, in,
                  {reader_range(h, group.dh, p.height.size, p.mode), columns}, p.height, 1);
    }
  }
}

// Row h of the adjoint's output.
template <typename T, typename Fused, typename Bytes>
S2MLP_INLINE inline void adjoint_row(
    const ShiftProblem& p, const T* map_in, T* map_out, int64_t h, const Fused& fused, Bytes bytes) {
  T* token_out = map_out + h * p.height.out_stride;
  for (int64_t w = 0; w < p.width.size; ++w, token_out += p.width.out_stride) {
    for (const ShiftGroup& group : p.groups) {
      const Range<int64_t> rows = reader_range(h, group.dh, p.height.size, p.mode);
      const Range<int64_t> columns = reader_range(w, group.dw, p.width.size, p.mode);
      const int64_t readers = (rows.end - rows.begin) * (columns.end - columns.begin);
      const int64_t run = group.channel_end - group.channel_begin;
      const T* group_in = map_in + group.channel_begin * p.channel.in_stride;
      T* to = token_out + group.channel_begin * p.channel.out_stride;
      if (readers == 1) {
        const T* from = group_in + rows.begin * p.height.in_stride + columns.begin * p.width.in_stride;
        fused.move(to, p.channel.out_stride, 2 * p.width.out_stride,
                   Source<T>{from, p.channel.in_stride, 2 * p.width.in_stride}, run, bytes);
      } else if (readers == 0) {
        zero_run(to, p.channel.out_stride, run);
      } else {
        sum_readers(p, to, group_in, {rows, columns}, p.channel, run);
        fused.finish(to, p.channel.out_stride, run, bytes);
      }
    }
  }
}

// Here `in` is the gradient of the shift's output and `out` that of its input.
template <typename T, typename Fused = ShiftAlone>
void shift_adjoint(const ShiftProblem& p, const T* in, T* out, const Fused& fused = {}) {
  if (p.channels_innermost()) {
    for_each_row(p, in, out, [&](const T* map_in, T* map_out, int64_t h) {
      with_widest_instructions([&](auto bytes) S2MLP_INLINE { adjoint_row(p, map_in, map_out, h, fused, bytes); });
    });
    return;
  }
  // Away from the border the adjoint is the shift back; under replicate the border adds up its readers.
  const PaddingMode back = p.mode == PaddingMode::kCircular ? p.mode : PaddingMode::kZeros;
  for_each_plane(p, in, out, [&](const T* plane_in, T* plane_out, const ShiftGroup& group) {
    copy_plane(plane_out, plane_in, p.height, p.width,
               AxisMap(reduce_offset(-group.dh, p.height.size, back), p.height.size, back),
               AxisMap(reduce_offset(-group.dw, p.width.size, back), p.width.size, back));
    if (p.mode == PaddingMode::kReplicate && (group.dh != 0 || group.dw != 0)) {
      sum_plane_border(p, plane_out, plane_in, group);
    }
    with_widest_instructions([&](auto bytes) S2MLP_INLINE { finish_rectangle(fused, plane_out, p.height, p.width, bytes); });
  });
}

}  // namespace s2mlp
