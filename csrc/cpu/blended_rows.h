// The shift and its adjoint for innermost channels and groups so short, down to single channels, that moving each group separately
// takes longer than the memory accesses. A token is written one vector at a time, as a masked blend of the tokens that the channels
// of the vector read. Groups with the same offsets are treated as one.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <vector>

#include "../shift_problem.h"
#include "epilogue.h"
#include "map_walk.h"
#include "rows.h"
#include "runs.h"

namespace s2mlp {

constexpr size_t kMostDistinctOffsets = 32;

// For each vector of a token, the offsets of its channels, as masks. L: Lanes of the elements.
template <typename L, typename T>
class TokenBlend {
 public:
  using Bits = typename VectorType<uint32_t, sizeof(typename L::Register) / 4>::type;
  static constexpr int64_t kStep = sizeof(Bits) / sizeof(T);

  TokenBlend(const DistinctOffsets& distinct, const std::vector<ShiftGroup>& groups) {
    std::vector<size_t> of_channel;
    for (size_t g = 0; g < groups.size(); ++g) {
      of_channel.insert(of_channel.end(), groups[g].channel_end - groups[g].channel_begin, distinct.of_group[g]);
    }
    const int64_t channels = static_cast<int64_t>(of_channel.size());
    for (int64_t first = 0;; first = std::min(first + kStep, channels - kStep)) {  // the last two may overlap
      Step step{first, parts_.size(), 0};
      for (size_t d = 0; d < distinct.offsets.size(); ++d) {
        const auto begin = of_channel.begin() + first;
        if (std::find(begin, begin + kStep, d) == begin + kStep) {
          continue;
        }
        parts_.push_back(d);
        for (int64_t i = 0; i < kStep; ++i) {
          masks_.insert(masks_.end(), sizeof(T), begin[i] == d ? 255 : 0);
        }
      }
      step.end = parts_.size();
      steps_.push_back(step);
      if (first == channels - kStep) {
        return;
      }
    }
  }

  // Writes a token whose channels read one element each: channel c with offsets d reads from[d][c].
  S2MLP_INLINE void move(T* to, const T* const* from) const {
    for (const Step& step : steps_) {
      Bits taken{};
      for (size_t i = step.begin; i < step.end; ++i) {
        taken |= mask(i) & load_vector<Bits>(from[parts_[i]] + step.first);
      }
      store_vector(to + step.first, taken);
    }
  }

  // Writes a token whose channels may read several elements: value(d, c) is the sum for offsets d, for the vector at channel c.
  template <typename Value>
  S2MLP_INLINE void sum(T* to, const Value& value) const {
    for (const Step& step : steps_) {
      Bits taken{};
      for (size_t i = step.begin; i < step.end; ++i) {
        taken |= mask(i) & reinterpret_cast<Bits>(L::pack(value(parts_[i], step.first)));
      }
      store_vector(to + step.first, taken);
    }
  }

 private:
  struct Step {
    int64_t first;  // channel
    size_t begin;  // its range in parts_
    size_t end;
  };

  S2MLP_INLINE Bits mask(size_t part) const { return load_vector<Bits>(masks_.data() + part * sizeof(Bits)); }

  std::vector<Step> steps_;
  std::vector<size_t> parts_;  // indices of offsets
  std::vector<uint8_t> masks_;  // one vector per part, 255 for the bytes of channels with these offsets
};

// Whether groups are short enough for walk_rows_blended, and its other requirements hold. The limit is higher for fused operations:
// here they are applied to whole tokens, in walk_rows also to a partial vector at the end of each run.
template <typename T, typename Op>
bool has_short_groups(const ShiftProblem& p) {
  constexpr int64_t kShortRunBytes = std::is_same_v<Op, Identity> ? 32 : 128;
  const int64_t bytes = p.channel.size * static_cast<int64_t>(sizeof(T));
  return p.channel.in_stride == 1 && p.channel.out_stride == 1 && bytes >= kWidestRegister &&
      bytes < kShortRunBytes * static_cast<int64_t>(p.groups.size());
}

template <bool kAdjoint, typename T, typename Op>
void walk_rows_blended(
    const ShiftProblem& p, const DistinctOffsets& distinct, const T* in, T* out, const Epilogue<T, Op>& epilogue) {
  const int64_t height = p.height.size;
  const int64_t channels = p.channel.size;
  const size_t count = distinct.offsets.size();
  const int64_t rows_ahead = furthest_row<kAdjoint>(p.groups, height, p.mode);
  const int64_t ahead_of_token = tokens_ahead<T>(channels);
  const int64_t ahead_of_output = ahead_of_token * p.width.out_stride;
  const std::vector<T> zeros(channels);
  const auto token_at = [&](const T* map, int64_t h, int64_t w)
                            S2MLP_INLINE { return map + h * p.height.in_stride + w * p.width.in_stride; };
  torch::stable::parallel_for(0, p.leading_size * height, grain_of<T>(p.width.size * channels), [&](int64_t begin, int64_t end) {
    std::vector<Sources<int64_t>> rows(count);
    std::vector<Sources<int64_t>> columns(count);
    std::vector<const T*> from(count);
    with_vectors([&](auto vectors) S2MLP_INLINE {
      using L = Lanes<T, decltype(vectors)::kBytes>;
      const TokenBlend<L, T> blend(distinct, p.groups);
      for (int64_t row = begin; row < end; ++row) {
        const MapOffset offset = map_offset(p, row / height);
        const int64_t h = row % height;
        const T* map = in + offset.in;
        T* to = out + offset.out + h * p.height.out_stride;
        for (size_t d = 0; d < count; ++d) {
          rows[d] = sources<kAdjoint>(h, distinct.offsets[d].dh, height, p.mode);
        }
        for (int64_t w = 0; w < p.width.size; ++w, to += p.width.out_stride) {
          prefetch_run(token_at(map, h + rows_ahead, w + ahead_of_token), channels);
          prefetch_run(to + ahead_of_output, channels);
          epilogue.prefetch(to + ahead_of_output, channels);
          bool several = false;
          for (size_t d = 0; d < count; ++d) {
            columns[d] = sources<kAdjoint>(w, distinct.offsets[d].dw, p.width.size, p.mode);
            const int64_t tokens = rows[d].size() * columns[d].size();
            from[d] = tokens == 0 ? zeros.data() : token_at(map, rows[d][0], columns[d][0]);
            several |= tokens > 1;
          }
          if (!several) {
            blend.move(to, from.data());
          } else if constexpr (kAdjoint) {
            blend.sum(to, [&](size_t d, int64_t c) S2MLP_INLINE {
              return sum_of_step(L{}, map + c, p.height.in_stride, p.width.in_stride, rows[d], columns[d], L::kStep);
            });
          }
          epilogue.finish(to, int64_t{1}, channels, vectors);
        }
      }
    });
  });
}

}  // namespace s2mlp
