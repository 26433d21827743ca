// Whether a map is written with streaming stores, which bypass the caches. A normal store to a line that is not in cache first
// reads the line. For maps that do not stay in the last-level cache, streaming stores avoid this. They are used only on AMD
// processors, where they are not slower for other reasons.
#pragma once

#include <cstdint>
#include <limits>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace s2mlp {

// Bytes of the level-3 cache that this core shares, from AMD's cpuid leaf 0x8000001d; 0 on other processors. The operating system
// would report the sum of all caches, or values set by a virtual machine.
inline int64_t amd_level_3_bytes() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  unsigned eax, ebx, ecx, edx;
  if (__builtin_cpu_is("amd") && __get_cpuid_max(0x80000000u, nullptr) >= 0x8000001du) {
    for (unsigned leaf = 0;; ++leaf) {
      __cpuid_count(0x8000001du, leaf, eax, ebx, ecx, edx);
      if ((eax & 31) == 0) {
        break;
      }
      if (((eax >> 5) & 7) == 3) {
        return int64_t{(ebx >> 22) + 1} * (((ebx >> 12) & 1023) + 1) * ((ebx & 4095) + 1) * (ecx + 1ll);
      }
    }
  }
#endif
  return 0;
}

// Outputs larger than this use streaming stores. Half of the cache, since the input takes the other half; an op that reads a larger
// output next finds little of it in cache (benchmarks/streaming_stores.py).
inline int64_t streaming_bytes() {
  static const int64_t cache = amd_level_3_bytes();
  return cache > 0 ? cache / 2 : std::numeric_limits<int64_t>::max();
}

inline void finish_streaming() {
#if defined(__x86_64__)
  asm volatile("sfence" ::: "memory");
#endif
}

}  // namespace s2mlp
