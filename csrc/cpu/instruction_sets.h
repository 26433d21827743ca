// One piece of code, compiled for several instruction sets of one processor family; the widest that this machine has runs.
#pragma once

#include <type_traits>

#define S2MLP_INLINE __attribute__((always_inline))

namespace s2mlp {

enum class InstructionSet { kBaseline, kAvx2, kAvx512 };

inline InstructionSet detect_instruction_set() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd")) {
    return InstructionSet::kAvx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) {
    return InstructionSet::kAvx2;
  }
#endif
  return InstructionSet::kBaseline;
}

// Bytes of a vector register, as a type, so that they can be passed to a lambda and remain a constant.
template <int kBytes>
using VectorBytes = std::integral_constant<int, kBytes>;

#if defined(__x86_64__)
template <typename Body>
__attribute__((target("arch=x86-64-v4,prefer-vector-width=512"))) void run_avx512(const Body& body) {
  body(VectorBytes<64>{});
}

template <typename Body>
__attribute__((target("arch=x86-64-v3"))) void run_avx2(const Body& body) {
  body(VectorBytes<32>{});
}
#endif

// body(VectorBytes), a lambda marked S2MLP_INLINE. Whatever it calls in its loops must be marked so, too: code that is not
// inlined is compiled for the baseline.
template <typename Body>
void with_widest_instructions(const Body& body) {
#if defined(__x86_64__)
  static const InstructionSet available = detect_instruction_set();
  if (available == InstructionSet::kAvx512) {
    return run_avx512(body);
  }
  if (available == InstructionSet::kAvx2) {
    return run_avx2(body);
  }
#endif
  body(VectorBytes<16>{});
}

}  // namespace s2mlp
