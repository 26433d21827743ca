// The shift and its adjoint of dense planes, and what is fused with them: width innermost.
//
// A thread has one item of the period and goes through periods. Where the item's elements come from is found once for a group; then an
// item is as many loads of single elements, which neighbouring threads make from the same cache lines, and one store.
#pragma once

#include "../accumulator.h"
#include "access.h"
#include "epilogue.h"
#include "plane_problem.h"

namespace s2mlp {

// What the elements of an item take, as distances from the period's first plane in bytes. Bits of the masks are elements.
template <int kElements>
struct ItemSources {
  int32_t first[kElements];
  int32_t second[kElements];  // adjoint: where `two` says so
  uint32_t none;
  uint32_t two;
  uint32_t more;  // than two, each of which is looked for every time
};

template <int kElements>
__device__ __forceinline__ void set_source(int32_t (&sources)[kElements], int e, int32_t distance) {
#pragma unroll
  for (int i = 0; i < kElements; ++i) {
    sources[i] = i == e ? distance : sources[i];
  }
}

template <bool kAdjoint, int kElements>
__device__ __forceinline__ ItemSources<kElements> find_sources(
    const PlaneProblem& p, const PeriodPlace& period, int32_t first_element) {
  ItemSources<kElements> sources;
  sources.none = sources.two = sources.more = 0;
  uint32_t border = 0;
  PlaneElement place = locate_element(p, first_element);
  KernelGroup group = group_of_plane(p, period.channel, place.plane);
  int32_t distance = plane_distance(p, period.channel, place.plane) + group.distance;
#pragma unroll
  for (int e = 0; e < kElements; ++e) {
    sources.first[e] = distance + position_in_plane(p, place.h, place.w);
    border |= static_cast<uint32_t>(place.plane >= period.planes || !group.is_direct(place.h, place.w)) << e;
    const int32_t plane = place.plane;
    next_element(p, place);
    if (place.plane != plane) {
      group = group_of_plane(p, period.channel, place.plane);
      distance = plane_distance(p, period.channel, place.plane) + group.distance;
    }
  }
#pragma unroll 1
  for (; border != 0; border &= border - 1) {
    const int e = __ffs(static_cast<int>(border)) - 1;
    const PlaneElement at = locate_element(p, first_element + e);
    const KernelGroup& own = group_of_plane(p, period.channel, at.plane);
    const Sources<int32_t> rows = s2mlp::sources<kAdjoint>(at.h, own.dh, p.height, p.mode);
    const Sources<int32_t> columns = s2mlp::sources<kAdjoint>(at.w, own.dw, p.width, p.mode);
    const int32_t count = at.plane < period.planes ? rows.size() * columns.size() : 0;
    const int32_t begin = plane_distance(p, period.channel, at.plane);
    set_source(sources.first, e, count == 0 ? 0 : begin + position_in_plane(p, rows[0], columns[0]));
    sources.none |= static_cast<uint32_t>(count == 0) << e;
    if constexpr (kAdjoint) {
      const bool two_rows = rows.size() == 2;
      set_source(sources.second, e, begin + position_in_plane(p, rows[two_rows], columns[!two_rows && columns.size() == 2]));
      sources.two |= static_cast<uint32_t>(count == 2) << e;
      sources.more |= static_cast<uint32_t>(count > 2) << e;
    }
  }
  return sources;
}

template <typename T>
__device__ __forceinline__ T load_element(uint64_t plane, int32_t distance) {
  return reinterpret_bits<T>(load_global<sizeof(T)>(plane + distance));
}

// The sum of all that an element takes, by the definition.
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

// Adjoint: adds what the border folds onto elements of the item.
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

// The last item of a map need not be whole: the elements of the planes that there are, one by one.
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
  const ThreadPlace thread = locate_thread(p.shape, blockIdx.x, threadIdx.x, p.periods_per_tile);
  if (thread.column < 0) {
    return;
  }
  const int32_t first_element = thread.column * kElements;
  const uint64_t operand_map = epilogue.from_output(global_address(out_data));
  const uint64_t out = multiply_add(thread.column, kBytes, global_address(out_data));
  ItemSources<kElements> sources;
  int32_t known_group = -1;  // for which `sources` are those of all periods
  for (int32_t tile = thread.row; tile < p.shape.rows; tile += p.shape.next_tile) {
#pragma unroll 1
    for (int u = 0; u < p.periods_per_tile; ++u) {
      const int32_t row = tile + u * p.shape.next_item;
      if (row >= p.shape.rows) {
        break;
      }
      const PeriodPlace period = locate_period(p, row);
      const uint64_t in = global_address(in_data) + period.in;
      if (known_group < 0 || period.channel < p.groups[known_group].channel_begin || !is_uniform(p, period, known_group)) {
        const int32_t group = find_group(p, period.channel);
        known_group = is_uniform(p, period, group) ? group : -1;
        sources = find_sources<kAdjoint, kElements>(p, period, first_element);
      }
      VectorOf<T, kElements> values;
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
