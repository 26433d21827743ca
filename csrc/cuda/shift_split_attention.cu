// The branch ops of the split attention on a GPU: gathers without atomics, and sums over tokens in a fixed order.
//
// Kernels that write maps: a thread has one vector of channels of four neighbouring tokens, so that weights are loaded
// once for four tokens and neighbouring threads are at neighbouring channels. Kernels that sum over tokens: a block has a
// few vectors of channels and all tokens of an image. Blocks of one image follow each other, so that what two of them
// read comes from the L2 cache the second time.
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <initializer_list>
#include <type_traits>

#include "../branch_ops.h"
#include "branch_kernel_problem.h"
#include "launch.h"
#include "vector_of.h"

namespace s2mlp {
namespace {

// Weights or sums that belong to a vector of channels, 16 bytes at a time.
template <int kVector, typename Wide>
__device__ void load_numbers(const Wide* from, Wide (&numbers)[kVector]) {
  constexpr int kAtOnce = kVector == 1 ? 1 : kVectorBytes / sizeof(Wide);
#pragma unroll
  for (int first = 0; first < kVector; first += kAtOnce) {
    const auto part = *reinterpret_cast<const VectorOf<Wide, kAtOnce>*>(from + first);
#pragma unroll
    for (int v = 0; v < kAtOnce; ++v) {
      numbers[first + v] = part.values[v];
    }
  }
}

template <int kVector, typename Wide>
__device__ void store_numbers(Wide* to, const Wide (&numbers)[kVector]) {
  constexpr int kAtOnce = kVector == 1 ? 1 : kVectorBytes / sizeof(Wide);
#pragma unroll
  for (int first = 0; first < kVector; first += kAtOnce) {
    VectorOf<Wide, kAtOnce> part;
#pragma unroll
    for (int v = 0; v < kAtOnce; ++v) {
      part.values[v] = numbers[first + v];
    }
    *reinterpret_cast<VectorOf<Wide, kAtOnce>*>(to + first) = part;
  }
}

template <typename T, int kVector>
__device__ Packed<T, kVector> load_token(
    const VectorOf<T, kVector>* image, const MapStrides& stride, int32_t h, int32_t w) {
  return load_packed(image + (h * stride.row + w * stride.column));
}

// ---- Maps ------------------------------------------------------------------------------------------------------------

template <typename T, int kVector>
__global__ void __launch_bounds__(kBlockThreads, kMinBlocks) combine_kernel(
    const VectorOf<T, kVector>* __restrict__ x,
    const accumulator_t<T>* __restrict__ weights,
    VectorOf<T, kVector>* __restrict__ out,
    const __grid_constant__ BranchKernelProblem p) {
  using Wide = accumulator_t<T>;
  constexpr int kFactors = kVector < 4 ? kVector : 4;
  const BranchBlock block = locate_block(p, blockIdx.x);
  const BranchItem item = locate_item(p, block.tile, threadIdx.x);
  if (item.first_token >= p.tokens) {
    return;
  }
  Token tokens[kBranchTokens];
  locate_tokens(p, item.first_token, tokens);
  Wide sums[kBranchTokens][kVector] = {};
  int next = 0;
#pragma unroll 1
  for (int32_t k = 0; k < p.branches; ++k) {
    const KernelGroup<int32_t> group = branch_group(p, k, item.channel, next);
    const int64_t channel = int64_t{k} * p.channels + item.channel;
    const Wide* numbers = weights + block.image * p.strides.weights + channel * kVector;
    const VectorOf<T, kVector>* branch = x + block.image * p.strides.wide.image + channel;
    Packed<T, kVector> values[kBranchTokens];
#pragma unroll
    for (int u = 0; u < kBranchTokens; ++u) {
      const int32_t h = source_index(tokens[u].h, group.dh, p.height, p.mode);
      const int32_t w = source_index(tokens[u].w, group.dw, p.width, p.mode);
      values[u] = Packed<T, kVector>{};
      if (h >= 0 && w >= 0) {
        values[u] = load_token(branch, p.strides.wide, h, w);
      }
    }
    // A few weights at a time, and elements taken out of their words when their turn comes: registers are short.
#pragma unroll
    for (int first = 0; first < kVector; first += kFactors) {
      Wide factors[kFactors];
      load_numbers(numbers + first, factors);
#pragma unroll
      for (int v = 0; v < kFactors; ++v) {
#pragma unroll
        for (int u = 0; u < kBranchTokens; ++u) {
          sums[u][first + v] += static_cast<Wide>(unpack<T, kVector>(values[u]).values[first + v]) * factors[v];
        }
      }
    }
  }
#pragma unroll
  for (int u = 0; u < kBranchTokens; ++u) {
    if (item.first_token + u < p.tokens) {
      VectorOf<T, kVector> result;
#pragma unroll
      for (int v = 0; v < kVector; ++v) {
        result.values[v] = static_cast<T>(sums[u][v]);
      }
      out[block.image * p.strides.narrow.image + tokens[u].h * p.strides.narrow.row +
          tokens[u].w * p.strides.narrow.column + item.channel] = result;
    }
  }
}

// The sum over all readers: the slow path, at the border.
template <typename T, int kVector>
__device__ void sum_readers(
    const VectorOf<T, kVector>* map,
    const BranchKernelProblem& p,
    const Range<int32_t>& rows,
    const Range<int32_t>& columns,
    accumulator_t<T> (&sums)[kVector]) {
#pragma unroll
  for (int v = 0; v < kVector; ++v) {
    sums[v] = 0;
  }
#pragma unroll 1
  for (int32_t h = rows.begin; h < rows.end; ++h) {
#pragma unroll 1
    for (int32_t w = columns.begin; w < columns.end; ++w) {
      const VectorOf<T, kVector> grad = unpack<T, kVector>(load_token(map, p.strides.narrow, h, w));
#pragma unroll
      for (int v = 0; v < kVector; ++v) {
        sums[v] += static_cast<accumulator_t<T>>(grad.values[v]);
      }
    }
  }
}

// grad and weights, or pool_grad, may be null.
template <typename T, int kVector>
__global__ void __launch_bounds__(kBlockThreads, kMinBlocks) spread_kernel(
    const VectorOf<T, kVector>* __restrict__ grad,
    const accumulator_t<T>* __restrict__ weights,
    const accumulator_t<T>* __restrict__ pool_grad,
    VectorOf<T, kVector>* __restrict__ out,
    const __grid_constant__ BranchKernelProblem p) {
  using Wide = accumulator_t<T>;
  const BranchBlock block = locate_block(p, blockIdx.x);
  const BranchItem item = locate_item(p, block.tile, threadIdx.x);
  if (item.first_token >= p.tokens) {
    return;
  }
  Token tokens[kBranchTokens];
  locate_tokens(p, item.first_token, tokens);
  Wide pooled[kVector] = {};
  if (pool_grad != nullptr) {
    load_numbers(pool_grad + block.image * p.strides.pool_grad + int64_t{item.channel} * kVector, pooled);
  }
  const VectorOf<T, kVector>* map =
      grad == nullptr ? nullptr : grad + block.image * p.strides.narrow.image + item.channel;
  int next = 0;
#pragma unroll 1
  for (int32_t k = 0; k < p.branches; ++k) {
    const KernelGroup<int32_t> group = branch_group(p, k, item.channel, next);
    const int64_t channel = int64_t{k} * p.channels + item.channel;
    Wide factors[kVector] = {};
    Packed<T, kVector> values[kBranchTokens] = {};
    if (map != nullptr) {
      load_numbers(weights + block.image * p.strides.weights + channel * kVector, factors);
#pragma unroll
      for (int u = 0; u < kBranchTokens; ++u) {
        const Range<int32_t> rows = reader_range(tokens[u].h, group.dh, p.height, p.mode);
        const Range<int32_t> columns = reader_range(tokens[u].w, group.dw, p.width, p.mode);
        if (rows.begin < rows.end && columns.begin < columns.end) {
          values[u] = load_token(map, p.strides.narrow, rows.begin, columns.begin);
        }
      }
    }
#pragma unroll
    for (int u = 0; u < kBranchTokens; ++u) {
      if (item.first_token + u >= p.tokens) {
        continue;
      }
      const Range<int32_t> rows = reader_range(tokens[u].h, group.dh, p.height, p.mode);
      const Range<int32_t> columns = reader_range(tokens[u].w, group.dw, p.width, p.mode);
      const int64_t readers = int64_t{rows.end - rows.begin} * (columns.end - columns.begin);
      const VectorOf<T, kVector> value = unpack<T, kVector>(values[u]);
      Wide sums[kVector];
#pragma unroll
      for (int v = 0; v < kVector; ++v) {
        sums[v] = static_cast<Wide>(value.values[v]);
      }
      if (readers > 1 && map != nullptr) {
        sum_readers(map, p, rows, columns, sums);
      }
      VectorOf<T, kVector> result;
#pragma unroll
      for (int v = 0; v < kVector; ++v) {
        result.values[v] = static_cast<T>(sums[v] * factors[v] + pooled[v] * static_cast<Wide>(readers));
      }
      out[block.image * p.strides.wide.image + tokens[u].h * p.strides.wide.row +
          tokens[u].w * p.strides.wide.column + channel] = result;
    }
  }
}

// ---- Sums over tokens ------------------------------------------------------------------------------------------------

// A block's threads are counted by lane, a vector of channels, and then by token. Each thread has summed up every so many
// tokens; now the first token's threads get the sum of all, in an order that is always the same. For all threads to call.
template <int kVector, typename Wide>
__device__ void sum_tokens_of_block(Wide (&sums)[kVector]) {
  __shared__ Wide partial[kVector][kBlockThreads];
#pragma unroll
  for (int v = 0; v < kVector; ++v) {
    partial[v][threadIdx.x] = sums[v];
  }
#pragma unroll 1
  for (unsigned int half = kBlockThreads / 2; half >= sum_lanes(kVector); half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) {
#pragma unroll
      for (int v = 0; v < kVector; ++v) {
        sums[v] += partial[v][threadIdx.x + half];
        partial[v][threadIdx.x] = sums[v];
      }
    }
  }
}

template <typename T, int kVector>
__global__ void __launch_bounds__(kBlockThreads, kMinBlocks) pool_kernel(
    const VectorOf<T, kVector>* __restrict__ x,
    accumulator_t<T>* __restrict__ out,
    const __grid_constant__ BranchKernelProblem p) {
  using Wide = accumulator_t<T>;
  constexpr int kLanes = sum_lanes(kVector);
  constexpr int kStep = kBlockThreads / kLanes;  // from a thread's token to its next
  const BranchBlock block = locate_block(p, blockIdx.x);
  const int32_t lane = block.tile * kLanes + threadIdx.x % kLanes;
  const int32_t channel = p.first_channel + lane;
  const bool inside = lane < p.launch_channels;
  Wide sums[kVector] = {};
  int next = 0;
#pragma unroll 1
  for (int32_t k = 0; inside && k < p.branches; ++k) {
    const KernelGroup<int32_t> group = branch_group(p, k, channel, next);
    const VectorOf<T, kVector>* branch = x + block.image * p.strides.wide.image + int64_t{k} * p.channels + channel;
#pragma unroll 1
    for (int32_t first = threadIdx.x / kLanes; first < p.tokens; first += kBranchTokens * kStep) {
      Packed<T, kVector> values[kBranchTokens];
      Wide readers[kBranchTokens];
#pragma unroll
      for (int u = 0; u < kBranchTokens; ++u) {
        const int32_t token = first + u * kStep;
        const QuotientRemainder<int32_t> place = p.by_width(token);
        const Range<int32_t> rows = reader_range(place.quotient, group.dh, p.height, p.mode);
        const Range<int32_t> columns = reader_range(place.remainder, group.dw, p.width, p.mode);
        values[u] = Packed<T, kVector>{};
        readers[u] = static_cast<Wide>(rows.end - rows.begin) * static_cast<Wide>(columns.end - columns.begin);
        if (token < p.tokens && readers[u] > 0) {
          values[u] = load_token(branch, p.strides.wide, place.quotient, place.remainder);
        }
      }
#pragma unroll
      for (int u = 0; u < kBranchTokens; ++u) {
        const VectorOf<T, kVector> value = unpack<T, kVector>(values[u]);
#pragma unroll
        for (int v = 0; v < kVector; ++v) {
          sums[v] += static_cast<Wide>(value.values[v]) * readers[u];
        }
      }
    }
  }
  sum_tokens_of_block(sums);
  if (inside && threadIdx.x < kLanes) {
    store_numbers(out + (block.image * p.channels + channel) * kVector, sums);
  }
}

template <typename T, int kVector>
__global__ void __launch_bounds__(kBlockThreads, kMinBlocks) correlate_kernel(
    const VectorOf<T, kVector>* __restrict__ grad,
    const VectorOf<T, kVector>* __restrict__ x,
    accumulator_t<T>* __restrict__ out,
    const __grid_constant__ BranchKernelProblem p) {
  using Wide = accumulator_t<T>;
  constexpr int kLanes = sum_lanes(kVector);
  constexpr int kStep = kBlockThreads / kLanes;
  const BranchBlock block = locate_block(p, blockIdx.x);
  const int32_t lane = block.tile * kLanes + threadIdx.x % kLanes;
  const int32_t channel = p.first_channel + lane;
  const int32_t wide_channel = block.line * p.channels + channel;
  const bool inside = lane < p.launch_channels;
  const KernelGroup<int32_t> group = group_of(p, wide_channel);
  const VectorOf<T, kVector>* map = grad + block.image * p.strides.narrow.image + channel;
  const VectorOf<T, kVector>* branch = x + block.image * p.strides.wide.image + wide_channel;
  Wide sums[kVector] = {};
#pragma unroll 1
  for (int32_t first = threadIdx.x / kLanes; inside && first < p.tokens; first += kBranchTokens * kStep) {
    Packed<T, kVector> grads[kBranchTokens];
    Packed<T, kVector> values[kBranchTokens];
#pragma unroll
    for (int u = 0; u < kBranchTokens; ++u) {
      const int32_t token = first + u * kStep;
      const QuotientRemainder<int32_t> place = p.by_width(token);
      const int32_t h = source_index(place.quotient, group.dh, p.height, p.mode);
      const int32_t w = source_index(place.remainder, group.dw, p.width, p.mode);
      grads[u] = Packed<T, kVector>{};
      values[u] = Packed<T, kVector>{};
      if (token < p.tokens && h >= 0 && w >= 0) {
        grads[u] = load_token(map, p.strides.narrow, place.quotient, place.remainder);
        values[u] = load_token(branch, p.strides.wide, h, w);
      }
    }
#pragma unroll
    for (int u = 0; u < kBranchTokens; ++u) {
      const VectorOf<T, kVector> factor = unpack<T, kVector>(grads[u]);
      const VectorOf<T, kVector> value = unpack<T, kVector>(values[u]);
#pragma unroll
      for (int v = 0; v < kVector; ++v) {
        sums[v] += static_cast<Wide>(factor.values[v]) * static_cast<Wide>(value.values[v]);
      }
    }
  }
  sum_tokens_of_block(sums);
  if (inside && threadIdx.x < kLanes) {
    store_numbers(out + ((block.image * p.branches + block.line) * p.channels + channel) * kVector, sums);
  }
}

// ---- Launch ----------------------------------------------------------------------------------------------------------

// use(T{}, std::integral_constant<int, vector>) for the dtype.
template <typename Use>
void with_vector(ScalarType dtype, int vector, const Use& use) {
  const auto with = [&](auto element) {
    constexpr int kFull = kVectorBytes / sizeof(element);
    if (vector == kFull) {
      use(element, std::integral_constant<int, kFull>{});
    } else {
      use(element, std::integral_constant<int, 1>{});
    }
  };
  switch (dtype) {
    case ScalarType::Double:
      return use(double{}, std::integral_constant<int, 1>{});
    case ScalarType::Float:
      return with(float{});
    case ScalarType::Half:
      return with(torch::headeronly::Half{});
    default:
      return with(torch::headeronly::BFloat16{});
  }
}

// launch(T{}, std::integral_constant<int, vector>, BranchKernelProblem, stream) for each table of groups; `map` is any of
// the maps, `addresses` are those of all tensors.
template <typename Launch>
void for_each_launch(
    const BranchProblem& p,
    const BranchStrides& strides,
    BranchWork work,
    const Tensor& map,
    std::initializer_list<const void*> addresses,
    const Launch& launch) {
  int misalignment = 0;
  for (const void* address : addresses) {
    misalignment |= misalignment_of(address);
  }
  const BranchPlan plan = plan_branches(p, strides, work, static_cast<int64_t>(map.element_size()), misalignment);
  STD_TORCH_CHECK(
      plan.fits, "too large for the CUDA kernels: ", p.images, " images of ", p.height, " x ", p.width, " tokens, ",
      p.branches, " branches of ", p.channels, " channels; they take up to ", kMaxGroups,
      " branches, and images of up to 2^30 tokens and, of one branch, 2^32 elements");
  const LaunchContext context(map);
  with_vector(map.scalar_type(), plan.vector, [&](auto element, auto vector) {
    for_each_branch_table(p, strides, plan.vector, work, [&](const BranchKernelProblem& kernel) {
      launch(element, vector, kernel, context.stream());
    });
  });
}

struct Cuda {
  static void pool(const BranchProblem& p, const Tensor& x, const MapStrides& x_stride, const Tensor& out) {
    const void* from = x.const_data_ptr();
    void* to = out.mutable_data_ptr();
    for_each_launch(
        p, {x_stride, {}, 0, 0}, BranchWork::kSums, x, {from, to},
        [&](auto element, auto vector, const BranchKernelProblem& kernel, cudaStream_t stream) {
          using T = decltype(element);
          constexpr int kVector = decltype(vector)::value;
          S2MLP_LAUNCH((pool_kernel<T, kVector>), kernel.blocks, kBlockThreads, stream,
                       static_cast<const VectorOf<T, kVector>*>(from), static_cast<accumulator_t<T>*>(to), kernel);
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
    const void* from = x.const_data_ptr();
    const void* numbers = weights.const_data_ptr();
    void* to = out.mutable_data_ptr();
    for_each_launch(
        p, {x_stride, out_stride, weights_stride, 0}, BranchWork::kMaps, x, {from, numbers, to},
        [&](auto element, auto vector, const BranchKernelProblem& kernel, cudaStream_t stream) {
          using T = decltype(element);
          using Vector = VectorOf<T, decltype(vector)::value>;
          S2MLP_LAUNCH((combine_kernel<T, decltype(vector)::value>), kernel.blocks, kBlockThreads, stream,
                       static_cast<const Vector*>(from), static_cast<const accumulator_t<T>*>(numbers),
                       static_cast<Vector*>(to), kernel);
        });
  }

  static void correlate(
      const BranchProblem& p,
      const Tensor& grad,
      const MapStrides& grad_stride,
      const Tensor& x,
      const MapStrides& x_stride,
      const Tensor& out) {
    const void* narrow = grad.const_data_ptr();
    const void* wide = x.const_data_ptr();
    void* to = out.mutable_data_ptr();
    for_each_launch(
        p, {x_stride, grad_stride, 0, 0}, BranchWork::kSumsPerBranch, x, {narrow, wide, to},
        [&](auto element, auto vector, const BranchKernelProblem& kernel, cudaStream_t stream) {
          using T = decltype(element);
          using Vector = VectorOf<T, decltype(vector)::value>;
          S2MLP_LAUNCH((correlate_kernel<T, decltype(vector)::value>), kernel.blocks, kBlockThreads, stream,
                       static_cast<const Vector*>(narrow), static_cast<const Vector*>(wide),
                       static_cast<accumulator_t<T>*>(to), kernel);
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
    const auto address = [](const Tensor* tensor) { return tensor == nullptr ? nullptr : tensor->const_data_ptr(); };
    const void* from = address(grad);
    const void* numbers = address(weights);
    const void* sums = address(pool_grad);
    void* to = out.mutable_data_ptr();
    for_each_launch(
        p, {out_stride, grad_stride, weights_stride, pool_grad_stride}, BranchWork::kMaps, out,
        {from, numbers, sums, to},
        [&](auto element, auto vector, const BranchKernelProblem& kernel, cudaStream_t stream) {
          using T = decltype(element);
          using Wide = accumulator_t<T>;
          using Vector = VectorOf<T, decltype(vector)::value>;
          S2MLP_LAUNCH((spread_kernel<T, decltype(vector)::value>), kernel.blocks, kBlockThreads, stream,
                       static_cast<const Vector*>(from), static_cast<const Wide*>(numbers),
                       static_cast<const Wide*>(sums), static_cast<Vector*>(to), kernel);
        });
  }
};

}  // namespace
}  // namespace s2mlp

STABLE_TORCH_LIBRARY_IMPL(S2MLP_LIBRARY, S2MLP_DISPATCH_KEY, m) { S2MLP_IMPLEMENT_BRANCH_OPS(m, s2mlp::Cuda); }
