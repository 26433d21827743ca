// The branch ops of the split attention on a CPU.
//
// Each walks the rows of a map in tiles of a few tokens and, within a tile, channels in runs: those of one branch that belong to
// one group in every branch. What is the same along a row is found once per row, and numbers per channel are loaded once per tile.
// Tiles are so short that memory is still read and written nearly in order.
//
// Sums over tokens are made tile by tile and row by row, and rows are added up in fixed chunks, in order: few roundings, and the
// same ones for any number of threads.
//
// Numbers per channel (weights, sums) are kept in the order in which Lanes has the elements of a run: see to_lane_order.
#include <algorithm>
#include <memory>
#include <vector>

#include "../branch_ops.h"
#include "../library.h"
#include "instruction_sets.h"
#include "lanes.h"
#include "rows.h"
#include "threads.h"

namespace s2mlp {
namespace {

constexpr int64_t kChunkElements = 65536;  // of the expanded map, at the least, summed up by one thread at a time
constexpr int64_t kChunks = 128;  // of all images: enough for any number of threads

// Bytes of the expanded map in a tile, at the most, unless one token has more. Elements that are converted cost instructions, which
// longer tiles save. Others cost memory accesses, whose order shorter tiles keep: that of reads, since stores are not waited for.
template <typename T>
constexpr int64_t kReadTileBytes = sizeof(T) == 2 ? 8192 : 5120;
constexpr int64_t kWriteTileBytes = 12288;

// Channels [begin, end) of one branch.
struct Run {
  int64_t branch;
  int64_t begin;
  int64_t end;
  int64_t padding;  // of the numbers of these channels: see kPadding
  ShiftGroup group;
  GroupRow row;  // of the row that is walked

  template <bool kAdjoint>
  S2MLP_INLINE Sources<int64_t> columns(const BranchProblem& p, int64_t w) const {
    return sources<kAdjoint>(w, group.dw, p.width, p.mode);
  }

  // The token that output token w of the row reads, or null where it reads zeros.
  template <typename T>
  S2MLP_INLINE const T* source(const BranchProblem& p, const T* map, const MapStrides& stride, int64_t w) const {
    if (row.direct.contains(w)) {
      return map + row.from + w * stride.column + branch * p.channels;
    }
    const Sources<int64_t> from = columns<false>(p, w);
    if (row.rows.size() == 0 || from.size() == 0) {
      return nullptr;
    }
    return map + row.rows[0] * stride.row + from[0] * stride.column + branch * p.channels;
  }
};

// Numbers of a run lie at its first channel, plus this many per run before it: the last step of a run may be a partial one.
constexpr int64_t kPadding = 16;

// The runs of a expanded map: those of the first branch, then those of the second, ... Each branch has as many.
struct Runs {
  std::vector<Run> all;
  int64_t count;  // of one branch

  explicit Runs(const BranchProblem& p) {
    std::vector<int64_t> borders;
    for (const ShiftGroup& group : p.groups) {
      borders.push_back(group.channel_begin % p.channels);
    }
    std::sort(borders.begin(), borders.end());
    borders.erase(std::unique(borders.begin(), borders.end()), borders.end());
    borders.push_back(p.channels);
    count = static_cast<int64_t>(borders.size()) - 1;
    auto group = p.groups.begin();
    for (int64_t k = 0; k < p.branches; ++k) {
      for (int64_t n = 0; n < count; ++n) {
        group += k * p.channels + borders[n] == group->channel_end;
        all.push_back({k, borders[n], borders[n + 1], n * kPadding, *group, {}});
      }
    }
  }

  int64_t padded_channels(const BranchProblem& p) const { return p.channels + count * kPadding; }

  // The runs along row h of the output.
  template <bool kAdjoint>
  std::vector<Run> along(const BranchProblem& p, const MapStrides& stride, int64_t h) const {
    std::vector<Run> runs = all;
    for (Run& run : runs) {
      run.row = group_row<kAdjoint>(run.group, h, p.height, p.width, stride.row, stride.column, p.mode);
    }
    return runs;
  }
};

// Tokens of a tile.
template <typename T>
int64_t tile_tokens(const BranchProblem& p, int64_t bytes) {
  return std::max<int64_t>(1, bytes / (p.branches * p.channels * static_cast<int64_t>(sizeof(T))));
}

// walk(tile, ahead) for the tiles of a row, in order; what is prefetched meanwhile starts at token `ahead` of the row.
template <typename T, typename Walk>
S2MLP_INLINE inline void for_each_tile(const BranchProblem& p, int64_t tokens, const Walk& walk) {
  const int64_t ahead_of_tile = tokens_ahead<T>(p.branches * p.channels);
  for (int64_t w = 0; w < p.width; w += tokens) {
    walk(Range<int64_t>{w, std::min(w + tokens, p.width)}, w + tokens + ahead_of_tile);
  }
}

// walk(span) for the spans of a tile: its direct tokens at once, the others one by one.
template <typename Walk>
S2MLP_INLINE inline void for_each_span(
    const Range<int64_t>& direct, const Range<int64_t>& tile, const Walk& walk) {
  for (int64_t w = tile.begin; w < tile.end;) {
    const bool is_direct = direct.contains(w) && tile.end <= direct.end;
    const int64_t end = is_direct ? tile.end : w + 1;
    walk(Range<int64_t>{w, end});
    w = end;
  }
}

// An array whose size is a constant, and one whose size is not.
template <typename Part>
struct ThreeParts {
  static constexpr int count = 3;
  Part parts[3];
  S2MLP_INLINE const Part& operator[](int i) const { return parts[i]; }
};

template <typename Part>
struct AnyParts {
  const Part* parts;
  int64_t count;
  S2MLP_INLINE const Part& operator[](int64_t i) const { return parts[i]; }
};

// use(parts) with what lies between two pointers. Loops over the three branches of S2-MLPv2 are unrolled.
template <typename Part, typename Use>
S2MLP_INLINE inline void with_parts(const Part* begin, const Part* end, const Use& use) {
  if (end - begin == 3) {
    use(ThreeParts<Part>{{begin[0], begin[1], begin[2]}});
  } else {
    use(AnyParts<Part>{begin, end - begin});
  }
}

// Numbers in lane order.
template <typename L>
S2MLP_INLINE inline typename L::Step load_numbers(L, const typename L::Acc* from) {
  typename L::Step step;
  for (int part = 0; part < L::kParts; ++part) {
    step.parts[part] = load_vector<typename L::Vector>(from + part * L::kCount);
  }
  return step;
}

template <typename L>
S2MLP_INLINE inline void store_numbers(L, typename L::Acc* to, const typename L::Step& step) {
  for (int part = 0; part < L::kParts; ++part) {
    store_vector(to + part * L::kCount, step.parts[part]);
  }
}

// Where element i of a step lies: even elements first, then odd ones, where Lanes works in pairs.
template <typename L>
S2MLP_INLINE inline int64_t lane_of(L, int64_t i) {
  return L::kPairs ? i / 2 + i % 2 * L::kCount : i;
}

// All channels of one branch, padded as above.
template <typename T, int kBytes>
void to_lane_order(const Runs& runs, const accumulator_t<T>* in, accumulator_t<T>* out) {
  for (int64_t n = 0; n < runs.count; ++n) {
    const Run& run = runs.all[n];
    for_each_step<T, kBytes>(run.begin, run.end - run.begin, [&](auto lanes, int64_t first, int64_t count) {
      for (int64_t i = 0; i < count; ++i) {
        out[first + run.padding + lane_of(lanes, i)] = in[first + i];
      }
    });
  }
}

template <typename T, int kBytes>
void from_lane_order(const Runs& runs, const accumulator_t<T>* in, accumulator_t<T>* out) {
  for (int64_t n = 0; n < runs.count; ++n) {
    const Run& run = runs.all[n];
    for_each_step<T, kBytes>(run.begin, run.end - run.begin, [&](auto lanes, int64_t first, int64_t count) {
      for (int64_t i = 0; i < count; ++i) {
        out[first + i] = in[first + run.padding + lane_of(lanes, i)];
      }
    });
  }
}

// ---- Sums over tokens ------------------------------------------------------------------------------------------------

// How the rows of an image are cut into chunks, each summed up by one thread; the same for any number of threads.
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

// out[image, n] = sum over the rows of an image; row(vectors, sums, image, h) adds those of one to `sums`, which are `lines`
// branches of numbers in lane order.
template <typename T, typename Row>
void sum_rows(const BranchProblem& p, const Runs& runs, int64_t lines, accumulator_t<T>* out, const Row& row) {
  using Acc = accumulator_t<T>;
  const Chunks chunks(p);
  const int64_t padded = runs.padded_channels(p);
  const int64_t numbers = lines * padded;
  const std::unique_ptr<Acc[]> sums_of_chunks(new Acc[p.images * chunks.count * numbers]);
  const int64_t chunk_elements = chunks.rows * p.width * p.branches * p.channels;
  const int64_t grain = grain_of<T>(chunk_elements);
  torch::stable::parallel_for(0, p.images * chunks.count, grain, [&](int64_t begin, int64_t end) {
    with_vectors([&](auto vectors) S2MLP_INLINE {
      std::vector<Acc> row_sums(numbers);
      for (int64_t i = begin; i < end; ++i) {
        Acc* sums = sums_of_chunks.get() + i * numbers;
        std::fill(sums, sums + numbers, Acc(0));
        const int64_t first_row = i % chunks.count * chunks.rows;
        for (int64_t h = first_row; h < std::min(first_row + chunks.rows, p.height); ++h) {
          std::fill(row_sums.begin(), row_sums.end(), Acc(0));
          row(vectors, row_sums.data(), i / chunks.count, h);
          for (int64_t n = 0; n < numbers; ++n) {
            sums[n] += row_sums[n];
          }
        }
      }
    });
  });
  const int64_t image_numbers = chunks.count * numbers;
  torch::stable::parallel_for(0, p.images, grain_of<Acc>(image_numbers), [&](int64_t begin, int64_t end) {
    with_vectors([&](auto vectors) S2MLP_INLINE {
      for (int64_t image = begin; image < end; ++image) {
        Acc* sums = sums_of_chunks.get() + image * image_numbers;
        for (int64_t chunk = 1; chunk < chunks.count; ++chunk) {
          for (int64_t n = 0; n < numbers; ++n) {
            sums[n] += sums[chunk * numbers + n];
          }
        }
        for (int64_t line = 0; line < lines; ++line) {
          from_lane_order<T, decltype(vectors)::kBytes>(runs, sums + line * padded, out + (image * lines + line) * p.channels);
        }
      }
    });
  });
}

// sums[c] += the sum over tokens, at least one, of step(lanes, token, first channel, count).
template <typename T, int kBytes, typename Acc, typename Step>
S2MLP_INLINE inline void sum_span(Acc* sums, const Run& run, int64_t tokens, const Step& step) {
  for_each_step<T, kBytes>(
      run.begin, run.end - run.begin, [=](auto lanes, int64_t first, int64_t count) S2MLP_INLINE {
    auto sum = step(lanes, 0, first, count);
    for (int64_t token = 1; token < tokens; ++token) {
      sum += step(lanes, token, first, count);
    }
    sum += load_numbers(lanes, sums + first);
    store_numbers(lanes, sums + first, sum);
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
          const T* const from = run.source(p, map, x_stride, span.begin);
          if (from == nullptr) {
            return;
          }
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

// ---- Maps ------------------------------------------------------------------------------------------------------------

// row(vectors, image, h, numbers) for every row; prepare(vectors, image, numbers) puts per-image numbers into lane order.
template <Stores kStores, typename T, typename Prepare, typename Row>
void for_each_image_row(const BranchProblem& p, int64_t numbers, const Prepare& prepare, const Row& row) {
  const int64_t grain = grain_of<T>(p.width * p.branches * p.channels);
  torch::stable::parallel_for(0, p.images * p.height, grain, [&](int64_t begin, int64_t end) {
    with_vectors<kStores>([&](auto vectors) S2MLP_INLINE {
      std::vector<accumulator_t<T>> scratch(numbers);
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
  const auto prepare = [&](auto vectors, int64_t image, Acc* numbers) {
    for (int64_t k = 0; k < p.branches; ++k) {
      to_lane_order<T, decltype(vectors)::kBytes>(runs, weights + image * weights_stride + k * p.channels, numbers + k * padded);
    }
  };
  struct Part {
    const T* token;
    const Acc* weights;
  };
  const auto row_of_tokens = [&](auto vectors, int64_t image, int64_t h, const Acc* numbers) S2MLP_INLINE {
    constexpr int kBytes = decltype(vectors)::kBytes;
    const std::vector<Run> row_runs = runs.along<false>(p, x_stride, h);
    const T* const map = x + image * x_stride.image;
    T* const line = out + image * out_stride.image + h * out_stride.row;
    const int64_t x_column = x_stride.column;
    const int64_t out_column = out_stride.column;
    // For each stretch of the output's channels: its runs, one per branch, at token 0 as if that were direct; tokens direct in all.
    std::vector<Part> row_parts;
    std::vector<Range<int64_t>> direct(runs.count, Range<int64_t>{0, p.width});
    for (int64_t n = 0; n < runs.count; ++n) {
      for (int64_t k = 0; k < p.branches; ++k) {
        const Run& run = row_runs[k * runs.count + n];
        row_parts.push_back({map + run.row.from + k * p.channels, numbers + k * padded + run.padding});
        direct[n].begin = std::max(direct[n].begin, run.row.direct.begin);
        direct[n].end = std::min(direct[n].end, run.row.direct.end);
      }
    }
    std::vector<Part> parts(p.branches);
    for_each_tile<T>(p, tokens_of_tile, [&](const Range<int64_t>& tile, int64_t token_ahead) S2MLP_INLINE {
      const T* ahead = map + (h + rows_ahead) * x_stride.row + token_ahead * x_column;
      const T* out_ahead = line + token_ahead * out_column;
      for (int64_t n = 0; n < runs.count; ++n) {
        const int64_t begin = row_runs[n].begin;
        const int64_t channels = row_runs[n].end - begin;
        for_each_span(direct[n], tile, [&](const Range<int64_t>& span) S2MLP_INLINE {
          const Part* first_part = row_parts.data() + n * p.branches;
          const Part* last_part = first_part + p.branches;
          int64_t from = span.begin * x_column;
          if (!direct[n].contains(span.begin)) {
            Part* end = parts.data();
            for (int64_t k = 0; k < p.branches; ++k) {
              const Run& run = row_runs[k * runs.count + n];
              if (const T* token = run.source(p, map, x_stride, span.begin)) {
                *end++ = {token, numbers + k * padded + run.padding};
              }
            }
            first_part = parts.data();
            last_part = end;
            from = 0;
          }
          const int64_t tokens = span.size();
          const int64_t expanded_channels = p.branches * channels;
          T* const to = line + span.begin * out_column;
          const T* const span_ahead = ahead + (span.begin - tile.begin) * expanded_channels;
          const T* const span_out_ahead = out_ahead + (span.begin - tile.begin) * channels;
          with_parts<Part>(first_part, last_part, [=](auto parts) S2MLP_INLINE {
            for (int64_t token = 0; token < tokens; ++token) {
              prefetch_run(span_ahead + token * expanded_channels, expanded_channels);
              if constexpr (kStores == Stores::kCached) {
                prefetch_run(span_out_ahead + token * channels, channels);
              }
              for_each_step<T, kBytes>(
                  begin, channels, [=](auto lanes, int64_t first, int64_t count) S2MLP_INLINE {
                typename decltype(lanes)::Step sum{};
                for (int i = 0; i < parts.count; ++i) {
                  auto values = load_step(lanes, parts[i].token + from + token * x_column + first, count);
                  values *= load_numbers(lanes, parts[i].weights + first);
                  sum += values;
                }
                store_step<kStores>(lanes, to + token * out_column + first, sum, count);
              });
            }
          });
        });
        ahead += tile.size() * p.branches * channels;
        out_ahead += tile.size() * channels;
      }
    });
  };
  for_each_image_row<kStores, T>(p, p.branches * padded, prepare, row_of_tokens);
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
  // Lines of numbers: the weights of each branch, then the gradient of the pooled sums; zeros where there are none.
  const auto prepare = [&](auto vectors, int64_t image, Acc* numbers) {
    for (int64_t k = 0; weights != nullptr && k < p.branches; ++k) {
      to_lane_order<T, decltype(vectors)::kBytes>(runs, weights + image * weights_stride + k * p.channels, numbers + k * padded);
    }
    if (pool_grad != nullptr) {
      to_lane_order<T, decltype(vectors)::kBytes>(runs, pool_grad + image * pool_grad_stride, numbers + p.branches * padded);
    }
  };
  const auto row_of_tokens = [&](auto vectors, int64_t image, int64_t h, const Acc* numbers) S2MLP_INLINE {
    constexpr int kBytes = decltype(vectors)::kBytes;
    const std::vector<Run> row_runs = runs.along<true>(p, grad_stride, h);
    const T* const map = grad == nullptr ? nullptr : grad + image * grad_stride.image;
    T* const line = out + image * out_stride.image + h * out_stride.row;
    const int64_t grad_column = grad_stride.column;
    const int64_t out_column = out_stride.column;
    for_each_tile<T>(p, tokens_of_tile, [&](const Range<int64_t>& tile, int64_t token_ahead) S2MLP_INLINE {
      T* ahead = line + token_ahead * out_column;
      int64_t grad_ahead = (h + rows_ahead) * grad_stride.row + token_ahead * grad_column;
      for (const Run& run : row_runs) {
        const int64_t begin = run.begin;
        const int64_t channels = run.end - begin;
        const int64_t elements = tile.size() * channels;
        if constexpr (kStores == Stores::kCached) {
          prefetch_run(ahead, elements);
          ahead += elements;
        }
        if (map != nullptr) {
          prefetch_run(map + grad_ahead, elements / p.branches);
          grad_ahead += elements / p.branches;
        }
        const Acc* const factors = numbers + run.branch * padded + run.padding;
        const Acc* const sums = numbers + p.branches * padded + run.padding;
        for_each_span(run.row.direct, tile, [&](const Range<int64_t>& span) S2MLP_INLINE {
          T* const to = line + span.begin * out_column + run.branch * p.channels;
          const auto finish = [=](auto lanes, int64_t token, int64_t first, int64_t count, auto sum, Acc readers) S2MLP_INLINE {
            sum *= load_numbers(lanes, factors + first);
            auto pooled = load_numbers(lanes, sums + first);
            pooled *= readers;
            sum += pooled;
            store_step<kStores>(lanes, to + token * out_column + first, sum, count);
          };
          if (map != nullptr && run.row.direct.contains(span.begin)) {
            const T* const reader = map + run.row.from + span.begin * grad_column;
            for (int64_t token = 0; token < span.size(); ++token) {
              for_each_step<T, kBytes>(
                  begin, channels, [=](auto lanes, int64_t first, int64_t count) S2MLP_INLINE {
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
              if (map != nullptr) {
                sum = sum_of_step(lanes, map + first, grad_stride.row, grad_column, run.row.rows, columns, count);
              }
              finish(lanes, token, first, count, sum, readers);
            });
          }
        });
      }
    });
  };
  for_each_image_row<kStores, T>(p, (p.branches + 1) * padded, prepare, row_of_tokens);
}

// Whether a map of so many channels is written past the caches.
template <typename T>
bool streams(const BranchProblem& p, int64_t channels, const T* out, const MapStrides& stride) {
  const int64_t elements = p.images * p.height * p.width * channels;
  return elements * static_cast<int64_t>(sizeof(T)) > streaming_bytes() &&
      are_whole_lines(out, {stride.image, stride.row, stride.column, p.channels}, p.groups);
}

// ---- Dtypes ----------------------------------------------------------------------------------------------------------

template <typename T>
const T* data_or_null(const Tensor* tensor) {
  return tensor == nullptr ? nullptr : data<T>(*tensor);
}

struct Cpu {
  static void pool(const BranchProblem& p, const Tensor& x, const MapStrides& x_stride, const Tensor& out) {
    with_floating_type(x, [&](auto element) {
      using T = decltype(element);
      s2mlp::pool(p, data<T>(x), x_stride, mutable_data<accumulator_t<T>>(out));
    });
  }

  static void combine(
      const BranchProblem& p,
      const Tensor& x,
      const MapStrides& x_stride,
      const Tensor& weights,
      int64_t weights_stride,
      const Tensor& out,
      const MapStrides& out_stride) {
    with_floating_type(x, [&](auto element) {
      using T = decltype(element);
      const auto run = streams(p, p.channels, mutable_data<T>(out), out_stride) ? combine_rows<Stores::kStreaming, T>
                                                                                : combine_rows<Stores::kCached, T>;
      run(p, data<T>(x), x_stride, data<accumulator_t<T>>(weights), weights_stride, mutable_data<T>(out), out_stride);
    });
  }

  static void combine_backward_weights(
      const BranchProblem& p,
      const Tensor& grad,
      const MapStrides& grad_stride,
      const Tensor& x,
      const MapStrides& x_stride,
      const Tensor& out) {
    with_floating_type(x, [&](auto element) {
      using T = decltype(element);
      s2mlp::combine_backward_weights(p, data<T>(grad), grad_stride, data<T>(x), x_stride, mutable_data<accumulator_t<T>>(out));
    });
  }

  static void combine_backward(
      const BranchProblem& p,
      const Tensor* grad,
      const MapStrides& grad_stride,
      const Tensor* weights,
      int64_t weights_stride,
      const Tensor* pool_grad,
      int64_t pool_grad_stride,
      const Tensor& out,
      const MapStrides& out_stride) {
    with_floating_type(out, [&](auto element) {
      using T = decltype(element);
      using Acc = accumulator_t<T>;
      const auto run = streams(p, p.branches * p.channels, mutable_data<T>(out), out_stride)
          ? combine_backward_rows<Stores::kStreaming, T>
          : combine_backward_rows<Stores::kCached, T>;
      run(p, data_or_null<T>(grad), grad_stride, data_or_null<Acc>(weights), weights_stride, data_or_null<Acc>(pool_grad),
          pool_grad_stride, mutable_data<T>(out), out_stride);
    });
  }
};

}  // namespace
}  // namespace s2mlp

STABLE_TORCH_LIBRARY_IMPL(S2MLP_LIBRARY, CPU, m) { S2MLP_IMPLEMENT_BRANCH_OPS(m, s2mlp::Cpu); }
