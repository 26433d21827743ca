// Copies, zeroes and prefetches runs of elements, usually the channels of one group in one token.
#pragma once

#include <algorithm>
#include <cstring>

#include "lanes.h"

namespace s2mlp {

constexpr int64_t kLineBytes = 64;       // cache line
constexpr int64_t kWidestRegister = 64;  // bytes

template <int kBytes, Stores kStores = Stores::kCached>
S2MLP_INLINE inline void copy_register(void* to, const void* from) {
  using Register = typename VectorType<uint32_t, kBytes / 4>::type;
  store_vector<kStores>(to, load_vector<Register>(from));
}

// Copies kBytes to 2 * kBytes bytes, as two registers that may overlap.
template <int kBytes>
S2MLP_INLINE inline void copy_two_registers(void* to, const void* from, int64_t bytes) {
  copy_register<kBytes>(to, from);
  copy_register<kBytes>(static_cast<char*>(to) + bytes - kBytes, static_cast<const char*>(from) + bytes - kBytes);
}

template <typename T>
S2MLP_INLINE inline void copy_elements(
    T* to, int64_t to_stride, const T* from, int64_t from_stride, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    to[i * to_stride] = from[i * from_stride];
  }
}

// A contiguous run. Streaming stores require whole cache lines: see runs_are_whole_lines.
template <typename V, typename T>
S2MLP_INLINE inline void copy_dense(T* to, const T* from, int64_t count) {
  constexpr int64_t kStep = V::kBytes / sizeof(T);
  const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
  if (count >= kStep) {
    int64_t i = 0;
    for (; i + kStep <= count; i += kStep) {
      copy_register<V::kBytes, V::kStores>(to + i, from + i);
    }
    if (i < count) {
      copy_register<V::kBytes>(to + count - kStep, from + count - kStep);  // the remainder, overlapping the previous register
    }
  } else if (V::kBytes > 32 && bytes > 32) {
    copy_two_registers<32>(to, from, bytes);
  } else if (V::kBytes > 16 && bytes > 16) {
    copy_two_registers<16>(to, from, bytes);
  } else if (bytes >= 8) {
    copy_two_registers<8>(to, from, bytes);
  } else {
    copy_elements(to, 1, from, 1, count);
  }
}

template <typename V, typename T>
S2MLP_INLINE inline void copy_run(
    T* to, int64_t to_stride, const T* from, int64_t from_stride, int64_t count, V) {
  if (to_stride == 1 && from_stride == 1) {
    copy_dense<V>(to, from, count);
  } else {
    copy_elements(to, to_stride, from, from_stride, count);
  }
}

template <typename T>
void zero_run(T* out, int64_t out_stride, int64_t count) {
  if (out_stride == 1) {
    std::memset(static_cast<void*>(out), 0, count * sizeof(T));
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    out[i * out_stride] = T(0);
  }
}

// The prefetch distance: about twice what a core reads during one memory latency. Less than 4 KiB is too little; more than 8 KiB has
// no benefit.
constexpr int64_t kBytesAhead = 6144;

// The prefetch distance in tokens of `token_elements` elements.
template <typename T>
int64_t tokens_ahead(int64_t token_elements) {
  const int64_t bytes = std::max<int64_t>(1, token_elements * static_cast<int64_t>(sizeof(T)));
  return (kBytesAhead + bytes - 1) / bytes;
}

template <typename T>
S2MLP_INLINE inline void prefetch_run(const T* run, int64_t count) {
  for (int64_t i = 0; i < count; i += kLineBytes / static_cast<int64_t>(sizeof(T))) {
    __builtin_prefetch(run + i);
  }
}

}  // namespace s2mlp
