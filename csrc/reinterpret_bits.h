// The bits of a value as another type. Host and device. Not called bit_cast, which PyTorch has for its own types.
#pragma once

#include <cstring>
#include <type_traits>

#include "shift_geometry.h"

namespace s2mlp {

// For compiler vectors this is a cast, which keeps them in registers (cpu/lanes.h).
template <typename To, typename From>
S2MLP_HOST_DEVICE To reinterpret_bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  if constexpr (std::is_arithmetic_v<From> || std::is_class_v<From>) {
    To to;
    std::memcpy(static_cast<void*>(&to), &from, sizeof(to));
    return to;
  } else {
    return reinterpret_cast<To>(from);
  }
}

}  // namespace s2mlp
