// The element-wise operation that is fused with a shift, applied to the vector of an item.
#pragma once

#include <type_traits>

#include "../elementwise.h"
#include "access.h"
#include "conversion.h"
#include "vector_of.h"

namespace s2mlp {

template <typename T, int kVector, typename Op>
struct Epilogue {
  static constexpr int kItems = Op::kHasOperand ? kElementItemsPerThread : kItemsPerThread;
  struct Nothing {};
  using Operand = std::conditional_t<Op::kHasOperand, AccessOf<T, kVector>, Nothing>;

  Op op;
  const void* operand;  // the map of second operands, if the operation has one

  // The distance from the output to that map, which has the strides of the output.
  __device__ uint64_t from_output(uint64_t out) const { return Op::kHasOperand ? global_address(operand) - out : 0; }

  // Called with the address of an item's second operand, next to the load of the item itself.
  __device__ Operand load(uint64_t address) const {
    if constexpr (Op::kHasOperand) {
      return load_global<sizeof(Operand)>(address);
    } else {
      return {};
    }
  }

  __device__ AccessOf<T, kVector> operator()(const AccessOf<T, kVector>& value, const Operand& second) const {
    if constexpr (std::is_same_v<Op, Identity>) {
      return value;
    } else {
      Accumulators<T, kVector> values = to_accumulators(reinterpret_bits<VectorOf<T, kVector>>(value));
      with_approximation(op, [&](const auto& operation) {
        if constexpr (Op::kHasOperand) {
          const Accumulators<T, kVector> others = to_accumulators(reinterpret_bits<VectorOf<T, kVector>>(second));
#pragma unroll
          for (int v = 0; v < kVector; ++v) {
            values.values[v] = operation.template apply<kPrecisionOf<T>>(values.values[v], others.values[v]);
          }
        } else {
#pragma unroll
          for (int v = 0; v < kVector; ++v) {
            values.values[v] = operation.template apply<kPrecisionOf<T>>(values.values[v]);
          }
        }
      });
      return reinterpret_bits<AccessOf<T, kVector>>(to_elements(values));
    }
  }
};

}  // namespace s2mlp
