// What sums and functions of numbers are computed in: float32, and float64 for float64.
#pragma once

#include <type_traits>

namespace s2mlp {

template <typename T>
using accumulator_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

}  // namespace s2mlp
