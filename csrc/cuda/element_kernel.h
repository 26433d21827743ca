// The shift and its adjoint, with a fused epilogue, for maps of any strides: element by element. This kernel is only for maps that
// the other kernels do not support, so it is kept simple.
#pragma once

#include "../accumulator.h"
#include "access.h"
#include "element_problem.h"
#include "epilogue.h"

namespace s2mlp {

// The value of an output element, by the definition. `in` is the address of its channel.
template <typename T, bool kAdjoint>
__device__ T element_value(uint64_t in, const ElementProblem& p, const ElementPlace& place) {
  const ElementGroup& group = p.groups[find_group(p, place.channel)];
  const Sources<int32_t> rows = sources<kAdjoint>(place.h, group.dh, p.height, p.mode);
  const Sources<int32_t> columns = sources<kAdjoint>(place.w, group.dw, p.width, p.mode);
  const auto load = [&](int32_t h, int32_t w) {
    return reinterpret_bits<T>(load_global<sizeof(T)>(in + h * p.row.in_stride + w * p.column.in_stride));
  };
  if constexpr (!kAdjoint) {
    return rows.size() == 0 || columns.size() == 0 ? T{} : load(rows[0], columns[0]);
  } else {
    accumulator_t<T> sum = 0;
#pragma unroll 1
    for (int32_t h = 0; h < rows.size(); ++h) {
#pragma unroll 1
      for (int32_t w = 0; w < columns.size(); ++w) {
        sum += static_cast<accumulator_t<T>>(load(rows[h], columns[w]));
      }
    }
    return static_cast<T>(sum);
  }
}

template <typename T, bool kAdjoint, typename Op>
__global__ void __launch_bounds__(kBlockThreads, kMinBlocks) element_kernel(
    const void* __restrict__ in_data,
    void* __restrict__ out_data,
    const __grid_constant__ ElementProblem p,
    const Epilogue<T, 1, Op> epilogue) {
  constexpr int kItems = kElementItemsPerThread;
  const ThreadPlace thread = locate_thread(p.shape, blockIdx.x, threadIdx.x);
  if (thread.column < 0) {
    return;
  }
  const uint64_t in = global_address(in_data);
  const uint64_t out = global_address(out_data);
  const uint64_t operand_map = epilogue.from_output(out);
  for (int32_t tile = first_row(p.shape, thread, kItems); tile < p.shape.rows; tile += p.shape.next_tile) {
#pragma unroll
    for (int u = 0; u < kItems; ++u) {
      const int32_t line = tile + u * p.shape.rows_of_block;
      if (line < p.shape.rows) {
        const ElementPlace place = locate(p, line, thread.column);
        const auto operand = epilogue.load(out + place.out + operand_map);
        const T value = element_value<T, kAdjoint>(in + place.in, p, place);
        store_global(out + place.out, epilogue(reinterpret_bits<AccessOf<T, 1>>(value), operand));
      }
    }
  }
}

}  // namespace s2mlp
