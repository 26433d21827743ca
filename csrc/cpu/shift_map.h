// The spatial shift and its adjoint over a map in memory: threaded, any strides, no temporary of the tensor's size.
//
// Both walk the axis that is densest in the output innermost. With channels innermost the unit of work is a row of tokens
// (leading index, h), written in the order of memory, and of copying the channels of one group of a token; with width
// innermost it is a few planes (leading index, channels of one group). Every output element is computed by one thread, in an
// order that does not depend on the thread count.
//
// What a shift is fused with comes as a Fused: see ShiftAlone.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstring>

#include "../shift_problem.h"
#include "instruction_sets.h"
#include "lanes.h"
#include "threads.h"

namespace s2mlp {

constexpr int64_t kAheadBytes = 2048;     // from what is read to what is asked for, in a stretch
constexpr int64_t kStretchBytes = 16384;  // of planes, copied at once and then mended while they are in L1

template <int kBytes>
S2MLP_INLINE inline void copy_register(void* to, const void* from) {
  typedef char Register __attribute__((vector_size(kBytes)));
  Register bytes;
  std::memcpy(&bytes, from, kBytes);
  std::memcpy(to, &bytes, kBytes);
}

// kBytes to twice as many, as two registers that may overlap.
template <int kBytes>
S2MLP_INLINE inline void copy_two_registers(char* to, const char* from, int64_t bytes) {
  copy_register<kBytes>(to, from);
  copy_register<kBytes>(to + bytes - kBytes, from + bytes - kBytes);
}

template <typename T>
void copy_run(T* out, int64_t out_stride, const T* in, int64_t in_stride, int64_t count) {
  const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
  if (out_stride == 1 && in_stride == 1 && bytes >= 8) {
    char* to = reinterpret_cast<char*>(out);
    const char* from = reinterpret_cast<const char*>(in);
    if (bytes > 32) {
      std::memcpy(to, from, bytes);
    } else if (bytes > 16) {
      copy_two_registers<16>(to, from, bytes);
    } else {
      copy_two_registers<8>(to, from, bytes);
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    out[i * out_stride] = in[i * in_stride];
  }
}

// A run without gaps, memory being asked for so many elements ahead.
template <int kBytes, typename T>
S2MLP_INLINE inline void copy_dense(T* to, const T* from, int64_t count, int64_t to_ahead, int64_t from_ahead) {
  constexpr int64_t kStep = kBytes / sizeof(T);
  if (count < kStep) {
    copy_run(to, 1, from, 1, count);
    return;
  }
  int64_t i = 0;
  for (; i + kStep <= count; i += kStep) {
    __builtin_prefetch(from + i + from_ahead);
    __builtin_prefetch(to + i + to_ahead, 1);
    copy_register<kBytes>(to + i, from + i);
  }
  if (i < count) {
    copy_register<kBytes>(to + count - kStep, from + count - kStep);  // the rest, with some of what is there already
  }
}

// The same for a long run: no store but the first and the last goes to two cache lines.
template <int kBytes, typename T>
S2MLP_INLINE inline void copy_stretch(T* to, const T* from, int64_t count) {
  constexpr int64_t kStep = kBytes / sizeof(T);
  constexpr int64_t kAhead = kAheadBytes / sizeof(T);
  int64_t first = 0;
  if (count >= kStep) {
    copy_register<kBytes>(to, from);
    first = kStep - static_cast<int64_t>(reinterpret_cast<uintptr_t>(to) % kBytes / sizeof(T));
  }
  copy_dense<kBytes>(to + first, from + first, count - first, kAhead, kAhead);
}

template <typename T>
void zero_run(T* out, int64_t out_stride, int64_t count) {
  if (out_stride == 1) {
    std::memset(static_cast<void*>(out), 0, count * sizeof(T));
    return;
  }
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

// The outputs of one segment of rows and one of columns, of `count` planes.
template <typename T>
S2MLP_INLINE inline void copy_rectangle(
    T* out,
    const T* in,
    int64_t count,
    const Axis& channel,
    const Axis& height,
    const Axis& width,
    const Segment<int64_t>& row,
    const Segment<int64_t>& column) {
  const bool is_column = column.end - column.begin == 1;  // then runs go down
  const Axis& outer_axis = is_column ? width : height;
  const Axis& inner_axis = is_column ? height : width;
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
        zero_run(to + c * channel.out_stride, out_stride, run);
      }
    } else {
      const T* from =
          in + (outer.source + (i - outer.begin) * outer.step) * outer_axis.in_stride + inner.source * inner_axis.in_stride;
      for (int64_t c = 0; c < count; ++c) {
        copy_run(to + c * channel.out_stride, out_stride, from + c * channel.in_stride, in_stride, run);
      }
    }
  }
}

// Whether planes of neighbouring channels follow each other in memory row by row, without a gap.
inline bool planes_are_dense(int64_t count, const Axis& channel, const Axis& height, const Axis& width) {
  const int64_t plane = height.size * width.size;
  return width.in_stride == 1 && width.out_stride == 1 && height.in_stride == width.size && height.out_stride == width.size &&
      (count == 1 || (channel.in_stride == plane && channel.out_stride == plane));
}

// `count` planes (height, width) of neighbouring channels, each axis by its own map. Where all lies without a gap, one stretch
// of memory is copied at once; what that puts outside of the main segments is overwritten.
template <typename T, typename Bytes>
S2MLP_INLINE inline void copy_planes(
    T* out,
    const T* in,
    int64_t count,
    const Axis& channel,
    const Axis& height,
    const Axis& width,
    const AxisMap& rows,
    const AxisMap& columns,
    Bytes) {
  const int64_t plane = height.size * width.size;
  const bool dense = planes_are_dense(count, channel, height, width);
  const Segment<int64_t>* main_row = dense ? rows.main() : nullptr;
  const Segment<int64_t>* main_column = dense ? columns.main() : nullptr;
  const bool at_once = main_row != nullptr && main_column != nullptr;
  if (at_once) {
    const int64_t shift = (main_row->source - main_row->begin) * width.size + main_column->source - main_column->begin;
    const int64_t begin = std::max<int64_t>(0, -shift);
    const int64_t end = std::min(count * plane, count * plane - shift);
    copy_stretch<Bytes::value>(out + begin, in + begin + shift, end - begin);
  }
  for (const Segment<int64_t>& row : rows) {
    for (const Segment<int64_t>& column : columns) {
      if (at_once && &row == main_row && &column == main_column) {
        continue;
      }
      if (dense && rows.count == 1 && row.step == 1) {  // nothing moves down or up: as one tall plane
        copy_rectangle(out, in, 1, channel, height, width, Segment<int64_t>{0, count * height.size, 0, 1}, column);
      } else {
        copy_rectangle(out, in, count, channel, height, width, row, column);
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
    if (to_stride == 1 && in.stride == 1) {
      copy_dense<Bytes::value>(to, in.run, count, to_ahead, in.ahead);
    } else {
      copy_run(to, to_stride, in.run, in.stride, count);
    }
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

// body(in, out, group, count) for stretches of `count` channels of one leading index and one group, pointers at the first plane.
template <typename T, typename Body>
void for_each_planes(const ShiftProblem& problem, const T* in, T* out, const Body& body) {
  const int64_t channels = problem.channel.size;
  const int64_t plane_elements = std::max<int64_t>(1, problem.height.size * problem.width.size);
  const int64_t grain = std::max<int64_t>(1, kGrainElements / plane_elements);
  const int64_t most = std::max<int64_t>(1, kStretchBytes / static_cast<int64_t>(plane_elements * sizeof(T)));
  torch::stable::parallel_for(0, problem.leading_size * channels, grain, [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin, count; plane < end; plane += count) {
      const int64_t c = plane % channels;
      const MapOffset offset = map_offset(problem, plane / channels);
      const auto group = std::upper_bound(
          problem.groups.begin(), problem.groups.end(), c,
          [](int64_t channel, const ShiftGroup& g) { return channel < g.channel_end; });
      count = std::min({group->channel_end - c, end - plane, most});
      body(in + offset.in + c * problem.channel.in_stride, out + offset.out + c * problem.channel.out_stride, *group, count);
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

// Planes one after the other, while they are in cache.
template <typename T, typename Fused, typename Bytes>
S2MLP_INLINE inline void finish_planes(const ShiftProblem& p, T* out, int64_t count, const Fused& fused, Bytes bytes) {
  for (int64_t c = 0; c < count; ++c) {
    finish_rectangle(fused, out + c * p.channel.out_stride, p.height, p.width, bytes);
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
  for_each_planes(p, in, out, [&](const T* planes_in, T* planes_out, const ShiftGroup& group, int64_t count) {
    const AxisMap rows(group.dh, p.height.size, p.mode);
    const AxisMap columns(group.dw, p.width.size, p.mode);
    with_widest_instructions([&](auto bytes) S2MLP_INLINE {
      copy_planes(planes_out, planes_in, count, p.channel, p.height, p.width, rows, columns, bytes);
      finish_planes(p, planes_out, count, fused, bytes);
    });
  });
}

// The outputs that read one input, as a rectangle of the map.
struct Readers {
  Range<int64_t> rows;
  Range<int64_t> columns;
};

// The sum over one rectangle of a plane.
template <typename T>
S2MLP_INLINE inline T sum_of(const ShiftProblem& p, const T* in, const Readers& readers) {
  accumulator_t<T> sum(0);
  for (int64_t h = readers.rows.begin; h < readers.rows.end; ++h) {
    for (int64_t w = readers.columns.begin; w < readers.columns.end; ++w) {
      sum += static_cast<accumulator_t<T>>(in[h * p.height.in_stride + w * p.width.in_stride]);
    }
  }
  return static_cast<T>(sum);
}

// The same for `count` neighbouring channels.
template <typename T, typename Bytes>
S2MLP_INLINE inline void sum_readers(const ShiftProblem& p, T* out, const T* in, const Readers& readers, int64_t count, Bytes) {
  if (p.channel.in_stride != 1 || p.channel.out_stride != 1) {
    for (int64_t c = 0; c < count; ++c) {
      out[c * p.channel.out_stride] = sum_of(p, in + c * p.channel.in_stride, readers);
    }
    return;
  }
  for_each_step<T, Bytes::value>(0, count, [&](auto lanes, int64_t first, int64_t step_count) S2MLP_INLINE {
    typename decltype(lanes)::Step sum{};
    for (int64_t h = readers.rows.begin; h < readers.rows.end; ++h) {
      for (int64_t w = readers.columns.begin; w < readers.columns.end; ++w) {
        const auto values =
            load_step(lanes, in + h * p.height.in_stride + w * p.width.in_stride + first, step_count);
        for (int part = 0; part < decltype(lanes)::kParts; ++part) {
          sum.parts[part] += values.parts[part];
        }
      }
    }
    store_step(lanes, out + first, sum, step_count);
  });
}

// A line of `count` tokens, each the sum of `readers` inputs: out[i] = sum over r of in[i, r].
template <typename T>
S2MLP_INLINE inline void sum_line(
    T* out, int64_t out_stride, const T* in, int64_t in_stride, int64_t reader_stride, int64_t readers, int64_t count) {
  if (readers == 2) {  // a shift by one token
    for (int64_t i = 0; i < count; ++i) {
      const T* from = in + i * in_stride;
      out[i * out_stride] = static_cast<T>(
          static_cast<accumulator_t<T>>(from[0]) + static_cast<accumulator_t<T>>(from[reader_stride]));
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    accumulator_t<T> sum(0);
    for (int64_t r = 0; r < readers; ++r) {
      sum += static_cast<accumulator_t<T>>(in[i * in_stride + r * reader_stride]);
    }
    out[i * out_stride] = static_cast<T>(sum);
  }
}

// A line of `count` tokens, each the sum of two inputs that lie beside each other: the two halves of one word.
template <int kBytes>
S2MLP_INLINE inline void sum_pairs(
    torch::headeronly::BFloat16* out,
    int64_t out_stride,
    const torch::headeronly::BFloat16* in,
    int64_t in_stride,
    int64_t count) {
  using L = Lanes<torch::headeronly::BFloat16, kBytes>;
  constexpr int64_t kWords = 128;
  for (int64_t first = 0; first < count; first += kWords) {
    const int64_t words = std::min(kWords, count - first);
    torch::headeronly::BFloat16 pairs[2 * kWords] = {};
    for (int64_t i = 0; i < words; ++i) {
      std::memcpy(static_cast<void*>(pairs + 2 * i), in + (first + i) * in_stride, 4);
    }
    for (int64_t i = 0; i < 2 * words; i += L::kStep) {
      typename L::Step step = L::load(pairs + i);
      step.parts[0] += step.parts[1];
      L::store(pairs + i, step);
    }
    for (int64_t i = 0; i < words; ++i) {
      out[(first + i) * out_stride] = pairs[2 * i];
    }
  }
}

// A line of `count` tokens without gaps, each the sum of `readers` inputs, in registers of at most kBytes that may overlap.
template <int kBytes, typename T>
S2MLP_INLINE inline void sum_dense_line(T* out, const T* in, int64_t reader_stride, int64_t readers, int64_t count) {
  using L = Lanes<T, kBytes>;
  if (count < L::kStep) {
    if constexpr (kBytes > 16) {
      sum_dense_line<kBytes / 2>(out, in, reader_stride, readers, count);
    } else {
      sum_line(out, 1, in, 1, reader_stride, readers, count);
    }
    return;
  }
  for (int64_t i = 0;; i = std::min(i + L::kStep, count - L::kStep)) {
    typename L::Step sum{};
    for (int64_t r = 0; r < readers; ++r) {
      const typename L::Step values = L::load(in + i + r * reader_stride);
      for (int part = 0; part < L::kParts; ++part) {
        sum.parts[part] += values.parts[part];
      }
    }
    L::store(out + i, sum);
    if (i == count - L::kStep) {
      return;
    }
  }
}

template <int kBytes, typename T>
S2MLP_INLINE inline void sum_column(
    T* out, int64_t out_stride, const T* in, int64_t in_stride, int64_t reader_stride, int64_t readers, int64_t count) {
  if constexpr (std::is_same_v<T, torch::headeronly::BFloat16>) {
    if (readers == 2 && reader_stride == 1) {
      sum_pairs<kBytes>(out, out_stride, in, in_stride, count);
      return;
    }
  }
  sum_line(out, out_stride, in, in_stride, reader_stride, readers, count);
}

// Under replicate, the border row and column of `count` planes, whose tokens have more than one reader.
template <typename T, typename Bytes>
S2MLP_INLINE inline void sum_plane_borders(
    const ShiftProblem& p, T* out, const T* in, const ShiftGroup& group, int64_t count, Bytes) {
  const Axis& height = p.height;
  const Axis& width = p.width;
  const int64_t border_h = group.dh > 0 ? 0 : height.size - 1;
  const int64_t border_w = group.dw > 0 ? 0 : width.size - 1;
  const Range<int64_t> rows = reader_range(border_h, group.dh, height.size, p.mode);
  const Range<int64_t> columns = reader_range(border_w, group.dw, width.size, p.mode);
  T* row_out = out + border_h * height.out_stride;
  T* column_out = out + border_w * width.out_stride;
  if (group.dh == 0) {
    const T* from = in + columns.begin * width.in_stride;
    const int64_t readers = columns.end - columns.begin;
    const bool tall = planes_are_dense(count, p.channel, height, width);  // as one tall plane
    const int64_t tokens = tall ? count * height.size : height.size;
    for (int64_t c = 0; c < (tall ? 1 : count); ++c) {
      sum_column<Bytes::value>(column_out + c * p.channel.out_stride, height.out_stride, from + c * p.channel.in_stride,
                               height.in_stride, width.in_stride, readers, tokens);
    }
    return;
  }
  if (group.dw == 0) {
    const T* from = in + rows.begin * height.in_stride;
    const int64_t readers = rows.end - rows.begin;
    const bool dense = width.in_stride == 1 && width.out_stride == 1;
    for (int64_t c = 0; c < count; ++c, row_out += p.channel.out_stride, from += p.channel.in_stride) {
      if (dense) {
        sum_dense_line<Bytes::value>(row_out, from, height.in_stride, readers, width.size);
      } else {
        sum_line(row_out, width.out_stride, from, width.in_stride, height.in_stride, readers, width.size);
      }
    }
    return;
  }
  for (int64_t c = 0; c < count; ++c) {
    const T* plane_in = in + c * p.channel.in_stride;
    for (int64_t w = 0; w < width.size; ++w) {
      row_out[c * p.channel.out_stride + w * width.out_stride] =
          sum_of(p, plane_in, Readers{rows, reader_range(w, group.dw, width.size, p.mode)});
    }
    for (int64_t h = 0; h < height.size; ++h) {
      column_out[c * p.channel.out_stride + h * height.out_stride] =
          sum_of(p, plane_in, Readers{reader_range(h, group.dh, height.size, p.mode), columns});
    }
  }
}

// Row h of the adjoint's output, token by token.
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
        sum_readers(p, to, group_in, Readers{rows, columns}, run, bytes);
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
  for_each_planes(p, in, out, [&](const T* planes_in, T* planes_out, const ShiftGroup& group, int64_t count) {
    const AxisMap rows(reduce_offset(-group.dh, p.height.size, back), p.height.size, back);
    const AxisMap columns(reduce_offset(-group.dw, p.width.size, back), p.width.size, back);
    const bool adds_up = p.mode == PaddingMode::kReplicate && (group.dh != 0 || group.dw != 0);
    with_widest_instructions([&](auto bytes) S2MLP_INLINE {
      copy_planes(planes_out, planes_in, count, p.channel, p.height, p.width, rows, columns, bytes);
      if (adds_up) {
        sum_plane_borders(p, planes_out, planes_in, group, count, bytes);
      }
      finish_planes(p, planes_out, count, fused, bytes);
    });
  });
}

}  // namespace s2mlp
