// The grain size of parallel loops.
#pragma once

#include <algorithm>
#include <cstdint>

namespace s2mlp {

constexpr int64_t kGrainBytes = 131072;  // below this many bytes of a map, a second thread does not pay off

// The minimum number of units of work, of `unit_elements` elements each, per thread.
template <typename T>
int64_t grain_of(int64_t unit_elements) {
  return std::max<int64_t>(1, kGrainBytes / std::max<int64_t>(1, unit_elements * static_cast<int64_t>(sizeof(T))));
}

}  // namespace s2mlp
