// CPU kernels of the branch ops that write maps.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <vector>

#include "branch_runs.h"
#include "threads.h"

namespace s2mlp {

// Calls row(vectors, image, h, values) for every row. prepare(vectors, image, values) writes the per-channel values of an image in
// lane order.
template <Stores kStores, typename T, typename Prepare, typename Row>
void for_each_image_row(const BranchProblem& p, int64_t values, const Prepare& prepare, const Row& row) {
  const int64_t grain = grain_of<T>(p.width * p.branches * p.channels);
  torch::stable::parallel_for(0, p.images * p.height, grain, [&](int64_t begin, int64_t end) {
    with_vectors<kStores>([&](auto vectors) S2MLP_INLINE {
      std::vector<accumulator_t<T>> scratch(values);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t image = i / p.height;
        if (i == begin || i % p.height == 0) {
          prepare(vectors, image, scratch.data());
        }
        row(vectors, image, i % p.height, scratch.data());
      }
    });
    if constexpr (kStores == Stores::kStreaming) {
      finish_streaming();
    }
  });
}

// ---- combine ---------------------------------------------------------------------------------------------------------

// The source token and the weights of one branch for a run of the output.
template <typename T>
struct Part {
  const T* token;
  const accumulator_t<T>* weights;
};

// Arrays of parts, with constant and with variable size.
template <typename T>
struct ThreeParts {
  static constexpr int count = 3;
  Part<T> parts[3];
  S2MLP_INLINE const Part<T>& operator[](int i) const { return parts[i]; }
};

template <typename T>
struct AnyParts {
  const Part<T>* parts;
  int64_t count;
  S2MLP_INLINE const Part<T>& operator[](int64_t i) const { return parts[i]; }
};

// Calls use(parts). Loops over the three branches of S2-MLPv2 are unrolled.
template <typename T, typename Use>
S2MLP_INLINE inline void with_parts(const Part<T>* begin, const Part<T>* end, const Use& use) {
  if (end - begin == 3) {
    use(ThreeParts<T>{{begin[0], begin[1], begin[2]}});
  } else {
    use(AnyParts<T>{begin, end - begin});
  }
}

// One row of the output: for each run of its channels, the runs of all branches.
template <typename T>
class CombinedRow {
 public:
  // `zeros` is a token of zeros, the source of zero padding.
  CombinedRow(
      const BranchProblem& p,
      const Runs& all,
      const T* map,
      const MapStrides& stride,
      const T* zeros,
      int64_t h,
      const accumulator_t<T>* weights)
      : p_(p),
        map_(map),
        zeros_(zeros),
        stride_(stride),
        count_(all.count),
        runs_(all.along<false>(p, stride, h)),
        border_parts_(p.branches) {
    direct_.assign(count_, Range<int64_t>{0, p.width});
    for (int64_t n = 0; n < count_; ++n) {
      for (int64_t k = 0; k < p.branches; ++k) {
        const Run& run = of_branch(n, k);
        direct_parts_.push_back({map + run.row.from + k * p.channels, weights + k * all.padded_channels(p) + run.padding});
        direct_[n].begin = std::max(direct_[n].begin, run.row.direct.begin);
        direct_[n].end = std::min(direct_[n].end, run.row.direct.end);
      }
    }
  }

  S2MLP_INLINE const Run& of_branch(int64_t n, int64_t k) const { return runs_[k * count_ + n]; }

  // The tokens with a single source in every branch, at a constant distance.
  S2MLP_INLINE const Range<int64_t>& direct(int64_t n) const {
    return direct_[n];
  }

  // Calls use(parts) with the sources of token w, the first one of a span of run n.
  template <typename Use>
  S2MLP_INLINE void with_span(int64_t n, int64_t w, const Use& use) {
    const Part<T>* const row_parts = direct_parts_.data() + n * p_.branches;
    Part<T>* end = border_parts_.data();
    for (int64_t k = 0; k < p_.branches; ++k) {
      const T* const token =
          direct_[n].contains(w) ? row_parts[k].token + w * stride_.column : of_branch(n, k).source(p_, map_, stride_, zeros_, w);
      *end++ = {token, row_parts[k].weights};
    }
    with_parts<T>(border_parts_.data(), end, use);
  }

 private:
  const BranchProblem& p_;
  const T* map_;
  const T* zeros_;
  MapStrides stride_;
  int64_t count_;
  std::vector<Run> runs_;
  std::vector<Range<int64_t>> direct_;
  std::vector<Part<T>> direct_parts_;  // of token 0, as if it were direct
  std::vector<Part<T>> border_parts_;
};

// One token of one run of the output: the weighted sum over its parts.
template <Stores kStores, int kBytes, typename T, typename Parts>
S2MLP_INLINE inline void combine_token(const Parts& parts, int64_t from, T* to, int64_t begin, int64_t channels) {
  for_each_step<T, kBytes>(begin, channels, [=](auto lanes, int64_t first, int64_t count) S2MLP_INLINE {
    typename decltype(lanes)::Step sum{};
    for (int i = 0; i < parts.count; ++i) {
      auto values = load_step(lanes, parts[i].token + from + first, count);
      values *= load_channel_values(lanes, parts[i].weights + first);
      sum += values;
    }
    store_step<kStores>(lanes, to + first, sum, count);
  });
}

template <Stores kStores, typename T>
void combine_rows(
    const BranchProblem& p,
    const T* x,
    const MapStrides& x_stride,
    const accumulator_t<T>* weights,
    int64_t weights_stride,
    T* out,
    const MapStrides& out_stride) {
  using Acc = accumulator_t<T>;
  const Runs runs(p);
  const int64_t tokens_of_tile = tile_tokens<T>(p, kReadTileBytes<T>);
  const int64_t padded = runs.padded_channels(p);
  const int64_t rows_ahead = furthest_row<false>(p.groups, p.height, p.mode);
  const std::vector<T> zeros(p.channels);
  const auto prepare = [&](auto vectors, int64_t image, Acc* values) {
    for (int64_t k = 0; k < p.branches; ++k) {
      to_lane_order<T, decltype(vectors)::kBytes>(runs, weights + image * weights_stride + k * p.channels, values + k * padded);
    }
  };
  for_each_image_row<kStores, T>(
      p, p.branches * padded, prepare,
      [&](auto vectors, int64_t image, int64_t h, const Acc* values) S2MLP_INLINE {
    constexpr int kBytes = decltype(vectors)::kBytes;
    const T* const map = x + image * x_stride.image;
    T* const line = out + image * out_stride.image + h * out_stride.row;
    const int64_t x_column = x_stride.column;
    const int64_t out_column = out_stride.column;
    CombinedRow<T> row(p, runs, map, x_stride, zeros.data(), h, values);
    for_each_tile<T>(p, tokens_of_tile, [&](const Range<int64_t>& tile, int64_t token_ahead) S2MLP_INLINE {
      const T* ahead = map + (h + rows_ahead) * x_stride.row + token_ahead * x_column;
      const T* out_ahead = line + token_ahead * out_column;
      for (int64_t n = 0; n < runs.count; ++n) {
        const int64_t begin = row.of_branch(n, 0).begin;
        const int64_t channels = row.of_branch(n, 0).end - begin;
        const int64_t expanded_channels = p.branches * channels;
        for_each_span(row.direct(n), tile, [&](const Range<int64_t>& span) S2MLP_INLINE {
          const int64_t tokens = span.size();
          T* const to = line + span.begin * out_column;
          const T* const span_ahead = ahead + (span.begin - tile.begin) * expanded_channels;
          const T* const span_out_ahead = out_ahead + (span.begin - tile.begin) * channels;
          row.with_span(n, span.begin, [=](auto parts) S2MLP_INLINE {
            for (int64_t token = 0; token < tokens; ++token) {
              prefetch_run(span_ahead + token * expanded_channels, expanded_channels);
              if constexpr (kStores == Stores::kCached) {
                prefetch_run(span_out_ahead + token * channels, channels);
              }
              combine_token<kStores, kBytes>(parts, token * x_column, to + token * out_column, begin, channels);
            }
          });
        });
        ahead += tile.size() * expanded_channels;
        out_ahead += tile.size() * channels;
      }
    });
  });
}

// ---- combine_backward ------------------------------------------------------------------------------------------------

// A span of tokens of one run of the expanded map's gradient. `grad` is the gradient of the image's combined map, or null; `to` is
// the first token of the span.
template <Stores kStores, int kBytes, typename T>
S2MLP_INLINE inline void combine_backward_span(
    const BranchProblem& p,
    const Run& run,
    const Range<int64_t>& span,
    const T* grad,
    const MapStrides& grad_stride,
    const accumulator_t<T>* weights,
    const accumulator_t<T>* pool_grad,
    T* to,
    int64_t out_column) {
  using Acc = accumulator_t<T>;
  const int64_t begin = run.begin;
  const int64_t channels = run.end - begin;
  const int64_t grad_column = grad_stride.column;
  const auto finish = [=](auto lanes, int64_t token, int64_t first, int64_t count, auto sum, Acc readers) S2MLP_INLINE {
    sum *= load_channel_values(lanes, weights + first);
    auto pooled = load_channel_values(lanes, pool_grad + first);
    pooled *= readers;
    sum += pooled;
    store_step<kStores>(lanes, to + token * out_column + first, sum, count);
  };
  if (grad != nullptr && run.row.direct.contains(span.begin)) {
    const T* const reader = grad + run.row.from + span.begin * grad_column;
    for (int64_t token = 0; token < span.size(); ++token) {
      for_each_step<T, kBytes>(begin, channels, [=](auto lanes, int64_t first, int64_t count) S2MLP_INLINE {
        finish(lanes, token, first, count, load_step(lanes, reader + token * grad_column + first, count), Acc(1));
      });
    }
    return;
  }
  for (int64_t token = 0; token < span.size(); ++token) {
    const Sources<int64_t> columns = run.columns<true>(p, span.begin + token);
    const Acc readers = static_cast<Acc>(run.row.rows.size() * columns.size());
    for_each_step<T, kBytes>(begin, channels, [=](auto lanes, int64_t first, int64_t count) S2MLP_INLINE {
      typename decltype(lanes)::Step sum{};
      if (readers == 0) {  // a gradient of zero, even if a weight is infinite or NaN
        store_step<kStores>(lanes, to + token * out_column + first, sum, count);
        return;
      }
      if (grad != nullptr) {
        sum = sum_of_step(lanes, grad + first, grad_stride.row, grad_column, run.row.rows, columns, count);
      }
      finish(lanes, token, first, count, sum, readers);
    });
  }
}

// grad and weights, or pool_grad, may be null.
template <Stores kStores, typename T>
void combine_backward_rows(
    const BranchProblem& p,
    const T* grad,
    const MapStrides& grad_stride,
    const accumulator_t<T>* weights,
    int64_t weights_stride,
    const accumulator_t<T>* pool_grad,
    int64_t pool_grad_stride,
    T* out,
    const MapStrides& out_stride) {
  using Acc = accumulator_t<T>;
  const Runs runs(p);
  const int64_t tokens_of_tile = tile_tokens<T>(p, kWriteTileBytes);
  const int64_t padded = runs.padded_channels(p);
  const int64_t rows_ahead = furthest_row<true>(p.groups, p.height, p.mode);
  // The weights of each branch, then the gradient of the pooled sums; zeros if missing.
  const auto prepare = [&](auto vectors, int64_t image, Acc* values) {
    for (int64_t k = 0; weights != nullptr && k < p.branches; ++k) {
      to_lane_order<T, decltype(vectors)::kBytes>(runs, weights + image * weights_stride + k * p.channels, values + k * padded);
    }
    if (pool_grad != nullptr) {
      to_lane_order<T, decltype(vectors)::kBytes>(runs, pool_grad + image * pool_grad_stride, values + p.branches * padded);
    }
  };
  for_each_image_row<kStores, T>(
      p, (p.branches + 1) * padded, prepare,
      [&](auto vectors, int64_t image, int64_t h, const Acc* values) S2MLP_INLINE {
    constexpr int kBytes = decltype(vectors)::kBytes;
    const std::vector<Run> row_runs = runs.along<true>(p, grad_stride, h);
    const T* const map = grad == nullptr ? nullptr : grad + image * grad_stride.image;
    T* const line = out + image * out_stride.image + h * out_stride.row;
    for_each_tile<T>(p, tokens_of_tile, [&](const Range<int64_t>& tile, int64_t token_ahead) S2MLP_INLINE {
      T* ahead = line + token_ahead * out_stride.column;
      int64_t grad_ahead = (h + rows_ahead) * grad_stride.row + token_ahead * grad_stride.column;
      for (const Run& run : row_runs) {
        const int64_t elements = tile.size() * (run.end - run.begin);
        if constexpr (kStores == Stores::kCached) {
          prefetch_run(ahead, elements);
          ahead += elements;
        }
        if (map != nullptr) {
          prefetch_run(map + grad_ahead, elements / p.branches);
          grad_ahead += elements / p.branches;
        }
        const Acc* const run_weights = values + run.branch * padded + run.padding;
        const Acc* const run_pool_grad = values + p.branches * padded + run.padding;
        for_each_span(run.row.direct, tile, [&](const Range<int64_t>& span) S2MLP_INLINE {
          T* const to = line + span.begin * out_stride.column + run.branch * p.channels;
          combine_backward_span<kStores, kBytes>(p, run, span, map, grad_stride, run_weights, run_pool_grad, to, out_stride.column);
        });
      }
    });
  });
}

// Whether an output map with `channels` channels is written by streaming stores.
template <typename T>
bool streams(const BranchProblem& p, int64_t channels, const T* out, const MapStrides& stride) {
  const int64_t elements = p.images * p.height * p.width * channels;
  return elements * static_cast<int64_t>(sizeof(T)) > streaming_bytes() &&
      are_whole_lines(out, {stride.image, stride.row, stride.column, p.channels}, p.groups);
}

}  // namespace s2mlp
