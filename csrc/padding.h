// The padding modes, by the names that torch.nn.Conv2d gives them. What each one reads beyond a border is in shift_geometry.h.
#pragma once

#include <cstdint>

namespace s2mlp {

// No switch over a PaddingMode has a default, so that one that forgets a mode does not compile.
enum class PaddingMode : int32_t { kReplicate, kZeros, kCircular, kReflect };

struct NamedPaddingMode {
  const char* name;
  PaddingMode mode;
};

constexpr NamedPaddingMode kPaddingModes[] = {
    {"replicate", PaddingMode::kReplicate},
    {"zeros", PaddingMode::kZeros},
    {"circular", PaddingMode::kCircular},
    {"reflect", PaddingMode::kReflect},
};

}  // namespace s2mlp
