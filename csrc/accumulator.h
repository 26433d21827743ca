// The accumulator type: double for double, float otherwise.
#pragma once

#include <type_traits>

namespace s2mlp {

template <typename T>
using accumulator_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

}  // namespace s2mlp
