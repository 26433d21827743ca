// The shift and its adjoint, with a fused epilogue, for maps with channels innermost. In the adjoint, `in` is the gradient of the
// output and `out` the gradient of the input.
//
// A thread accesses the same channels in all its tokens, so its group and the distance to that group's input are found once. Tokens
// near a border, which depend on the padding mode, are the rare case. An access that spans several groups is read once for each of
// them.
#pragma once

#include "../accumulator.h"
#include "access.h"
#include "epilogue.h"
#include "token_problem.h"

namespace s2mlp {

// The value of a token for one group, by the definition. `in` is the address of the token's own channels.
template <typename T, int kVector, bool kAdjoint>
__device__ AccessOf<T, kVector> group_value(uint64_t in, const TokenProblem& p, const KernelGroup& group, const TokenPlace& place) {
  constexpr int kBytes = sizeof(AccessOf<T, kVector>);
  const Sources<int32_t> rows = sources<kAdjoint>(place.h, group.dh, p.height, p.mode);
  const Sources<int32_t> columns = sources<kAdjoint>(place.w, group.dw, p.width, p.mode);
  if constexpr (!kAdjoint) {
    const bool none = rows.size() == 0 || columns.size() == 0;
    return none ? Access<kBytes>{} : load_global<kBytes>(move_token(p, in, place, rows[0], columns[0]));
  } else {
    accumulator_t<T> sums[kVector] = {};
#pragma unroll 1
    for (int32_t h = 0; h < rows.size(); ++h) {
#pragma unroll 1
      for (int32_t w = 0; w < columns.size(); ++w) {
        const auto grad = load_global<kBytes>(move_token(p, in, place, rows[h], columns[w]));
        const auto elements = reinterpret_bits<VectorOf<T, kVector>>(grad);
#pragma unroll
        for (int v = 0; v < kVector; ++v) {
          sums[v] += static_cast<accumulator_t<T>>(elements.values[v]);
        }
      }
    }
    VectorOf<T, kVector> result;
#pragma unroll
    for (int v = 0; v < kVector; ++v) {
      result.values[v] = static_cast<T>(sums[v]);
    }
    return reinterpret_bits<Access<kBytes>>(result);
  }
}

template <typename T, int kVector, bool kAdjoint>
__device__ AccessOf<T, kVector> token_value(
    uint64_t in, const TokenProblem& p, const TokenChannels& channels, const TokenPlace& place) {
  AccessOf<T, kVector> value = group_value<T, kVector, kAdjoint>(in, p, p.groups[channels.group], place);
#pragma unroll 1
  for (int32_t g = channels.group + 1; g < channels.group_end; ++g) {
    const AccessOf<T, kVector> other = group_value<T, kVector, kAdjoint>(in, p, p.groups[g], place);
    replace_from(value, other, first_byte_of_group(p, channels, g));
  }
  return value;
}

template <typename T, int kVector, bool kAdjoint, typename Op>
__global__ void __launch_bounds__(kBlockThreads, kMinBlocks) token_kernel(
    const void* __restrict__ in_data,
    void* __restrict__ out_data,
    const __grid_constant__ TokenProblem p,
    const Epilogue<T, kVector, Op> epilogue) {
  using Operand = typename Epilogue<T, kVector, Op>::Operand;
  constexpr int kBytes = sizeof(AccessOf<T, kVector>);
  constexpr int kItems = Epilogue<T, kVector, Op>::kItems;
  const ThreadPlace thread = locate_thread(p.shape, blockIdx.x, threadIdx.x);
  if (thread.column < 0) {
    return;
  }
  const int32_t column = p.first_column + thread.column;
  const TokenChannels channels = token_channels(p, column);
  const KernelGroup group = p.groups[channels.group];
  const uint64_t in = multiply_add(column, p.in.access, global_address(in_data));
  const uint64_t out = multiply_add(column, p.out.access, global_address(out_data));
  const uint64_t operand_map = epilogue.from_output(global_address(out_data));
  for (int32_t row = first_row(p.shape, thread, kItems); row < p.shape.rows; row += p.shape.next_tile) {
    Access<kBytes> values[kItems];
    Operand operands[kItems];
    bool direct[kItems];  // whether all groups have a single source, at their distance, in a flat map
    uint32_t border = 0;  // bit u: token u takes the slow path
#pragma unroll
    for (int u = 0; u < kItems; ++u) {
      const int32_t token = row + u * p.shape.rows_of_block;
      const TokenPlace place = locate_token(p, token);
      direct[u] = p.leading.flat & (token < p.shape.rows) & group.is_direct(place.h, place.w);
      if (direct[u]) {
        operands[u] = epilogue.load(at_flat_token<false>(p, out, token) + operand_map);
        values[u] = load_global<kBytes>(at_flat_token<true>(p, in + group.distance, token));
      } else {
        border |= static_cast<uint32_t>(token < p.shape.rows) << u;
      }
    }
#pragma unroll 1
    for (int32_t g = channels.group + 1; g < channels.group_end; ++g) {
      const KernelGroup other = p.groups[g];
#pragma unroll
      for (int u = 0; u < kItems; ++u) {
        const TokenPlace place = locate_token(p, row + u * p.shape.rows_of_block);
        if (direct[u] && other.is_direct(place.h, place.w)) {
          const Access<kBytes> value = load_global<kBytes>(at_flat_token<true>(p, in + other.distance, place.token));
          replace_from(values[u], value, first_byte_of_group(p, channels, g));
        } else {
          border |= static_cast<uint32_t>(direct[u]) << u;
          direct[u] = false;
        }
      }
    }
#pragma unroll
    for (int u = 0; u < kItems; ++u) {
      if (direct[u]) {
        store_global(at_flat_token<false>(p, out, row + u * p.shape.rows_of_block), epilogue(values[u], operands[u]));
      }
    }
#pragma unroll 1
    for (; border != 0; border &= border - 1) {
      const int u = __ffs(static_cast<int>(border)) - 1;
      const TokenPlace place = locate_token(p, row + u * p.shape.rows_of_block);
      const uint64_t token_out = at_token<false>(p, out, place);
      const Operand operand = epilogue.load(token_out + operand_map);
      const auto value = token_value<T, kVector, kAdjoint>(at_token<true>(p, in, place), p, channels, place);
      store_global(token_out, epilogue(value, operand));
    }
  }
}

}  // namespace s2mlp
