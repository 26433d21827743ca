// The padding modes, with the names of torch.nn.Conv2d. shift_geometry.h defines what each reads beyond the border.
#pragma once

#include <cstdint>

namespace s2mlp {

// No switch over PaddingMode has a default case, so that compilers warn of a switch that lacks a mode. The tests compile with
// -Werror.
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
