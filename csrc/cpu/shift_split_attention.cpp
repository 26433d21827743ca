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

// Numbers of a cut lie at its first channel, plus this many per cut before it: the last step of a cut may be a partial one.
constexpr int64_t kPadding = 16;

// Numbers in lane order.
template <typename L>
S2MLP_INLINE inline typename L::Step load_numbers(L, const typename L::Wide* from) {
  typename L::Step step;
  for (int part = 0; part < L::kParts; ++part) {
    std::memcpy(&step.parts[part], from + part * L::kCount, sizeof(step.parts[part]));
  }
  return step;
}

template <typename L>
S2MLP_INLINE inline void store_numbers(L, typename L::Wide* to, const typename L::Step& step) {
  for (int part = 0; part < L::kParts; ++part) {
    std::memcpy(to + part * L::kCount, &step.parts[part], sizeof(step.parts[part]));
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

// out[image, n] = sum over the rows of an image; row(bytes, sums, image, h) adds those of one to `sums`, which are `lines`
// branches of numbers in lane order.
template <typename T, typename Row>
void sum_rows(const BranchProblem& p, const std::vector<Cut>& cuts, int64_t lines, accumulator_t<T>* out, const Row& row) {
  using Wide = accumulator_t<T>;
  const Chunks chunks(p);
  const int64_t padded = padded_channels(p, cuts);
  const int64_t numbers = lines * padded;
  const std::unique_ptr<Wide[]> sums_of_chunks(new Wide[p.images * chunks.count * numbers]);
  const int64_t chunk_elements = chunks.rows * p.width * p.branches * p.channels;
  const int64_t grain = std::max<int64_t>(1, kGrainElements / chunk_elements);
  torch::stable::parallel_for(0, p.images * chunks.count, grain, [&](int64_t begin, int64_t end) {
    with_widest_instructions([&](auto bytes) S2MLP_INLINE {
      std::vector<Wide> row_sums(numbers);
      for (int64_t i = begin; i < end; ++i) {
        Wide* sums = sums_of_chunks.get() + i * numbers;
        std::fill(sums, sums + numbers, Wide(0));
        const int64_t first_row = i % chunks.count * chunks.rows;
        for (int64_t h = first_row; h < std::min(first_row + chunks.rows, p.height); ++h) {
          std::fill(row_sums.begin(), row_sums.end(), Wide(0));
          row(bytes, row_sums.data(), i / chunks.count, h);
          for (int64_t n = 0; n < numbers; ++n) {
            sums[n] += row_sums[n];
          }
        }
      }
    });
  });
  const int64_t image_numbers = chunks.count * numbers;
  torch::stable::parallel_for(0, p.images, kGrainElements / image_numbers + 1, [&](int64_t begin, int64_t end) {
    with_widest_instructions([&](auto bytes) S2MLP_INLINE {
      for (int64_t image = begin; image < end; ++image) {
        Wide* sums = sums_of_chunks.get() + image * image_numbers;
        for (int64_t chunk = 1; chunk < chunks.count; ++chunk) {
          for (int64_t n = 0; n < numbers; ++n) {
            sums[n] += sums[chunk * numbers + n];
          }
        }
        for (int64_t line = 0; line < lines; ++line) {
          from_lane_order<T, decltype(bytes)::value>(
              cuts, sums + line * padded, out + (image * lines + line) * p.channels);
        }
      }
    });
  });
}

int64_t count_of(const Range<int64_t>& range) { return range.end - range.begin; }

// Tokens of a row that are summed up together: a sum is then loaded and stored once for all of them.
constexpr int64_t kTokens = 4;

template <typename T>
void pool(const BranchProblem& p, const T* x, const MapStrides& stride, accumulator_t<T>* out) {
  using Wide = accumulator_t<T>;
  const std::vector<Cut> cuts = make_cuts(p);
  struct Part {
    const T* token;
    Wide readers;
  };
  sum_rows<T>(p, cuts, 1, out, [&](auto bytes, Wide* sums, int64_t image, int64_t h) S2MLP_INLINE {
    constexpr int kBytes = decltype(bytes)::value;
    std::vector<Part> parts(kTokens * p.branches);
    const T* row = x + image * stride.image + h * stride.row;
    for (int64_t w = 0; w < p.width; w += kTokens) {
      for (size_t n = 0; n < cuts.size(); ++n) {
        const Cut& cut = cuts[n];
        Part* end = parts.data();
        for (int64_t i = w; i < std::min(w + kTokens, p.width); ++i) {
          for (int64_t k = 0; k < p.branches; ++k) {
            const ShiftGroup& group = cut.groups[k];
            const int64_t readers = count_of(reader_range(h, group.dh, p.height, p.mode)) *
                count_of(reader_range(i, group.dw, p.width, p.mode));
            if (readers != 0) {
              *end++ = {row + i * stride.column + k * p.channels, static_cast<Wide>(readers)};
            }
          }
        }
        const Part* const begin = parts.data();
        Wide* const to = sums + n * kPadding;
        for_each_step<T, kBytes>(
            cut.begin, cut.end - cut.begin, [=](auto lanes, int64_t first, int64_t count) S2MLP_INLINE {
              auto sum = load_numbers(lanes, to + first);
              for (const Part* from = begin; from != end; ++from) {
                __builtin_prefetch(from->token + first + kTokens * stride.column);
                const auto values = load_step(lanes, from->token + first, count);
                for (int part = 0; part < decltype(lanes)::kParts; ++part) {
                  sum.parts[part] += values.parts[part] * from->readers;
                }
              }
              store_numbers(lanes, to + first, sum);
            });
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
  struct Part {
    const T* token;
    const T* grad;
  };
  sum_rows<T>(p, cuts, p.branches, out, [&](auto bytes, Wide* sums, int64_t image, int64_t h) S2MLP_INLINE {
    constexpr int kBytes = decltype(bytes)::value;
    Part parts[kTokens];
    const T* grad_row = grad + image * grad_stride.image + h * grad_stride.row;
    for (int64_t w = 0; w < p.width; w += kTokens) {
      for (int64_t k = 0; k < p.branches; ++k) {
        for (size_t n = 0; n < cuts.size(); ++n) {
          const Cut& cut = cuts[n];
          const int64_t source_h = source_index(h, cut.groups[k].dh, p.height, p.mode);
          if (source_h < 0) {
            continue;
          }
          const T* row = x + image * x_stride.image + source_h * x_stride.row + k * p.channels;
          Part* end = parts;
          for (int64_t i = w; i < std::min(w + kTokens, p.width); ++i) {
            const int64_t source_w = source_index(i, cut.groups[k].dw, p.width, p.mode);
            if (source_w >= 0) {
              *end++ = {row + source_w * x_stride.column, grad_row + i * grad_stride.column};
            }
          }
          const Part* const begin = parts;
          Wide* const to = sums + k * padded + n * kPadding;
          for_each_step<T, kBytes>(
              cut.begin, cut.end - cut.begin, [=](auto lanes, int64_t first, int64_t count) S2MLP_INLINE {
                auto sum = load_numbers(lanes, to + first);
                for (const Part* from = begin; from != end; ++from) {
                  __builtin_prefetch(from->token + first + kTokens * x_stride.column);
                  const auto values = load_step(lanes, from->token + first, count);
                  const auto factors = load_step(lanes, from->grad + first, count);
                  for (int part = 0; part < decltype(lanes)::kParts; ++part) {
                    sum.parts[part] += values.parts[part] * factors.parts[part];
                  }
                }
                store_numbers(lanes, to + first, sum);
              });
        }
      }
    }
  });
}

// ---- Maps ------------------------------------------------------------------------------------------------------------

// row(bytes, image, h, numbers) for every row; numbers(lines, from) puts per-image numbers into lane order.
template <typename T, typename Prepare, typename Row>
void for_each_image_row(const BranchProblem& p, int64_t numbers, const Prepare& prepare, const Row& row) {
  const int64_t row_elements = p.width * p.branches * p.channels;
  const int64_t grain = std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, row_elements));
  torch::stable::parallel_for(0, p.images * p.height, grain, [&](int64_t begin, int64_t end) {
    with_widest_instructions([&](auto bytes) S2MLP_INLINE {
      std::vector<accumulator_t<T>> scratch(numbers);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t image = i / p.height;
        if (i == begin || i % p.height == 0) {
          prepare(bytes, image, scratch.data());
        }
        row(bytes, image, i % p.height, scratch.data());
      }
    });
  });
}

template <typename T>
void combine(
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
  const auto prepare = [&](auto bytes, int64_t image, Wide* numbers) {
    for (int64_t k = 0; k < p.branches; ++k) {
      to_lane_order<T, decltype(bytes)::value>(
          cuts, weights + image * weights_stride + k * p.channels, numbers + k * padded);
    }
  };
  struct Part {
    const T* token;
    const Wide* weights;
  };
  for_each_image_row<T>(
      p, p.branches * padded, prepare, [&](auto bytes, int64_t image, int64_t h, const Wide* numbers) S2MLP_INLINE {
        constexpr int kBytes = decltype(bytes)::value;
        std::vector<Part> parts(p.branches);
        T* token_out = out + image * out_stride.image + h * out_stride.row;
        for (int64_t w = 0; w < p.width; ++w, token_out += out_stride.column) {
          for (size_t n = 0; n < cuts.size(); ++n) {
            const Cut& cut = cuts[n];
            int64_t found = 0;
            for (int64_t k = 0; k < p.branches; ++k) {
              const int64_t source_h = source_index(h, cut.groups[k].dh, p.height, p.mode);
              const int64_t source_w = source_index(w, cut.groups[k].dw, p.width, p.mode);
              if (source_h >= 0 && source_w >= 0) {
                parts[found++] = {x + image * x_stride.image + source_h * x_stride.row + source_w * x_stride.column +
                                      k * p.channels,
                                  numbers + k * padded + n * kPadding};
              }
            }
            const Part* const begin = parts.data();
            const Part* const end = begin + found;
            for_each_step<T, kBytes>(
                cut.begin, cut.end - cut.begin, [=](auto lanes, int64_t first, int64_t count) S2MLP_INLINE {
                  typename decltype(lanes)::Step sum{};
                  for (const Part* from = begin; from != end; ++from) {
                    __builtin_prefetch(from->token + first + 2 * x_stride.column);
                    const auto values = load_step(lanes, from->token + first, count);
                    const auto factors = load_numbers(lanes, from->weights + first);
                    for (int part = 0; part < decltype(lanes)::kParts; ++part) {
                      sum.parts[part] += values.parts[part] * factors.parts[part];
                    }
                  }
                  __builtin_prefetch(token_out + first + 2 * out_stride.column, 1);
                  store_step(lanes, token_out + first, sum, count);
                });
          }
        }
      });
}

// grad and weights, or pool_grad, may be null.
template <typename T>
void spread(
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
  // Lines of numbers: the weights of each branch, then the gradient of the pooled sums; zeros where there are none.
  const auto prepare = [&](auto bytes, int64_t image, Wide* numbers) {
    for (int64_t k = 0; weights != nullptr && k < p.branches; ++k) {
      to_lane_order<T, decltype(bytes)::value>(
          cuts, weights + image * weights_stride + k * p.channels, numbers + k * padded);
    }
    if (pool_grad != nullptr) {
      to_lane_order<T, decltype(bytes)::value>(
          cuts, pool_grad + image * pool_grad_stride, numbers + p.branches * padded);
    }
  };
  for_each_image_row<T>(
      p, (p.branches + 1) * padded, prepare, [&](auto bytes, int64_t image, int64_t h, const Wide* numbers) S2MLP_INLINE {
        constexpr int kBytes = decltype(bytes)::value;
        T* token_out = out + image * out_stride.image + h * out_stride.row;
        for (int64_t w = 0; w < p.width; ++w, token_out += out_stride.column) {
          for (int64_t k = 0; k < p.branches; ++k) {
            T* const to = token_out + k * p.channels;
            for (size_t n = 0; n < cuts.size(); ++n) {
              const Cut& cut = cuts[n];
              const Range<int64_t> rows = reader_range(h, cut.groups[k].dh, p.height, p.mode);
              const Range<int64_t> columns = reader_range(w, cut.groups[k].dw, p.width, p.mode);
              const int64_t readers = count_of(rows) * count_of(columns);
              const Wide* const factors = numbers + k * padded + n * kPadding;
              const Wide* const sums = numbers + p.branches * padded + n * kPadding;
              const auto finish = [=](auto lanes, int64_t first, int64_t count, auto sum) S2MLP_INLINE {
                const auto weight = load_numbers(lanes, factors + first);
                const auto pooled = load_numbers(lanes, sums + first);
                for (int part = 0; part < decltype(lanes)::kParts; ++part) {
                  sum.parts[part] = sum.parts[part] * weight.parts[part] + pooled.parts[part] * static_cast<Wide>(readers);
                }
                __builtin_prefetch(to + first + 2 * out_stride.column, 1);
                store_step(lanes, to + first, sum, count);
              };
              const T* const map = grad == nullptr ? nullptr : grad + image * grad_stride.image;
              const T* const reader = map + rows.begin * grad_stride.row + columns.begin * grad_stride.column;
              if (map != nullptr && readers == 1) {
                for_each_step<T, kBytes>(
                    cut.begin, cut.end - cut.begin, [=](auto lanes, int64_t first, int64_t count) S2MLP_INLINE {
                      __builtin_prefetch(reader + first + 2 * grad_stride.column);
                      finish(lanes, first, count, load_step(lanes, reader + first, count));
                    });
                continue;
              }
              for_each_step<T, kBytes>(
                  cut.begin, cut.end - cut.begin, [=](auto lanes, int64_t first, int64_t count) S2MLP_INLINE {
                    typename decltype(lanes)::Step sum{};
                    for (int64_t i = 0; map != nullptr && i < count_of(rows); ++i) {
                      for (int64_t j = 0; j < count_of(columns); ++j) {
                        const auto values =
                            load_step(lanes, reader + i * grad_stride.row + j * grad_stride.column + first, count);
                        for (int part = 0; part < decltype(lanes)::kParts; ++part) {
                          sum.parts[part] += values.parts[part];
                        }
                      }
                    }
                    finish(lanes, first, count, sum);
                  });
            }
          }
        }
      });
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
      s2mlp::combine(p, data<T>(x), x_stride, data<accumulator_t<T>>(weights), weights_stride, output<T>(out), out_stride);
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
      s2mlp::spread(p, data_or_null<T>(grad), grad_stride, data_or_null<Wide>(weights), weights_stride,
                    data_or_null<Wide>(pool_grad), pool_grad_stride, output<T>(out), out_stride);
    });
  }
};

}  // namespace
}  // namespace s2mlp

STABLE_TORCH_LIBRARY_IMPL(S2MLP_LIBRARY, CPU, m) { S2MLP_IMPLEMENT_BRANCH_OPS(m, s2mlp::Cpu); }
