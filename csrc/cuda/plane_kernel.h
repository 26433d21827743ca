// The shift and its adjoint, with a fused epilogue, for dense planes: width innermost.
//
// A thread has one item of the period and loops over periods. The sources of the item's elements are found once per group; an item
// is then one load per element, from cache lines shared with adjacent threads, and one store.
#pragma once

#include "../accumulator.h"
#include "access.h"
#include "epilogue.h"
#include "plane_problem.h"

namespace s2mlp {

// The sources of an item's elements, as distances from the period's first plane in bytes. The masks have one bit per element.
template <int kElements>
struct ItemSources {
  int32_t first[kElements];
  int32_t second[kElements];  // adjoint: valid for the elements in `two`
  uint32_t none;
  uint32_t two;
  uint32_t more;  // than two sources, which are looked up every time
  bool contiguous;  // whether all sources are contiguous, without zeros
};

template <int kElements>
__device__ __forceinline__ void set_source(int32_t (&sources)[kElements], int e, int32_t distance) {
#pragma unroll
  for (int i = 0; i < kElements; ++i) {
    sources[i] = i == e ? distance : sources[i];
  }
}

// The sources of a row of the item: up to two input rows, given by the source of the item's first element, extrapolated from the
// columns with a single source.
struct RowSources {
  int32_t first;
  int32_t second;
  int32_t count;
  int32_t column_begin;  // counted in elements of the item
  int32_t column_count;
};

// The sources of the row of the item's element `begin`.
template <bool kAdjoint>
__device__ __forceinline__ RowSources
find_row(const PlaneProblem& p, const PeriodPlace& period, const PlaneElement& place, int32_t begin) {
  const KernelGroup& group = group_of_plane(p, period.channel, place.plane);
  const Sources<int32_t> rows = sources<kAdjoint>(place.h, group.dh, p.height, p.mode);
  const int32_t plane = plane_distance(p, period.channel, place.plane);
  const int32_t column = place.w - begin + (kAdjoint ? group.dw : -group.dw);
  return {
      plane + position_in_plane(p, rows[0], column), plane + position_in_plane(p, rows[1], column),
      place.plane < period.planes ? rows.size() : 0, group.column_begin - place.w + begin, group.column_count};
}

// Finds the sources of the elements in `border`, one by one.
template <bool kAdjoint, int kElements>
__device__ __forceinline__ void find_each(
    ItemSources<kElements>& found, const PlaneProblem& p, const PeriodPlace& period, int32_t first_element, uint32_t border) {
#pragma unroll 1
  for (; border != 0; border &= border - 1) {
    const int e = __ffs(static_cast<int>(border)) - 1;
    const PlaneElement place = locate_element(p, first_element + e);
    const KernelGroup& group = group_of_plane(p, period.channel, place.plane);
    const Sources<int32_t> rows = sources<kAdjoint>(place.h, group.dh, p.height, p.mode);
    const Sources<int32_t> columns = sources<kAdjoint>(place.w, group.dw, p.width, p.mode);
    const int32_t count = place.plane < period.planes ? rows.size() * columns.size() : 0;
    const int32_t plane = plane_distance(p, period.channel, place.plane);
    set_source(found.first, e, count == 0 ? 0 : plane + position_in_plane(p, rows[0], columns[0]));
    found.none |= static_cast<uint32_t>(count == 0) << e;
    if constexpr (kAdjoint) {
      const bool two_rows = rows.size() == 2;
      set_source(found.second, e, plane + position_in_plane(p, rows[two_rows], columns[!two_rows && columns.size() == 2]));
      found.two |= static_cast<uint32_t>(count == 2) << e;
      found.more |= static_cast<uint32_t>(count > 2) << e;
    }
  }
}

// An item spans at most two rows, unless rows are shorter than the item.
template <bool kAdjoint, int kElements>
__device__ __forceinline__ ItemSources<kElements> find_sources(
    const PlaneProblem& p, const PeriodPlace& period, int32_t first_element) {
  constexpr uint32_t kAll = (1u << kElements) - 1;
  ItemSources<kElements> found;
  found.none = found.two = found.more = 0;
  uint32_t border = kAll;
  if (p.width >= kElements) {
    const PlaneElement place = locate_element(p, first_element);
    const int32_t next = p.width - place.w;  // the first element of the next row
    const RowSources row = find_row<kAdjoint>(p, period, place, 0);
    RowSources next_row = row;
    if (next < kElements) {
      next_row = find_row<kAdjoint>(p, period, locate_element(p, first_element + next), next);
    }
    border = 0;
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      const bool in_next = e >= next;
      const int32_t count = in_next ? next_row.count : row.count;
      const uint32_t column = static_cast<uint32_t>(e - (in_next ? next_row.column_begin : row.column_begin));
      const bool direct = column < static_cast<uint32_t>(in_next ? next_row.column_count : row.column_count);
      found.first[e] = count == 0 ? 0 : (in_next ? next_row.first : row.first) + e * p.element_bytes;
      found.second[e] = (in_next ? next_row.second : row.second) + e * p.element_bytes;
      found.none |= static_cast<uint32_t>(count == 0) << e;
      found.two |= static_cast<uint32_t>(direct && count == 2) << e;
      found.more |= static_cast<uint32_t>(direct && count > 2) << e;
      border |= static_cast<uint32_t>(!direct && count != 0) << e;
    }
  }
  find_each<kAdjoint>(found, p, period, first_element, border);
  found.contiguous = found.none == 0;
#pragma unroll
  for (int e = 1; e < kElements; ++e) {
    found.contiguous &= found.first[e] == found.first[0] + e * p.element_bytes;
  }
  return found;
}

template <typename T>
__device__ __forceinline__ T load_element(uint64_t plane, int32_t distance) {
  return reinterpret_bits<T>(load_global<sizeof(T)>(plane + distance));
}

// Loads the first source of each element: as words if the sources are contiguous.
template <typename T, int kElements>
__device__ __forceinline__ VectorOf<T, kElements> load_item(uint64_t in, const ItemSources<kElements>& sources) {
  VectorOf<T, kElements> values;
  const uint64_t from = in + sources.first[0];
  if constexpr (sizeof(T) < 4) {
    if (sources.contiguous && from % 4 == 0) {
      AccessOf<T, kElements> words;
#pragma unroll
      for (int i = 0; i < AccessOf<T, kElements>::kWords; ++i) {
        words.words[i] = load_global<4>(from + 4 * i).words[0];
      }
      return reinterpret_bits<VectorOf<T, kElements>>(words);
    }
  }
#pragma unroll
  for (int e = 0; e < kElements; ++e) {
    values.values[e] = load_element<T>(in, sources.first[e]);
  }
  if (sources.none != 0) {
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      values.values[e] = sources.none >> e & 1 ? T{} : values.values[e];
    }
  }
  return values;
}

// The sum of all sources of an element, by the definition.
template <typename T>
__device__ T sum_element(const PlaneProblem& p, const PeriodPlace& period, uint64_t in, int32_t element) {
  const PlaneElement place = locate_element(p, element);
  const KernelGroup& group = group_of_plane(p, period.channel, place.plane);
  const Sources<int32_t> rows = readers(place.h, group.dh, p.height, p.mode);
  const Sources<int32_t> columns = readers(place.w, group.dw, p.width, p.mode);
  const int32_t begin = plane_distance(p, period.channel, place.plane);
  accumulator_t<T> sum = 0;
#pragma unroll 1
  for (int32_t h = 0; h < rows.size(); ++h) {
#pragma unroll 1
    for (int32_t w = 0; w < columns.size(); ++w) {
      sum += static_cast<accumulator_t<T>>(load_element<T>(in, begin + position_in_plane(p, rows[h], columns[w])));
    }
  }
  return static_cast<T>(sum);
}

// Adjoint: adds the sources beyond the first one, which exist near the border.
template <typename T, int kElements>
__device__ __forceinline__ void add_folded(
    VectorOf<T, kElements>& values,
    const ItemSources<kElements>& sources,
    const PlaneProblem& p,
    const PeriodPlace& period,
    uint64_t in,
    int32_t first_element) {
  if (sources.two != 0) {
    T others[kElements];
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      if (sources.two >> e & 1) {
        others[e] = load_element<T>(in, sources.second[e]);
      }
    }
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      if (sources.two >> e & 1) {
        values.values[e] =
            static_cast<T>(static_cast<accumulator_t<T>>(values.values[e]) + static_cast<accumulator_t<T>>(others[e]));
      }
    }
  }
#pragma unroll 1
  for (uint32_t more = sources.more; more != 0; more &= more - 1) {
    const int e = __ffs(static_cast<int>(more)) - 1;
    const T sum = sum_element<T>(p, period, in, first_element + e);
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      values.values[i] = i == e ? sum : values.values[i];
    }
  }
}

// Stores the last item of a map, which may be partial, element by element.
template <typename T, int kElements, typename Op>
__device__ void store_some(
    uint64_t to,
    const VectorOf<T, kElements>& values,
    int32_t count,
    uint64_t operand_map,
    const Epilogue<T, kElements, Op>& whole) {
  const Epilogue<T, 1, Op> epilogue = {whole.op, whole.operand};
#pragma unroll
  for (int e = 0; e < kElements; ++e) {
    if (e < count) {
      const auto operand = epilogue.load(to + operand_map + e * sizeof(T));
      store_global(to + e * sizeof(T), epilogue(reinterpret_bits<AccessOf<T, 1>>(values.values[e]), operand));
    }
  }
}

template <typename T, bool kAdjoint, typename Op>
__global__ void __launch_bounds__(kBlockThreads, kMinBlocks) plane_kernel(
    const void* __restrict__ in_data,
    void* __restrict__ out_data,
    const __grid_constant__ PlaneProblem p,
    const Epilogue<T, item_elements(sizeof(T)), Op> epilogue) {
  constexpr int kElements = item_elements(sizeof(T));
  constexpr int kBytes = kElements * sizeof(T);
  const ThreadPlace thread = locate_thread(p.shape, blockIdx.x, threadIdx.x);
  if (thread.column < 0) {
    return;
  }
  const int32_t first_element = thread.column * kElements;
  const uint64_t operand_map = epilogue.from_output(global_address(out_data));
  const uint64_t out = multiply_add(thread.column, kBytes, global_address(out_data));
  ItemSources<kElements> sources;
  int32_t known_group = -1;  // the group for which `sources` is valid in uniform periods
  for (int32_t tile = first_period(p, thread); tile < p.shape.rows; tile += p.shape.next_tile) {
    const int32_t end = tile + p.periods_per_tile < p.shape.rows ? tile + p.periods_per_tile : p.shape.rows;
#pragma unroll 1
    for (int32_t row = tile; row < end; ++row) {
      const PeriodPlace period = locate_period(p, row);
      const uint64_t in = global_address(in_data) + period.in;
      if (known_group < 0 || period.channel < p.groups[known_group].channel_begin || !is_uniform(p, period, known_group)) {
        const int32_t group = find_group(p, period.channel);
        known_group = is_uniform(p, period, group) ? group : -1;
        sources = find_sources<kAdjoint, kElements>(p, period, first_element);
      }
      VectorOf<T, kElements> values = load_item<T>(in, sources);
      if constexpr (kAdjoint) {
        add_folded(values, sources, p, period, in, first_element);
      }
      const uint64_t to = multiply_add(row, p.period_bytes, out);
      const int32_t left = period.planes * p.height * p.width - first_element;
      if (left >= kElements) {
        const auto operand = epilogue.load(to + operand_map);
        store_global(to, epilogue(reinterpret_bits<Access<kBytes>>(values), operand));
      } else {
        store_some(to, values, left, operand_map, epilogue);
      }
    }
  }
}

}  // namespace s2mlp
