// Compiles code for several instruction sets and dispatches to one of them at run time. The choice is that of PyTorch: the widest
// that the processor supports, or the one in the environment variable ATEN_CPU_CAPABILITY, if that is narrower.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <string_view>

#define S2MLP_INLINE __attribute__((always_inline))

namespace s2mlp {

// PyTorch's names: at::native::CPUCapability.
enum class CpuCapability { kDefault, kAvx2, kAvx512 };

inline CpuCapability supported_cpu_capability() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd")) {
    return CpuCapability::kAvx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) {
    return CpuCapability::kAvx2;
  }
#endif
  return CpuCapability::kDefault;
}

// Determined once per process. Values other than the three are ignored, as in PyTorch, which also warns.
inline CpuCapability cpu_capability() {
  static const CpuCapability chosen = [] {
    const CpuCapability supported = supported_cpu_capability();
    const char* variable = std::getenv("ATEN_CPU_CAPABILITY");
    const std::string_view name = variable == nullptr ? "" : variable;
    const CpuCapability limit = name == "default" ? CpuCapability::kDefault
        : name == "avx2"                          ? CpuCapability::kAvx2
                                                  : CpuCapability::kAvx512;
    return std::min(limit, supported);
  }();
  return chosen;
}

// The same names as torch.backends.cpu.get_cpu_capability().
inline const char* name_of(CpuCapability capability) {
  switch (capability) {
    case CpuCapability::kAvx512:
      return "AVX512";
    case CpuCapability::kAvx2:
      return "AVX2";
    case CpuCapability::kDefault:
      break;
  }
  return "DEFAULT";
}

// How a map is written: through the caches, or bypassing them.
enum class Stores { kCached, kStreaming };

// The vector width in bytes and the kind of stores, as a type, so that they remain constants when passed to a lambda.
template <int kBytes_, Stores kStores_ = Stores::kCached>
struct Vectors {
  static constexpr int kBytes = kBytes_;
  static constexpr Stores kStores = kStores_;
};

#if defined(__x86_64__)
// The instructions of x86-64-v3 and -v4, listed because a function is only inlined into one for the same `arch`: -march=native, or
// conda's compiler flags, select another one for everything that is inlined here.
#define S2MLP_AVX2 "avx2,bmi,bmi2,f16c,fma,lzcnt,movbe,popcnt,sse4.2,cx16,sahf"
#define S2MLP_AVX512 S2MLP_AVX2 ",avx512f,avx512bw,avx512cd,avx512dq,avx512vl"

template <Stores kStores, typename Body>
__attribute__((target(S2MLP_AVX512 ",prefer-vector-width=512"))) void run_avx512(const Body& body) {
  body(Vectors<64, kStores>{});
}

template <Stores kStores, typename Body>
__attribute__((target(S2MLP_AVX2))) void run_avx2(const Body& body) {
  body(Vectors<32, kStores>{});
}
#endif

// Calls body(Vectors), a lambda marked S2MLP_INLINE. Everything that it calls in its loops must also be marked S2MLP_INLINE,
// because functions that are not inlined are compiled for the baseline instruction set.
template <Stores kStores = Stores::kCached, typename Body>
void with_vectors(const Body& body) {
#if defined(__x86_64__)
  switch (cpu_capability()) {
    case CpuCapability::kAvx512:
      return run_avx512<kStores>(body);
    case CpuCapability::kAvx2:
      return run_avx2<kStores>(body);
    case CpuCapability::kDefault:
      break;
  }
#endif
  body(Vectors<16, kStores>{});
}

}  // namespace s2mlp
