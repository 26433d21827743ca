// Applies an element-wise operation that is fused with a shift, run by run.
#pragma once

#include <iterator>
#include <type_traits>

#include "../elementwise.h"
#include "runs.h"

namespace s2mlp {

template <typename T, typename Op>
struct Epilogue {
  Op op = {};
  const T* out = nullptr;      // the first element of the output
  const T* operand = nullptr;  // the map of second operands, if the operation has one

  // Moves a run to its position in the output and applies the operation.
  template <typename V>
  S2MLP_INLINE void move(
      T* to, int64_t to_stride, const T* from, int64_t from_stride, int64_t count, V vectors) const {
    if constexpr (std::is_same_v<Op, Identity>) {
      copy_run(to, to_stride, from, from_stride, count, vectors);
    } else {
      if constexpr (!std::is_same_v<T, double>) {
        if (to_stride == 1 && from_stride == 1) {
          return move_dense(to, from, count, vectors);
        }
      }
      const T* other = operand + (to - out);
      for (int64_t i = 0; i < count; ++i) {
        const auto value = static_cast<accumulator_t<T>>(from[i * from_stride]);
        if constexpr (Op::kHasOperand) {
          to[i * to_stride] =
              static_cast<T>(op.template apply<kPrecisionOf<T>>(value, static_cast<accumulator_t<T>>(other[i * to_stride])));
        } else {
          to[i * to_stride] = static_cast<T>(op.template apply<kPrecisionOf<T>>(value));
        }
      }
    }
  }

  // Applies the operation in place, to a run that was written otherwise (as a sum or as part of a plane) and is still in cache.
  template <typename V>
  S2MLP_INLINE void finish(T* run, int64_t stride, int64_t count, V vectors) const {
    if constexpr (!std::is_same_v<Op, Identity>) {
      move(run, stride, run, stride, count, vectors);
    }
  }

  // Prefetches the second operands of a run of outputs that will be written soon.
  S2MLP_INLINE void prefetch(const T* run, int64_t count) const {
    if constexpr (Op::kHasOperand) {
      prefetch_run(operand + (run - out), count);
    }
  }

 private:
  template <typename V>
  S2MLP_INLINE void move_dense(T* to, const T* from, int64_t count, V) const {
    const T* other = operand + (to - out);
    for_each_step<T, V::kBytes>(0, count, [&](auto lanes, int64_t first, int64_t step_count) S2MLP_INLINE {
      auto step = load_step(lanes, from + first, step_count);
      if constexpr (Op::kHasOperand) {
        const auto operands = load_step(lanes, other + first, step_count);
        for (size_t part = 0; part < std::size(step.parts); ++part) {
          step.parts[part] = op.template apply<kPrecisionOf<T>>(step.parts[part], operands.parts[part]);
        }
      } else {
        for (auto& part : step.parts) {
          part = op.template apply<kPrecisionOf<T>>(part);
        }
      }
      store_step<V::kStores>(lanes, to + first, step, step_count);
    });
  }
};

}  // namespace s2mlp
