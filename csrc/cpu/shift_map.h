// The spatial shift and its adjoint of a map: multithreaded, for any strides, without a temporary of the tensor's size.
//
// The axis with the smallest output stride is innermost: see rows.h and planes.h, and blended_rows.h for short groups. Each output
// element is computed by one thread, in an order that does not depend on the number of threads.
#pragma once

#include "blended_rows.h"
#include "cache.h"
#include "epilogue.h"
#include "planes.h"
#include "rows.h"

namespace s2mlp {

// For the adjoint, `in` is the gradient of the shift's output and `out` is the gradient of its input.
template <bool kAdjoint, typename T, typename Op>
void shift_map(const ShiftProblem& p, const T* in, T* out, const Epilogue<T, Op>& epilogue) {
  const bool beyond_caches = p.elements() * static_cast<int64_t>(sizeof(T)) > streaming_bytes();
  if (p.channels_innermost()) {
    if (has_short_groups<T, Op>(p)) {
      const DistinctOffsets distinct(p.groups);
      if (distinct.offsets.size() <= kMostDistinctOffsets) {
        return walk_rows_blended<kAdjoint>(p, distinct, in, out, epilogue);
      }
    }
    if (beyond_caches && runs_are_whole_lines(p, out)) {
      walk_rows<kAdjoint, Stores::kStreaming>(p, in, out, epilogue);
    } else {
      walk_rows<kAdjoint, Stores::kCached>(p, in, out, epilogue);
    }
    return;
  }
  if constexpr (std::is_same_v<Op, Identity>) {
    if (beyond_caches) {
      return walk_planes<kAdjoint, Stores::kStreaming>(p, in, out, epilogue);
    }
  }
  walk_planes<kAdjoint, Stores::kCached>(p, in, out, epilogue);
}

}  // namespace s2mlp
