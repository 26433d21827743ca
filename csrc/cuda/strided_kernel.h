// The kernel of the spatial shift and its adjoint for maps of any strides, and its launch, with or without an epilogue.
#pragma once

#include "../accumulator.h"
#include "epilogue.h"
#include "launch.h"
#include "vector_of.h"

namespace s2mlp {

// The sum over all readers of one item: the slow path of the adjoint, at the border.
template <typename T, int kVector, typename Index>
__device__ VectorOf<T, kVector> sum_readers(
    const VectorOf<T, kVector>* in, const StridedProblem<Index>& p, const StridedPlace<Index>& place) {
  const Sources<Index> rows = readers(place.h, place.group.dh, p.height.size, p.mode);
  const Sources<Index> columns = readers(place.w, place.group.dw, p.width.size, p.mode);
  accumulator_t<T> sums[kVector] = {};
#pragma unroll 1
  for (Index h = 0; h < rows.size(); ++h) {
#pragma unroll 1
    for (Index w = 0; w < columns.size(); ++w) {
      const VectorOf<T, kVector> grad = in[place.in_offset + rows[h] * p.height.in_stride + columns[w] * p.width.in_stride];
#pragma unroll
      for (int v = 0; v < kVector; ++v) {
        sums[v] += static_cast<accumulator_t<T>>(grad.values[v]);
      }
    }
  }
  VectorOf<T, kVector> result;
#pragma unroll
  for (int v = 0; v < kVector; ++v) {
    result.values[v] = static_cast<T>(sums[v]);
  }
  return result;
}

// In the adjoint `in` is the gradient of the shift's output and `out` that of its input.
template <typename T, int kVector, typename Index, bool kAdjoint, typename Op>
__global__ void __launch_bounds__(kBlockThreads, kMinBlocks) strided_kernel(
    const VectorOf<T, kVector>* __restrict__ in,
    VectorOf<T, kVector>* __restrict__ out,
    const __grid_constant__ StridedProblem<Index> p,
    const Epilogue<T, kVector, Op> epilogue) {
  constexpr int kItems = Epilogue<T, kVector, Op>::kItems;
  constexpr int64_t kTile = int64_t{kBlockThreads} * kItems;
  for (int64_t tile = blockIdx.x * kTile; tile < p.items; tile += gridDim.x * kTile) {
    VectorOf<T, kVector> values[kItems];
    typename Epilogue<T, kVector, Op>::Operand operands[kItems];
    Index out_offsets[kItems];
    bool many_readers[kItems];
#pragma unroll
    for (int u = 0; u < kItems; ++u) {
      const int64_t item = tile + u * kBlockThreads + threadIdx.x;
      const StridedPlace<Index> place = locate(p, static_cast<Index>(item < p.items ? item : p.items - 1));
      Index h;
      Index w;
      bool inside;
      if (kAdjoint) {
        const Sources<Index> rows = readers(place.h, place.group.dh, p.height.size, p.mode);
        const Sources<Index> columns = readers(place.w, place.group.dw, p.width.size, p.mode);
        h = rows[0];
        w = columns[0];
        inside = rows.size() > 0 && columns.size() > 0;
        many_readers[u] = inside && (rows.size() > 1 || columns.size() > 1);
      } else {
        h = source_index(place.h, place.group.dh, p.height.size, p.mode);
        w = source_index(place.w, place.group.dw, p.width.size, p.mode);
        inside = h >= 0 && w >= 0;
        many_readers[u] = false;
      }
      out_offsets[u] = place.out_offset;
      operands[u] = epilogue.load(place.out_offset);
      values[u] = VectorOf<T, kVector>{};
      if (inside) {
        values[u] = in[place.in_offset + h * p.height.in_stride + w * p.width.in_stride];
      }
    }
#pragma unroll
    for (int u = 0; u < kItems; ++u) {
      const int64_t item = tile + u * kBlockThreads + threadIdx.x;
      if (item < p.items) {
        if constexpr (kAdjoint) {
          if (many_readers[u]) {
            values[u] = sum_readers(in, p, locate(p, static_cast<Index>(item)));
          }
        }
        out[out_offsets[u]] = epilogue(values[u], operands[u]);
      }
    }
  }
}

// One call, ready to launch: pointers, numbers, and the plan made from them.
struct Call {
  const ShiftProblem& problem;
  const void* in;
  void* out;
  const void* operand;  // of the epilogue; may be null
  Misalignment misalignment;
  LaunchPlan plan;
  LaunchContext context;
};

template <typename T, int kVector, bool kAdjoint, typename Index, typename Op>
void launch_strided(const Call& call, const Op& op) {
  using Vector = VectorOf<T, kVector>;
  const Epilogue<T, kVector, Op> epilogue = {op, static_cast<const Vector*>(call.operand)};
  // The plain forward pass sees a vector of `plan.vector` elements as one word, T; the others know their elements.
  for_each_table<Index>(call.problem, call.plan.vector, [&](const StridedProblem<Index>& problem) {
    S2MLP_LAUNCH(
        (strided_kernel<T, kVector, Index, kAdjoint, Op>),
        grid_blocks(problem.items, call.plan.items_per_thread, call.context.limits()), kBlockThreads, call.context.stream(),
        static_cast<const Vector*>(call.in), static_cast<Vector*>(call.out), problem, epilogue);
  });
}

}  // namespace s2mlp
