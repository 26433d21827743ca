// The shift of small planes that are contiguous in memory, without handling borders separately. The source positions of a plane
// repeat with a short period, so they are computed once, as masks.
//
// Position i of a stretch of planes reads in[i + delta], for one of a few deltas. Away from the border the delta is the same
// everywhere; a replicated border of one token has another. Each output vector is therefore a blend of one masked input vector per
// delta. In the adjoint a position may read several inputs, which are summed.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "../shift_problem.h"
#include "runs.h"

namespace s2mlp {

constexpr int64_t kMostDeltas = 4;  // with more deltas, handling borders separately is faster
constexpr int64_t kMostPeriodBytes = 2048;  // masks must fit into L1, together with inputs and outputs
constexpr int64_t kLeastBlendBytes = 1024;  // of a stretch, whose first and last vectors take longer than the others

struct Blend {
  int64_t period = 0;  // bytes; 0 if the shift cannot be blended
  std::vector<int64_t> deltas;  // bytes
  std::vector<std::vector<uint8_t>> masks;  // by delta: 255 for the bytes of positions that use it; one period plus one vector long
  std::vector<uint8_t> sums;  // 255 for positions that read several inputs; empty if none does
  std::vector<uint8_t> has_sums;  // by byte: whether a vector that starts there contains such positions
};

// For contiguous planes.
template <bool kAdjoint>
Blend make_blend(const ShiftProblem& p, const ShiftGroup& group, int64_t element_bytes) {
  const int64_t width = p.width.size;
  const int64_t row_bytes = width * element_bytes;
  const int64_t rows = group.dh == 0 ? (kWidestRegister + row_bytes - 1) / row_bytes : p.height.size;
  Blend blend;
  const int64_t period = rows * row_bytes;
  if (period < kWidestRegister || period > kMostPeriodBytes) {
    return blend;
  }
  const auto set = [&](std::vector<uint8_t>& mask, int64_t position) {
    mask.resize(period + kWidestRegister);
    std::fill_n(mask.begin() + position * element_bytes, element_bytes, 255);
  };
  for (int64_t h = 0; h < rows; ++h) {
    const Sources<int64_t> from_rows =
        group.dh == 0 ? Sources<int64_t>{{h, h + 1}, {0, 0}} : sources<kAdjoint>(h, group.dh, p.height.size, p.mode);
    for (int64_t w = 0; w < width; ++w) {
      const Sources<int64_t> from_columns = sources<kAdjoint>(w, group.dw, width, p.mode);
      for (int64_t i = 0; i < from_rows.size(); ++i) {
        for (int64_t j = 0; j < from_columns.size(); ++j) {
          const int64_t delta = ((from_rows[i] - h) * width + from_columns[j] - w) * element_bytes;
          const auto found = std::find(blend.deltas.begin(), blend.deltas.end(), delta);
          const size_t n = found - blend.deltas.begin();
          if (found == blend.deltas.end()) {
            if (n == kMostDeltas) {
              return Blend{};
            }
            blend.deltas.push_back(delta);
            blend.masks.emplace_back();
          }
          set(blend.masks[n], h * width + w);
        }
      }
      if (from_rows.size() * from_columns.size() > 1) {
        set(blend.sums, h * width + w);
      }
    }
  }
  if (blend.deltas.empty()) {
    return blend;  // all zeros
  }
  blend.period = period;
  const auto repeat = [&](std::vector<uint8_t>& mask) {
    for (int64_t i = 0; i < kWidestRegister; ++i) {
      mask[period + i] = mask[i];
    }
  };
  std::for_each(blend.masks.begin(), blend.masks.end(), repeat);
  while (blend.deltas.size() != 2 && blend.deltas.size() != 4) {  // the loops below are compiled for 2 and 4 deltas
    blend.deltas.push_back(blend.deltas[0]);
    blend.masks.emplace_back(period + kWidestRegister);  // all zeros: unused
  }
  if (!blend.sums.empty()) {
    repeat(blend.sums);
    blend.has_sums.resize(period);
    for (int64_t i = 0; i < period; ++i) {
      const auto begin = blend.sums.begin() + i;
      blend.has_sums[i] = std::find(begin, begin + kWidestRegister, 255) != begin + kWidestRegister;
    }
  }
  return blend;
}

// Loads a vector from byte `begin` of `from`, with zeros for bytes outside of [0, bytes).
template <typename Register>
S2MLP_INLINE inline Register load_within(const char* from, int64_t begin, int64_t bytes) {
  const int64_t size = sizeof(Register);
  if (begin >= 0 && begin + size <= bytes) {
    return load_vector<Register>(from + begin);
  }
  char padded[sizeof(Register)] = {};
  const int64_t first = std::clamp<int64_t>(-begin, 0, size);
  const int64_t last = std::clamp<int64_t>(bytes - begin, first, size);
  std::memcpy(padded + first, from + begin + first, last - first);
  return load_vector<Register>(padded);
}

// A Blend for the loops below: a local copy, which stores to the output cannot alias, with a constant number of deltas.
template <int kDeltas>
struct BlendView {
  int64_t deltas[kDeltas];
  const uint8_t* masks[kDeltas];
  const uint8_t* sums;
  const uint8_t* has_sums;
  int64_t period;
  int64_t first_delta;
  int64_t last_delta;

  explicit BlendView(const Blend& blend)
      : sums(blend.sums.data()),
        has_sums(blend.has_sums.data()),
        period(blend.period),
        first_delta(*std::min_element(blend.deltas.begin(), blend.deltas.end())),
        last_delta(*std::max_element(blend.deltas.begin(), blend.deltas.end())) {
    for (int n = 0; n < kDeltas; ++n) {
      deltas[n] = blend.deltas[n];
      masks[n] = blend.masks[n].data();
    }
  }
};

// Writes one vector of a stretch of `bytes`, at byte i of the output. kSums: some positions read several inputs.
template <typename L, bool kSums, bool kInside, Stores kStores, int kDeltas>
S2MLP_INLINE inline void blend_step(
    char* out, const char* in, int64_t bytes, int64_t i, int64_t phase, const BlendView<kDeltas>& blend) {
  using Register = typename L::Register;
  using Bits = typename VectorType<uint32_t, sizeof(Register) / 4>::type;
  Bits bits[kDeltas];
  Bits taken{};
  for (int n = 0; n < kDeltas; ++n) {
    const int64_t at = i + blend.deltas[n];
    bits[n] = load_vector<Bits>(blend.masks[n] + phase);
    if constexpr (kInside) {
      bits[n] &= load_vector<Bits>(in + at);
    } else {
      bits[n] &= load_within<Bits>(in, at, bytes);
    }
    taken |= bits[n];
  }
  if constexpr (kSums) {
    if (blend.has_sums[phase]) {
      typename L::Step sum{};
      for (int n = 0; n < kDeltas; ++n) {
        sum += L::unpack(reinterpret_cast<Register>(bits[n]));
      }
      const Bits several = load_vector<Bits>(blend.sums + phase);
      taken = (several & reinterpret_cast<Bits>(L::pack(sum))) | (~several & taken);
    }
  }
  store_vector<kStores>(out + i, taken);
}

// A stretch of planes, of at least one vector. Only the first and the last store may cross a cache line.
template <typename L, bool kSums, Stores kStores, int kDeltas>
S2MLP_INLINE inline void blend_stretch(
    char* out, const char* in, int64_t bytes, const BlendView<kDeltas>& blend) {
  constexpr int64_t kStepBytes = sizeof(typename L::Register);
  const int64_t last = bytes - kStepBytes;
  const int64_t first_inside = std::max<int64_t>(1, -blend.first_delta);
  const int64_t last_inside = last - std::max<int64_t>(0, blend.last_delta);
  int64_t i = 0;
  int64_t phase = 0;
  const auto advance = [&](int64_t step) S2MLP_INLINE {
    i += step;
    phase += step;
    phase -= phase >= blend.period ? blend.period : 0;
  };
  for (;;) {
    blend_step<L, kSums, false, Stores::kCached>(out, in, bytes, i, phase, blend);
    if (i == last) {
      return;
    }
    advance(i == 0 ? kStepBytes - static_cast<int64_t>(reinterpret_cast<uintptr_t>(out) % kStepBytes) : kStepBytes);
    for (const bool inside = i >= first_inside; inside && i <= last_inside; advance(kStepBytes)) {
      __builtin_prefetch(in + i + kBytesAhead);
      if constexpr (kStores == Stores::kCached) {
        __builtin_prefetch(out + i + kBytesAhead);
      }
      blend_step<L, kSums, true, kStores>(out, in, bytes, i, phase, blend);
    }
    if (i >= bytes) {
      return;
    }
    if (i > last) {
      advance(last - i + blend.period);
      i = last;
    }
  }
}

// A stretch of planes, of at least one vector. 64-byte vectors are used only to sum bfloat16. Elsewhere they are slower than
// 32-byte vectors, because no load is aligned to a cache line.
template <typename T, typename V>
S2MLP_INLINE inline void blend_planes(
    T* out_planes, const T* in_planes, int64_t elements, const Blend& blend, V) {
  using L = Lanes<T, V::kBytes>;
  using Narrow = Lanes<T, std::min(V::kBytes, 32)>;
  const int64_t bytes = elements * static_cast<int64_t>(sizeof(T));
  char* out = reinterpret_cast<char*>(out_planes);
  const char* in = reinterpret_cast<const char*>(in_planes);
  if (blend.sums.empty()) {
    blend.deltas.size() == 2 ? blend_stretch<Narrow, false, V::kStores>(out, in, bytes, BlendView<2>(blend))
                             : blend_stretch<Narrow, false, V::kStores>(out, in, bytes, BlendView<4>(blend));
  } else if constexpr (L::kSums) {
    using ForSums = std::conditional_t<L::kParts == 2, L, Narrow>;
    blend.deltas.size() == 2 ? blend_stretch<ForSums, true, V::kStores>(out, in, bytes, BlendView<2>(blend))
                             : blend_stretch<ForSums, true, V::kStores>(out, in, bytes, BlendView<4>(blend));
  }
}

}  // namespace s2mlp
