// CPU kernels of the branch ops that sum over tokens. They sum tile by tile, row by row, then over fixed chunks of rows, in order:
// rounding errors are small, and results do not depend on the number of threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <memory>
#include <vector>

#include "branch_runs.h"
#include "threads.h"

namespace s2mlp {

constexpr int64_t kChunkElements = 65536;  // the least elements of the expanded map in a chunk
constexpr int64_t kChunks = 128;  // in all images: enough for any number of threads

// The division of an image's rows into chunks, each summed by one thread; independent of the number of threads.
struct Chunks {
  int64_t rows;
  int64_t count;

  explicit Chunks(const BranchProblem& p) {
    const int64_t row_elements = p.width * p.branches * p.channels;
    const int64_t enough_work = kChunkElements / std::max<int64_t>(1, row_elements);
    const int64_t enough_chunks = p.images * p.height / kChunks;
    rows = std::clamp<int64_t>(std::max(enough_work, enough_chunks), 1, p.height);
    count = (p.height + rows - 1) / rows;
  }
};

// out[image, n] = the sum over the rows of an image. row(vectors, sums, image, h) adds the values of one row to `sums`, which has
// `lines` branches of values in lane order.
template <typename T, typename Row>
void sum_rows(const BranchProblem& p, const Runs& runs, int64_t lines, accumulator_t<T>* out, const Row& row) {
  using Acc = accumulator_t<T>;
  const Chunks chunks(p);
  const int64_t padded = runs.padded_channels(p);
  const int64_t values = lines * padded;
  const std::unique_ptr<Acc[]> sums_of_chunks(new Acc[p.images * chunks.count * values]);
  const int64_t chunk_elements = chunks.rows * p.width * p.branches * p.channels;
  const int64_t grain = grain_of<T>(chunk_elements);
  torch::stable::parallel_for(0, p.images * chunks.count, grain, [&](int64_t begin, int64_t end) {
    with_vectors([&](auto vectors) S2MLP_INLINE {
      std::vector<Acc> row_sums(values);
      for (int64_t i = begin; i < end; ++i) {
        Acc* sums = sums_of_chunks.get() + i * values;
        std::fill(sums, sums + values, Acc(0));
        const int64_t first_row = i % chunks.count * chunks.rows;
        for (int64_t h = first_row; h < std::min(first_row + chunks.rows, p.height); ++h) {
          std::fill(row_sums.begin(), row_sums.end(), Acc(0));
          row(vectors, row_sums.data(), i / chunks.count, h);
          for (int64_t n = 0; n < values; ++n) {
            sums[n] += row_sums[n];
          }
        }
      }
    });
  });
  const int64_t image_values = chunks.count * values;
  torch::stable::parallel_for(0, p.images, grain_of<Acc>(image_values), [&](int64_t begin, int64_t end) {
    with_vectors([&](auto vectors) S2MLP_INLINE {
      for (int64_t image = begin; image < end; ++image) {
        Acc* sums = sums_of_chunks.get() + image * image_values;
        for (int64_t chunk = 1; chunk < chunks.count; ++chunk) {
          for (int64_t n = 0; n < values; ++n) {
            sums[n] += sums[chunk * values + n];
          }
        }
        for (int64_t line = 0; line < lines; ++line) {
          from_lane_order<T, decltype(vectors)::kBytes>(runs, sums + line * padded, out + (image * lines + line) * p.channels);
        }
      }
    });
  });
}

// sums[c] += the sum of step(lanes, token, first channel, count) over `tokens` >= 1 tokens.
template <typename T, int kBytes, typename Acc, typename Step>
S2MLP_INLINE inline void sum_span(Acc* sums, const Run& run, int64_t tokens, const Step& step) {
  for_each_step<T, kBytes>(
      run.begin, run.end - run.begin, [=](auto lanes, int64_t first, int64_t count) S2MLP_INLINE {
    auto sum = step(lanes, 0, first, count);
    for (int64_t token = 1; token < tokens; ++token) {
      sum += step(lanes, token, first, count);
    }
    sum += load_channel_values(lanes, sums + first);
    store_channel_values(lanes, sums + first, sum);
  });
}

template <typename T>
void pool(const BranchProblem& p, const T* x, const MapStrides& stride, accumulator_t<T>* out) {
  using Acc = accumulator_t<T>;
  const Runs runs(p);
  const int64_t tokens_of_tile = tile_tokens<T>(p, kReadTileBytes<T>);
  sum_rows<T>(p, runs, 1, out, [&](auto vectors, Acc* sums, int64_t image, int64_t h) S2MLP_INLINE {
    constexpr int kBytes = decltype(vectors)::kBytes;
    const std::vector<Run> row_runs = runs.along<true>(p, {}, h);
    const T* const line = x + image * stride.image + h * stride.row;
    const int64_t column_stride = stride.column;
    for_each_tile<T>(p, tokens_of_tile, [&](const Range<int64_t>& tile, int64_t token_ahead) S2MLP_INLINE {
      const T* ahead = line + token_ahead * column_stride;
      for (const Run& run : row_runs) {
        const int64_t elements = tile.size() * (run.end - run.begin);
        prefetch_run(ahead, elements);
        ahead += elements;
        for_each_span(run.row.direct, tile, [&](const Range<int64_t>& span) S2MLP_INLINE {
          const int64_t w = span.begin;
          const int64_t readers = run.row.direct.contains(w) ? 1 : run.row.rows.size() * run.columns<true>(p, w).size();
          if (readers == 0) {
            return;
          }
          const T* const from = line + w * column_stride + run.branch * p.channels;
          const Acc factor = static_cast<Acc>(readers);
          sum_span<T, kBytes>(
              sums + run.padding, run, span.size(),
              [=](auto lanes, int64_t token, int64_t first, int64_t count) S2MLP_INLINE {
            auto values = load_step(lanes, from + token * column_stride + first, count);
            values *= factor;
            return values;
          });
        });
      }
    });
  });
}

template <typename T>
void combine_backward_weights(
    const BranchProblem& p,
    const T* grad,
    const MapStrides& grad_stride,
    const T* x,
    const MapStrides& x_stride,
    accumulator_t<T>* out) {
  using Acc = accumulator_t<T>;
  const Runs runs(p);
  const int64_t tokens_of_tile = tile_tokens<T>(p, kReadTileBytes<T>);
  const int64_t padded = runs.padded_channels(p);
  const int64_t rows_ahead = furthest_row<false>(p.groups, p.height, p.mode);
  const std::vector<T> zeros(p.channels);
  sum_rows<T>(p, runs, p.branches, out, [&](auto vectors, Acc* sums, int64_t image, int64_t h) S2MLP_INLINE {
    constexpr int kBytes = decltype(vectors)::kBytes;
    const std::vector<Run> row_runs = runs.along<false>(p, x_stride, h);
    const T* const map = x + image * x_stride.image;
    const T* const grad_line = grad + image * grad_stride.image + h * grad_stride.row;
    const int64_t x_column = x_stride.column;
    const int64_t grad_column = grad_stride.column;
    for_each_tile<T>(p, tokens_of_tile, [&](const Range<int64_t>& tile, int64_t token_ahead) S2MLP_INLINE {
      const T* ahead = map + (h + rows_ahead) * x_stride.row + token_ahead * x_column;
      const T* grad_ahead = grad_line + token_ahead * grad_column;
      for (const Run& run : row_runs) {
        const int64_t elements = tile.size() * (run.end - run.begin);
        prefetch_run(ahead, elements);
        ahead += elements;
        prefetch_run(grad_ahead, elements / p.branches);
        grad_ahead += elements / p.branches;
        for_each_span(run.row.direct, tile, [&](const Range<int64_t>& span) S2MLP_INLINE {
          const T* const from = run.source(p, map, x_stride, zeros.data(), span.begin);
          const T* const factors = grad_line + span.begin * grad_column;
          sum_span<T, kBytes>(
              sums + run.branch * padded + run.padding, run, span.size(),
              [=](auto lanes, int64_t token, int64_t first, int64_t count) S2MLP_INLINE {
            auto values = load_step(lanes, from + token * x_column + first, count);
            values *= load_step(lanes, factors + token * grad_column + first, count);
            return values;
          });
        });
      }
    });
  });
}

}  // namespace s2mlp
