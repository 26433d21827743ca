// An element-wise operation that is fused with a shift, as the kernels apply it: to the vector of an item.
#pragma once

#include <type_traits>

#include "../elementwise.h"
#include "numbers.h"
#include "vector_of.h"

namespace s2mlp {

template <typename T, int kVector, typename Op>
struct Epilogue {
  static constexpr int kItems = std::is_same_v<Op, Identity> ? kItemsPerThread : kElementItemsPerThread;
  struct Nothing {};
  using Operand = std::conditional_t<Op::kHasOperand, Packed<T, kVector>, Nothing>;

  Op op;
  const VectorOf<T, kVector>* operand;  // the map of second operands, where the operation has them

  // Called with an item's place in the output when the item's own load is issued.
  template <typename Index>
  __device__ Operand load(Index out_offset) const {
    if constexpr (Op::kHasOperand) {
      return load_packed(operand + out_offset);
    } else {
      return {};
    }
  }

  __device__ VectorOf<T, kVector> operator()(VectorOf<T, kVector> values, const Operand& packed) const {
    if constexpr (!std::is_same_v<Op, Identity>) {
      Numbers<T, kVector> numbers = to_numbers(values);
      with_approximation(op, [&](const auto& operation) {
        if constexpr (Op::kHasOperand) {
          const Numbers<T, kVector> others = to_numbers(unpack<T, kVector>(packed));
#pragma unroll
          for (int v = 0; v < kVector; ++v) {
            numbers.values[v] = operation.template apply<kPrecisionOf<T>>(numbers.values[v], others.values[v]);
          }
        } else {
#pragma unroll
          for (int v = 0; v < kVector; ++v) {
            numbers.values[v] = operation.template apply<kPrecisionOf<T>>(numbers.values[v]);
          }
        }
      });
      values = to_elements(numbers);
    }
    return values;
  }
};

}  // namespace s2mlp
