// When work is worth a second thread.
#pragma once

#include <cstdint>

namespace s2mlp {

constexpr int64_t kGrainElements = 32768;  // below this many elements a second thread costs more than it brings

}  // namespace s2mlp
