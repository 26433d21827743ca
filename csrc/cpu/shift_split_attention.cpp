// The branch ops of the split attention on a CPU.
//
// Each walks tokens in the order of memory and, within a token, the branches' channels in cuts: stretches of channels that
// belong to one group in every branch, so that what is the same for a token and a cut is found once. Sums over tokens are
// made row by row, and rows are added up in fixed chunks, in order: few roundings, and the same ones for any number of threads.
//
// Numbers per channel (weights, sums) are kept in the order in which Lanes has the elements of a cut: see to_lane_order.
#include <algorithm>
#include <memory>
#include <vector>

#include "../branch_ops.h"
#include "../library.h"
#include "dtypes.h"
#include "instruction_sets.h"
#include "lanes.h"
#include "rows.h"
#include "threads.h"

namespace s2mlp {
namespace {

constexpr int64_t kChunkElements = 65536;  // of the wide map, at the least, summed up by one thread at a time
constexpr int64_t kChunks = 128;  // of all images: enough for any number of threads

// Channels [begin, end) of every branch, and the group of each branch that they belong to.
struct Cut {
  int64_t begin;
  int64_t end;
  std::vector<ShiftGroup> groups;  // one per branch

  template <bool kAdjoint>
  Range<int64_t> columns(const BranchProblem& p, int64_t k, int64_t w) const {
    return source_range<kAdjoint>(w, groups[k].dw, p.width, p.mode);
  }

  // The token of branch k that output token w of a row reads, or null where it reads zeros.
  template <typename T>
  S2MLP_INLINE const T* source(
      const BranchProblem& p, int64_t k, const GroupRow& row, const T* map, const MapStrides& stride, int64_t w) const {
    if (row.is_direct(w)) {
      return map + row.from + w * stride.column + k * p.channels;
    }
    const Range<int64_t> from = columns<false>(p, k, w);
    if (row.rows.size() == 0 || from.size() == 0) {
      return nullptr;
    }
    return map + row.rows.begin * stride.row + from.begin * stride.column + k * p.channels;
  }
};

std::vector<Cut> make_cuts(const BranchProblem& p) {
  std::vector<int64_t> borders;
  for (const ShiftGroup& group : p.groups) {
    borders.push_back(group.channel_begin % p.channels);
  }
  std::sort(borders.begin(), borders.end());
  borders.erase(std::unique(borders.begin(), borders.end()), borders.end());
  borders.push_back(p.channels);
  std::vector<Cut> cuts;
  for (size_t i = 0; i + 1 < borders.size(); ++i) {
    Cut cut{borders[i], borders[i + 1], {}};
    for (int64_t k = 0; k < p.branches; ++k) {
      const int64_t channel = k * p.channels + cut.begin;
      cut.groups.push_back(*std::upper_bound(
          p.groups.begin(), p.groups.end(), channel,
          [](int64_t c, const ShiftGroup& group) { return c < group.channel_end; }));
    }
    cuts.push_back(std::move(cut));
  }
  return cuts;
}

// Row h of the output: the branches of the first cut, then those of the second, ...
template <bool kAdjoint>
std::vector<GroupRow> cut_rows(const BranchProblem& p, const std::vector<Cut>& cuts, const MapStrides& stride, int64_t h) {
  std::vector<GroupRow> rows;
  rows.reserve(cuts.size() * p.branches);
  for (const Cut& cut : cuts) {
    for (const ShiftGroup& group : cut.groups) {
      rows.push_back(group_row<kAdjoint>(group, h, p.height, p.width, stride.row, stride.column, p.mode));
    }
  }
  return rows;
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

// Numbers of a cut lie at its first channel, plus this many per cut before it: the last step of a cut may be a partial one.
constexpr int64_t kPadding = 16;

// Numbers in lane order.
template <typename L>
S2MLP_INLINE inline typename L::Step load_numbers(L, const typename L::Wide* from) {
  typename L::Step step;
  for (int part = 0; part < L::kParts; ++part) {
    step.parts[part] = load_vector<typename L::Vector>(from + part * L::kCount);
  }
  return step;
}

template <typename L>
S2MLP_INLINE inline void store_numbers(L, typename L::Wide* to, const typename L::Step& step) {
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
void to_lane_order(const std::vector<Cut>& cuts, const accumulator_t<T>* in, accumulator_t<T>* out) {
  for (size_t n = 0; n < cuts.size(); ++n) {
    for_each_step<T, kBytes>(cuts[n].begin, cuts[n].end - cuts[n].begin, [&](auto lanes, int64_t first, int64_t count) {
      for (int64_t i = 0; i < count; ++i) {
        out[first + n * kPadding + lane_of(lanes, i)] = in[first + i];
      }
    });
  }
}

template <typename T, int kBytes>
void from_lane_order(const std::vector<Cut>& cuts, const accumulator_t<T>* in, accumulator_t<T>* out) {
  for (size_t n = 0; n < cuts.size(); ++n) {
    for_each_step<T, kBytes>(cuts[n].begin, cuts[n].end - cuts[n].begin, [&](auto lanes, int64_t first, int64_t count) {
      for (int64_t i = 0; i < count; ++i) {
        out[first + i] = in[first + n * kPadding + lane_of(lanes, i)];
      }
    });
  }
}

int64_t padded_channels(const BranchProblem& p, const std::vector<Cut>& cuts) {
  return p.channels + static_cast<int64_t>(cuts.size()) * kPadding;
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
void sum_rows(const BranchProblem& p, const std::vector<Cut>& cuts, int64_t lines, accumulator_t<T>* out, const Row& row) {
  using Wide = accumulator_t<T>;
  const Chunks chunks(p);
  const int64_t padded = padded_channels(p, cuts);
  const int64_t numbers = lines * padded;
  const std::unique_ptr<Wide[]> sums_of_chunks(new Wide[p.images * chunks.count * numbers]);
  const int64_t chunk_elements = chunks.rows * p.width * p.branches * p.channels;
  const int64_t grain = grain_of<T>(chunk_elements);
  torch::stable::parallel_for(0, p.images * chunks.count, grain, [&](int64_t begin, int64_t end) {
    with_vectors([&](auto vectors) S2MLP_INLINE {
      std::vector<Wide> row_sums(numbers);
      for (int64_t i = begin; i < end; ++i) {
        Wide* sums = sums_of_chunks.get() + i * numbers;
        std::fill(sums, sums + numbers, Wide(0));
        const int64_t first_row = i % chunks.count * chunks.rows;
        for (int64_t h = first_row; h < std::min(first_row + chunks.rows, p.height); ++h) {
          std::fill(row_sums.begin(), row_sums.end(), Wide(0));
          row(vectors, row_sums.data(), i / chunks.count, h);
          for (int64_t n = 0; n < numbers; ++n) {
            sums[n] += row_sums[n];
          }
        }
      }
    });
  });
  const int64_t image_numbers = chunks.count * numbers;
  torch::stable::parallel_for(0, p.images, grain_of<Wide>(image_numbers), [&](int64_t begin, int64_t end) {
    with_vectors([&](auto vectors) S2MLP_INLINE {
      for (int64_t image = begin; image < end; ++image) {
        Wide* sums = sums_of_chunks.get() + image * image_numbers;
        for (int64_t chunk = 1; chunk < chunks.count; ++chunk) {
          for (int64_t n = 0; n < numbers; ++n) {
            sums[n] += sums[chunk * numbers + n];
          }
        }
        for (int64_t line = 0; line < lines; ++line) {
          from_lane_order<T, decltype(vectors)::kBytes>(
              cuts, sums + line * padded, out + (image * lines + line) * p.channels);
        }
      }
    });
  });
}

// Reads in the order of memory, which is what hardware prefetchers follow.
template <typename T>
void pool(const BranchProblem& p, const T* x, const MapStrides& stride, accumulator_t<T>* out) {
  using Wide = accumulator_t<T>;
  const std::vector<Cut> cuts = make_cuts(p);
  sum_rows<T>(p, cuts, 1, out, [&](auto vectors, Wide* sums, int64_t image, int64_t h) S2MLP_INLINE {
    constexpr int kBytes = decltype(vectors)::kBytes;
    const std::vector<GroupRow> rows = cut_rows<true>(p, cuts, {}, h);
    const T* token = x + image * stride.image + h * stride.row;
    for (int64_t w = 0; w < p.width; ++w, token += stride.column) {
      for (int64_t k = 0; k < p.branches; ++k) {
        const T* const from = token + k * p.channels;
        prefetch_run(from + kTokensAhead * stride.column, p.channels);
        for (size_t n = 0; n < cuts.size(); ++n) {
          const Cut& cut = cuts[n];
          const GroupRow& row = rows[n * p.branches + k];
          const int64_t readers = row.is_direct(w) ? 1 : row.rows.size() * cut.columns<true>(p, k, w).size();
          if (readers == 0) {
            continue;
          }
          Wide* const to = sums + n * kPadding;
          for_each_step<T, kBytes>(
              cut.begin, cut.end - cut.begin, [=](auto lanes, int64_t first, int64_t count) S2MLP_INLINE {
                const auto values = load_step(lanes, from + first, count);
                auto sum = load_numbers(lanes, to + first);
                for (int part = 0; part < decltype(lanes)::kParts; ++part) {
                  sum.parts[part] += values.parts[part] * static_cast<Wide>(readers);
                }
                store_numbers(lanes, to + first, sum);
              });
        }
      }
    }
  });
}

template <typename T>
void correlate(
    const BranchProblem& p,
    const T* grad,
    const MapStrides& grad_stride,
    const T* x,
    const MapStrides& x_stride,
    accumulator_t<T>* out) {
  using Wide = accumulator_t<T>;
  const std::vector<Cut> cuts = make_cuts(p);
  const int64_t padded = padded_channels(p, cuts);
  const int64_t rows_ahead = furthest_row<false>(p.groups, p.height, p.mode);
  struct Part {
    const T* token;
    Wide* sums;
  };
  sum_rows<T>(p, cuts, p.branches, out, [&](auto vectors, Wide* sums, int64_t image, int64_t h) S2MLP_INLINE {
    constexpr int kBytes = decltype(vectors)::kBytes;
    const std::vector<GroupRow> rows = cut_rows<false>(p, cuts, x_stride, h);
    std::vector<Part> parts(p.branches);
    const T* map = x + image * x_stride.image;
    const T* ahead = map + (h + rows_ahead) * x_stride.row + kTokensAhead * x_stride.column;
    const T* token_grad = grad + image * grad_stride.image + h * grad_stride.row;
    for (int64_t w = 0; w < p.width; ++w, token_grad += grad_stride.column, ahead += x_stride.column) {
      const GroupRow* row = rows.data();
      for (size_t n = 0; n < cuts.size(); ++n) {
        const Cut& cut = cuts[n];
        const int64_t begin = cut.begin;
        const int64_t run = cut.end - cut.begin;
        prefetch_run(token_grad + begin + kTokensAhead * grad_stride.column, run);
        prefetch_run(ahead + p.branches * begin, p.branches * run);  // a share of the token, in the order of memory
        Part* end = parts.data();
        for (int64_t k = 0; k < p.branches; ++k, ++row) {
          if (const T* from = cut.source(p, k, *row, map, x_stride, w)) {
            *end++ = {from, sums + k * padded + n * kPadding};
          }
        }
        const T* const factor = token_grad;
        with_parts<Part>(parts.data(), end, [=](auto parts) S2MLP_INLINE {
          for_each_step<T, kBytes>(
              begin, run, [=](auto lanes, int64_t first, int64_t count) S2MLP_INLINE {
                const auto factors = load_step(lanes, factor + first, count);
                for (int i = 0; i < parts.count; ++i) {
                  const auto values = load_step(lanes, parts[i].token + first, count);
                  auto sum = load_numbers(lanes, parts[i].sums + first);
                  for (int part = 0; part < decltype(lanes)::kParts; ++part) {
                    sum.parts[part] += values.parts[part] * factors.parts[part];
                  }
                  store_numbers(lanes, parts[i].sums + first, sum);
                }
              });
        });
      }
    }
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
  using Wide = accumulator_t<T>;
  const std::vector<Cut> cuts = make_cuts(p);
  const int64_t padded = padded_channels(p, cuts);
  const int64_t rows_ahead = furthest_row<false>(p.groups, p.height, p.mode);
  const auto prepare = [&](auto vectors, int64_t image, Wide* numbers) {
    for (int64_t k = 0; k < p.branches; ++k) {
      to_lane_order<T, decltype(vectors)::kBytes>(
          cuts, weights + image * weights_stride + k * p.channels, numbers + k * padded);
    }
  };
  struct Part {
    const T* token;
    const Wide* weights;
  };
  const auto row_of_tokens = [&](auto vectors, int64_t image, int64_t h, const Wide* numbers) S2MLP_INLINE {
    constexpr int kBytes = decltype(vectors)::kBytes;
    const std::vector<GroupRow> rows = cut_rows<false>(p, cuts, x_stride, h);
    std::vector<Part> parts(p.branches);
    const T* map = x + image * x_stride.image;
    const T* ahead = map + (h + rows_ahead) * x_stride.row + kTokensAhead * x_stride.column;
    T* token_out = out + image * out_stride.image + h * out_stride.row;
    for (int64_t w = 0; w < p.width; ++w, token_out += out_stride.column, ahead += x_stride.column) {
      const GroupRow* row = rows.data();
      for (size_t n = 0; n < cuts.size(); ++n) {
        const Cut& cut = cuts[n];
        const int64_t begin = cut.begin;
        const int64_t run = cut.end - cut.begin;
        if constexpr (kStores == Stores::kCached) {
          prefetch_run(token_out + begin + kTokensAhead * out_stride.column, run);
        }
        prefetch_run(ahead + p.branches * begin, p.branches * run);  // a share of the token, in the order of memory
        Part* end = parts.data();
        for (int64_t k = 0; k < p.branches; ++k, ++row) {
          if (const T* from = cut.source(p, k, *row, map, x_stride, w)) {
            *end++ = {from, numbers + k * padded + n * kPadding};
          }
        }
        T* const to = token_out;
        with_parts<Part>(parts.data(), end, [=](auto parts) S2MLP_INLINE {
          for_each_step<T, kBytes>(
              begin, run, [=](auto lanes, int64_t first, int64_t count) S2MLP_INLINE {
                typename decltype(lanes)::Step sum{};
                for (int i = 0; i < parts.count; ++i) {
                  const auto values = load_step(lanes, parts[i].token + first, count);
                  const auto factors = load_numbers(lanes, parts[i].weights + first);
                  for (int part = 0; part < decltype(lanes)::kParts; ++part) {
                    sum.parts[part] += values.parts[part] * factors.parts[part];
                  }
                }
                store_step<kStores>(lanes, to + first, sum, count);
              });
        });
      }
    }
  };
  for_each_image_row<kStores, T>(p, p.branches * padded, prepare, row_of_tokens);
}

// grad and weights, or pool_grad, may be null.
template <Stores kStores, typename T>
void spread_rows(
    const BranchProblem& p,
    const T* grad,
    const MapStrides& grad_stride,
    const accumulator_t<T>* weights,
    int64_t weights_stride,
    const accumulator_t<T>* pool_grad,
    int64_t pool_grad_stride,
    T* out,
    const MapStrides& out_stride) {
  using Wide = accumulator_t<T>;
  const std::vector<Cut> cuts = make_cuts(p);
  const int64_t padded = padded_channels(p, cuts);
  const int64_t rows_ahead = furthest_row<true>(p.groups, p.height, p.mode);
  // Lines of numbers: the weights of each branch, then the gradient of the pooled sums; zeros where there are none.
  const auto prepare = [&](auto vectors, int64_t image, Wide* numbers) {
    for (int64_t k = 0; weights != nullptr && k < p.branches; ++k) {
      to_lane_order<T, decltype(vectors)::kBytes>(
          cuts, weights + image * weights_stride + k * p.channels, numbers + k * padded);
    }
    if (pool_grad != nullptr) {
      to_lane_order<T, decltype(vectors)::kBytes>(
          cuts, pool_grad + image * pool_grad_stride, numbers + p.branches * padded);
    }
  };
  const auto row_of_tokens = [&](auto vectors, int64_t image, int64_t h, const Wide* numbers) S2MLP_INLINE {
    constexpr int kBytes = decltype(vectors)::kBytes;
    const std::vector<GroupRow> rows = cut_rows<true>(p, cuts, grad_stride, h);
    const T* const map = grad == nullptr ? nullptr : grad + image * grad_stride.image;
    T* token_out = out + image * out_stride.image + h * out_stride.row;
    for (int64_t w = 0; w < p.width; ++w, token_out += out_stride.column) {
      if (map != nullptr) {
        prefetch_run(map + (h + rows_ahead) * grad_stride.row + (w + kTokensAhead) * grad_stride.column, p.channels);
      }
      for (int64_t k = 0; k < p.branches; ++k) {
        T* const to = token_out + k * p.channels;
        if constexpr (kStores == Stores::kCached) {
          prefetch_run(to + kTokensAhead * out_stride.column, p.channels);
        }
        for (size_t n = 0; n < cuts.size(); ++n) {
          const Cut& cut = cuts[n];
          const GroupRow& row = rows[n * p.branches + k];
          const Wide* const factors = numbers + k * padded + n * kPadding;
          const Wide* const sums = numbers + p.branches * padded + n * kPadding;
          const auto finish = [=](auto lanes, int64_t first, int64_t count, auto sum, Wide readers) S2MLP_INLINE {
            const auto weight = load_numbers(lanes, factors + first);
            const auto pooled = load_numbers(lanes, sums + first);
            for (int part = 0; part < decltype(lanes)::kParts; ++part) {
              sum.parts[part] = sum.parts[part] * weight.parts[part] + pooled.parts[part] * readers;
            }
            store_step<kStores>(lanes, to + first, sum, count);
          };
          if (map != nullptr && row.is_direct(w)) {
            const T* const reader = map + row.from + w * grad_stride.column;
            for_each_step<T, kBytes>(
                cut.begin, cut.end - cut.begin, [=](auto lanes, int64_t first, int64_t count) S2MLP_INLINE {
                  finish(lanes, first, count, load_step(lanes, reader + first, count), Wide(1));
                });
            continue;
          }
          const Range<int64_t> columns = cut.columns<true>(p, k, w);
          const Wide readers = static_cast<Wide>(row.rows.size() * columns.size());
          for_each_step<T, kBytes>(
              cut.begin, cut.end - cut.begin, [=](auto lanes, int64_t first, int64_t count) S2MLP_INLINE {
                typename decltype(lanes)::Step sum{};
                if (map != nullptr) {
                  sum = sum_of_step(lanes, map + first, grad_stride.row, grad_stride.column, row.rows, columns, count);
                }
                finish(lanes, first, count, sum, readers);
              });
        }
      }
    }
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
    with_dtype(x.scalar_type(), [&](auto element) {
      using T = decltype(element);
      s2mlp::pool(p, data<T>(x), x_stride, output<accumulator_t<T>>(out));
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
    with_dtype(x.scalar_type(), [&](auto element) {
      using T = decltype(element);
      const auto run = streams(p, p.channels, output<T>(out), out_stride) ? combine_rows<Stores::kStreaming, T>
                                                                          : combine_rows<Stores::kCached, T>;
      run(p, data<T>(x), x_stride, data<accumulator_t<T>>(weights), weights_stride, output<T>(out), out_stride);
    });
  }

  static void correlate(
      const BranchProblem& p,
      const Tensor& grad,
      const MapStrides& grad_stride,
      const Tensor& x,
      const MapStrides& x_stride,
      const Tensor& out) {
    with_dtype(x.scalar_type(), [&](auto element) {
      using T = decltype(element);
      s2mlp::correlate(p, data<T>(grad), grad_stride, data<T>(x), x_stride, output<accumulator_t<T>>(out));
    });
  }

  static void spread(
      const BranchProblem& p,
      const Tensor* grad,
      const MapStrides& grad_stride,
      const Tensor* weights,
      int64_t weights_stride,
      const Tensor* pool_grad,
      int64_t pool_grad_stride,
      const Tensor& out,
      const MapStrides& out_stride) {
    with_dtype(out.scalar_type(), [&](auto element) {
      using T = decltype(element);
      using Wide = accumulator_t<T>;
      const auto run = streams(p, p.branches * p.channels, output<T>(out), out_stride) ? spread_rows<Stores::kStreaming, T>
                                                                                       : spread_rows<Stores::kCached, T>;
      run(p, data_or_null<T>(grad), grad_stride, data_or_null<Wide>(weights), weights_stride, data_or_null<Wide>(pool_grad),
          pool_grad_stride, output<T>(out), out_stride);
    });
  }
};

}  // namespace
}  // namespace s2mlp

STABLE_TORCH_LIBRARY_IMPL(S2MLP_LIBRARY, CPU, m) { S2MLP_IMPLEMENT_BRANCH_OPS(m, s2mlp::Cpu); }
