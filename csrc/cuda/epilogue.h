// An element-wise operation that is fused with a shift, as the kernels apply it: to the vector of an item.
#pragma once

#include <type_traits>

#include "../accumulator.h"
#include "../elementwise.h"
#include "access.h"
#include "vector_of.h"

namespace s2mlp {

template <typename T, int kVector, typename Op>
struct Epilogue {
  static constexpr int kItems = std::is_same_v<Op, Identity> ? kItemsPerThread : kElementItemsPerThread;
  struct Nothing {};
  using Operand = std::conditional_t<Op::kHasOperand, Packed<T, kVector>, Nothing>;

  Op op;
  const void* operand;  // the map of second operands, where the operation has them

  // From the output's address to that map's, which lies in memory as the output does.
  __device__ uint64_t from_output(uint64_t out) const { return Op::kHasOperand ? global_address(operand) - out : 0; }

  // Called with the address of an item's second operand when the item's own load is issued.
  __device__ Operand load(uint64_t address) const {
    if constexpr (Op::kHasOperand) {
      return reinterpret_bits<Operand>(load_global<sizeof(Operand)>(address));
    } else {
      return {};
    }
  }

  __device__ AccessOf<T, kVector> operator()(const AccessOf<T, kVector>& value, const Operand& packed) const {
    return reinterpret_bits<AccessOf<T, kVector>>((*this)(reinterpret_bits<VectorOf<T, kVector>>(value), packed));
  }

  __device__ VectorOf<T, kVector> operator()(VectorOf<T, kVector> values, const Operand& packed) const {
    if constexpr (Op::kHasOperand) {
      const VectorOf<T, kVector> other = unpack<T, kVector>(packed);
#pragma unroll
      for (int v = 0; v < kVector; ++v) {
        values.values[v] =
            static_cast<T>(op(static_cast<accumulator_t<T>>(values.values[v]), static_cast<accumulator_t<T>>(other.values[v])));
      }
    } else if constexpr (!std::is_same_v<Op, Identity>) {
#pragma unroll
      for (int v = 0; v < kVector; ++v) {
        values.values[v] = static_cast<T>(op(static_cast<accumulator_t<T>>(values.values[v])));
      }
    }
    return values;
  }
};

}  // namespace s2mlp
