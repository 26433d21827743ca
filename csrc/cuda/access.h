// The unit of memory access of a thread: up to 16 bytes, held as words, or as elements if the kernel computes with them.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../reinterpret_bits.h"
#include "launch.h"

namespace s2mlp {

template <int kBytes>
struct alignas(kBytes) Access {
  using Word = std::conditional_t<kBytes >= 4, uint32_t, std::conditional_t<kBytes == 2, uint16_t, uint8_t>>;
  static constexpr int kWords = kBytes >= 4 ? kBytes / 4 : 1;

  Word words[kWords];
};

template <typename T, int kVector>
using AccessOf = Access<static_cast<int>(sizeof(T)) * kVector>;

// Replaces the bytes from `first_byte` on with those of `other`.
template <int kBytes>
__device__ void replace_from(Access<kBytes>& access, const Access<kBytes>& other, int first_byte) {
#pragma unroll
  for (int i = 0; i < Access<kBytes>::kWords; ++i) {
    const int bytes = first_byte - 4 * i;  // of this word that are kept
    const uint32_t mask = bytes <= 0 ? ~uint32_t{0} : (bytes >= 4 ? 0 : ~uint32_t{0} << 8 * bytes);
    access.words[i] = static_cast<typename Access<kBytes>::Word>((access.words[i] & ~mask) | (other.words[i] & mask));
  }
}

// Loads from global memory that is read-only while the kernel runs.
template <int kBytes>
__device__ __forceinline__ Access<kBytes> load_global(uint64_t address) {
  Access<kBytes> access;
#if defined(__CUDA_ARCH__)
  using Word = std::conditional_t<kBytes == 16, uint4, std::conditional_t<kBytes == 8, uint2, typename Access<kBytes>::Word>>;
  const Word word = __ldg(reinterpret_cast<const Word*>(address));
  memcpy(&access, &word, kBytes);
#else
  access = *reinterpret_cast<const Access<kBytes>*>(address);
#endif
  return access;
}

// In assembly, because after integer arithmetic the compiler no longer knows that an address is in global memory.
template <int kBytes>
__device__ __forceinline__ void store_global(uint64_t address, const Access<kBytes>& access) {
#if !defined(__CUDA_ARCH__)
  *reinterpret_cast<Access<kBytes>*>(address) = access;
#else
  const auto& words = access.words;
  if constexpr (kBytes == 16) {
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(words[0]), "r"(words[1]), "r"(words[2]),
                 "r"(words[3])
                 : "memory");
  } else if constexpr (kBytes == 8) {
    asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(address), "r"(words[0]), "r"(words[1]) : "memory");
  } else if constexpr (kBytes == 4) {
    asm volatile("st.global.b32 [%0], %1;" ::"l"(address), "r"(words[0]) : "memory");
  } else if constexpr (kBytes == 2) {
    asm volatile("st.global.b16 [%0], %1;" ::"l"(address), "h"(words[0]) : "memory");
  } else {
    asm volatile("st.global.b8 [%0], %1;" ::"l"(address), "r"(uint32_t{words[0]}) : "memory");
  }
#endif
}

// The address of a tensor's data in global memory.
__device__ __forceinline__ uint64_t global_address(const void* data) {
#if defined(__CUDA_ARCH__)
  return __cvta_generic_to_global(data);
#else
  return reinterpret_cast<uint64_t>(data);
#endif
}

}  // namespace s2mlp
