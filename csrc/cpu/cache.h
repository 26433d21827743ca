// Whether a map is written past the caches. A store to a line that is not in cache reads the line first; for maps that do not stay
// in the last-level cache streaming stores do without, on processors where they are not slower for other reasons: AMD's.
#pragma once

#include <cstdint>
#include <limits>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace s2mlp {

// Bytes of the level-3 cache that this core shares, from AMD's cpuid leaf 0x8000001d; what the system tells counts all caches of
// the machine, or what a virtual machine pretends. 0 on other processors.
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

// From so many bytes of output on: half of the cache, since the input takes the other half, and what reads the output next finds
// little of it there (benchmarks/streaming_stores.py).
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
