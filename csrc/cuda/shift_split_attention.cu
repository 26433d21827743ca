// The branch ops of the split attention on a GPU: gathers without atomics, and sums over tokens in a fixed order.
//
// Kernels that write maps: a thread has one vector of channels of four neighbouring tokens, so that weights are loaded
// once for four tokens and neighbouring threads are at neighbouring channels. Kernels that sum over tokens: a block has a
// few vectors of channels and all tokens of an image. Blocks of one image follow each other, so that what two of them
// read comes from the L2 cache the second time.
#include <initializer_list>

#include "../branch_ops.h"
#include "branch_kernel_problem.h"
#include "launch.h"
#include "vector_of.h"

namespace s2mlp {
namespace {

// Weights or sums that belong to a vector of channels, 16 bytes at a time.
template <int kVector, typename Acc>
__device__ void load_numbers(const Acc* from, Acc (&numbers)[kVector]) {
  constexpr int kAtOnce = kVector == 1 ? 1 : kVectorBytes / sizeof(Acc);
#pragma unroll
  for (int first = 0; first < kVector; first += kAtOnce) {
    const auto part = *reinterpret_cast<const VectorOf<Acc, kAtOnce>*>(from + first);
#pragma unroll
    for (int v = 0; v < kAtOnce; ++v) {
      numbers[first + v] = part.values[v];
    }
  }
}

template <int kVector, typename Acc>
__device__ void store_numbers(Acc* to, const Acc (&numbers)[kVector]) {
  constexpr int kAtOnce = kVector == 1 ? 1 : kVectorBytes / sizeof(Acc);
#pragma unroll
  for (int first = 0; first < kVector; first += kAtOnce) {
    VectorOf<Acc, kAtOnce> part;
#pragma unroll
    for (int v = 0; v < kAtOnce; ++v) {
      part.values[v] = numbers[first + v];
    }
    *reinterpret_cast<VectorOf<Acc, kAtOnce>*>(to + first) = part;
  }
}

template <typename T, int kVector>
__device__ Packed<T, kVector> load_token(const VectorOf<T, kVector>* image, const MapStrides& stride, int32_t h, int32_t w) {
  return load_packed(image + (h * stride.row + w * stride.column));
}

// ---- Maps ------------------------------------------------------------------------------------------------------------

template <typename T, int kVector>
__global__ void __launch_bounds__(kBlockThreads, kMinBlocks) combine_kernel(
    const VectorOf<T, kVector>* __restrict__ x,
    const accumulator_t<T>* __restrict__ weights,
    VectorOf<T, kVector>* __restrict__ out,
    const __grid_constant__ BranchKernelProblem p) {
  using Acc = accumulator_t<T>;
  constexpr int kFactors = kVector < 4 ? kVector : 4;
  const BranchBlock block = locate_block(p, blockIdx.x);
  const BranchItem item = locate_item(p, block.tile, threadIdx.x);
  if (item.first_token >= p.tokens) {
    return;
  }
  Token tokens[kBranchTokens];
  locate_tokens(p, item.first_token, tokens);
  Acc sums[kBranchTokens][kVector] = {};
  int next = 0;
#pragma unroll 1
  for (int32_t k = 0; k < p.branches; ++k) {
    const BranchGroup group = branch_group(p, k, item.channel, next);
    const int64_t channel = int64_t{k} * p.channels + item.channel;
    const Acc* numbers = weights + block.image * p.strides.weights + channel * kVector;
    const VectorOf<T, kVector>* branch = x + block.image * p.strides.expanded.image + channel;
    Packed<T, kVector> values[kBranchTokens];
#pragma unroll
    for (int u = 0; u < kBranchTokens; ++u) {
      const int32_t h = source_index(tokens[u].h, group.dh, p.height, p.mode);
      const int32_t w = source_index(tokens[u].w, group.dw, p.width, p.mode);
      values[u] = Packed<T, kVector>{};
      if (h >= 0 && w >= 0) {
        values[u] = load_token(branch, p.strides.expanded, h, w);
      }
    }
    // A few weights at a time, and elements taken out of their words when their turn comes: registers are short.
#pragma unroll
    for (int first = 0; first < kVector; first += kFactors) {
      Acc factors[kFactors];
      load_numbers(numbers + first, factors);
#pragma unroll
      for (int v = 0; v < kFactors; ++v) {
#pragma unroll
        for (int u = 0; u < kBranchTokens; ++u) {
          sums[u][first + v] += static_cast<Acc>(unpack<T, kVector>(values[u]).values[first + v]) * factors[v];
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
      out[block.image * p.strides.combined.image + tokens[u].h * p.strides.combined.row + tokens[u].w * p.strides.combined.column +
          item.channel] = result;
    }
  }
}

// The sum over all readers: the slow path, at the border.
template <typename T, int kVector>
__device__ void sum_readers(
    const VectorOf<T, kVector>* map,
    const BranchKernelProblem& p,
    const Token& token,
    const BranchGroup& group,
    accumulator_t<T> (&sums)[kVector]) {
  const Sources<int32_t> rows = readers(token.h, group.dh, p.height, p.mode);
  const Sources<int32_t> columns = readers(token.w, group.dw, p.width, p.mode);
#pragma unroll
  for (int v = 0; v < kVector; ++v) {
    sums[v] = 0;
  }
#pragma unroll 1
  for (int32_t h = 0; h < rows.size(); ++h) {
#pragma unroll 1
    for (int32_t w = 0; w < columns.size(); ++w) {
      const VectorOf<T, kVector> grad = unpack<T, kVector>(load_token(map, p.strides.combined, rows[h], columns[w]));
#pragma unroll
      for (int v = 0; v < kVector; ++v) {
        sums[v] += static_cast<accumulator_t<T>>(grad.values[v]);
      }
    }
  }
}

// grad and weights, or pool_grad, may be null.
template <typename T, int kVector>
__global__ void __launch_bounds__(kBlockThreads, kMinBlocks) combine_backward_kernel(
    const VectorOf<T, kVector>* __restrict__ grad,
    const accumulator_t<T>* __restrict__ weights,
    const accumulator_t<T>* __restrict__ pool_grad,
    VectorOf<T, kVector>* __restrict__ out,
    const __grid_constant__ BranchKernelProblem p) {
  using Acc = accumulator_t<T>;
  const BranchBlock block = locate_block(p, blockIdx.x);
  const BranchItem item = locate_item(p, block.tile, threadIdx.x);
  if (item.first_token >= p.tokens) {
    return;
  }
  Token tokens[kBranchTokens];
  locate_tokens(p, item.first_token, tokens);
  Acc pooled[kVector] = {};
  if (pool_grad != nullptr) {
    load_numbers(pool_grad + block.image * p.strides.pool_grad + int64_t{item.channel} * kVector, pooled);
  }
  const VectorOf<T, kVector>* map = grad == nullptr ? nullptr : grad + block.image * p.strides.combined.image + item.channel;
  int next = 0;
#pragma unroll 1
  for (int32_t k = 0; k < p.branches; ++k) {
    const BranchGroup group = branch_group(p, k, item.channel, next);
    const int64_t channel = int64_t{k} * p.channels + item.channel;
    Acc factors[kVector] = {};
    Packed<T, kVector> values[kBranchTokens] = {};
    if (map != nullptr) {
      load_numbers(weights + block.image * p.strides.weights + channel * kVector, factors);
#pragma unroll
      for (int u = 0; u < kBranchTokens; ++u) {
        const Sources<int32_t> rows = readers(tokens[u].h, group.dh, p.height, p.mode);
        const Sources<int32_t> columns = readers(tokens[u].w, group.dw, p.width, p.mode);
        if (rows.size() > 0 && columns.size() > 0) {
          values[u] = load_token(map, p.strides.combined, rows[0], columns[0]);
        }
      }
    }
#pragma unroll
    for (int u = 0; u < kBranchTokens; ++u) {
      if (item.first_token + u >= p.tokens) {
        continue;
      }
      const int64_t reader_count =
          int64_t{readers(tokens[u].h, group.dh, p.height, p.mode).size()} * readers(tokens[u].w, group.dw, p.width, p.mode).size();
      const VectorOf<T, kVector> value = unpack<T, kVector>(values[u]);
      Acc sums[kVector];
#pragma unroll
      for (int v = 0; v < kVector; ++v) {
        sums[v] = static_cast<Acc>(value.values[v]);
      }
      if (reader_count > 1 && map != nullptr) {
        sum_readers(map, p, tokens[u], group, sums);
      }
      VectorOf<T, kVector> result;
#pragma unroll
      for (int v = 0; v < kVector; ++v) {
        result.values[v] = static_cast<T>(sums[v] * factors[v] + pooled[v] * static_cast<Acc>(reader_count));
      }
      out[block.image * p.strides.expanded.image + tokens[u].h * p.strides.expanded.row + tokens[u].w * p.strides.expanded.column +
          channel] = result;
    }
  }
}

// ---- Sums over tokens ------------------------------------------------------------------------------------------------

// A block's threads are counted by lane, a vector of channels, and then by token. Each thread has summed up every so many
// tokens; now the first token's threads get the sum of all, in an order that is always the same. For all threads to call.
template <int kVector, typename Acc>
__device__ void sum_tokens_of_block(Acc (&sums)[kVector]) {
  __shared__ Acc partial[kVector][kBlockThreads];
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
    const VectorOf<T, kVector>* __restrict__ x, accumulator_t<T>* __restrict__ out, const __grid_constant__ BranchKernelProblem p) {
  using Acc = accumulator_t<T>;
  constexpr int kLanes = sum_lanes(kVector);
  constexpr int kStep = kBlockThreads / kLanes;  // from a thread's token to its next
  const BranchBlock block = locate_block(p, blockIdx.x);
  const int32_t lane = block.tile * kLanes + threadIdx.x % kLanes;
  const int32_t channel = p.first_channel + lane;
  const bool inside = lane < p.launch_channels;
  Acc sums[kVector] = {};
  int next = 0;
#pragma unroll 1
  for (int32_t k = 0; inside && k < p.branches; ++k) {
    const BranchGroup group = branch_group(p, k, channel, next);
    const VectorOf<T, kVector>* branch = x + block.image * p.strides.expanded.image + int64_t{k} * p.channels + channel;
#pragma unroll 1
    for (int32_t first = threadIdx.x / kLanes; first < p.tokens; first += kBranchTokens * kStep) {
      Packed<T, kVector> values[kBranchTokens];
      Acc reader_counts[kBranchTokens];
#pragma unroll
      for (int u = 0; u < kBranchTokens; ++u) {
        const int32_t token = first + u * kStep;
        const QuotientRemainder<int32_t> place = p.by_width(token);
        const Sources<int32_t> rows = readers(place.quotient, group.dh, p.height, p.mode);
        const Sources<int32_t> columns = readers(place.remainder, group.dw, p.width, p.mode);
        values[u] = Packed<T, kVector>{};
        reader_counts[u] = static_cast<Acc>(rows.size()) * static_cast<Acc>(columns.size());
        if (token < p.tokens && reader_counts[u] > 0) {
          values[u] = load_token(branch, p.strides.expanded, place.quotient, place.remainder);
        }
      }
#pragma unroll
      for (int u = 0; u < kBranchTokens; ++u) {
        const VectorOf<T, kVector> value = unpack<T, kVector>(values[u]);
#pragma unroll
        for (int v = 0; v < kVector; ++v) {
          sums[v] += static_cast<Acc>(value.values[v]) * reader_counts[u];
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
__global__ void __launch_bounds__(kBlockThreads, kMinBlocks) combine_backward_weights_kernel(
    const VectorOf<T, kVector>* __restrict__ grad,
    const VectorOf<T, kVector>* __restrict__ x,
    accumulator_t<T>* __restrict__ out,
    const __grid_constant__ BranchKernelProblem p) {
  using Acc = accumulator_t<T>;
  constexpr int kLanes = sum_lanes(kVector);
  constexpr int kStep = kBlockThreads / kLanes;
  const BranchBlock block = locate_block(p, blockIdx.x);
  const int32_t lane = block.tile * kLanes + threadIdx.x % kLanes;
  const int32_t channel = p.first_channel + lane;
  const int32_t expanded_channel = block.line * p.channels + channel;
  const bool inside = lane < p.launch_channels;
  const BranchGroup group = p.groups[0];
  const VectorOf<T, kVector>* map = grad + block.image * p.strides.combined.image + channel;
  const VectorOf<T, kVector>* branch = x + block.image * p.strides.expanded.image + expanded_channel;
  Acc sums[kVector] = {};
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
        grads[u] = load_token(map, p.strides.combined, place.quotient, place.remainder);
        values[u] = load_token(branch, p.strides.expanded, h, w);
      }
    }
#pragma unroll
    for (int u = 0; u < kBranchTokens; ++u) {
      const VectorOf<T, kVector> factor = unpack<T, kVector>(grads[u]);
      const VectorOf<T, kVector> value = unpack<T, kVector>(values[u]);
#pragma unroll
      for (int v = 0; v < kVector; ++v) {
        sums[v] += static_cast<Acc>(factor.values[v]) * static_cast<Acc>(value.values[v]);
      }
    }
  }
  sum_tokens_of_block(sums);
  if (inside && threadIdx.x < kLanes) {
    store_numbers(out + ((block.image * p.branches + block.line) * p.channels + channel) * kVector, sums);
  }
}

// ---- Launch ----------------------------------------------------------------------------------------------------------

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
      plan.fits, "too large for the CUDA kernels: ", p.images, " images of ", p.height, " x ", p.width, " tokens, ", p.branches,
      " branches of ", p.channels, " channels; they take up to ", kMaxGroups,
      " branches, and images of up to 2^30 tokens and, of one branch, 2^32 elements");
  const LaunchContext context(map);
  with_floating_type(map, [&](auto element) {
    with_vector<kWidestComputed<decltype(element)>, 1>(plan.vector, [&](auto vector) {
      for_each_branch_table(p, strides, plan.vector, work, [&](const BranchKernelProblem& kernel) {
        launch(element, vector, kernel, context.stream());
      });
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
      S2MLP_LAUNCH(
          (pool_kernel<T, kVector>), kernel.blocks, kBlockThreads, stream, static_cast<const VectorOf<T, kVector>*>(from),
          static_cast<accumulator_t<T>*>(to), kernel);
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
      S2MLP_LAUNCH(
          (combine_kernel<T, decltype(vector)::value>), kernel.blocks, kBlockThreads, stream, static_cast<const Vector*>(from),
          static_cast<const accumulator_t<T>*>(numbers), static_cast<Vector*>(to), kernel);
    });
  }

  static void combine_backward_weights(
      const BranchProblem& p,
      const Tensor& grad,
      const MapStrides& grad_stride,
      const Tensor& x,
      const MapStrides& x_stride,
      const Tensor& out) {
    const void* grad_map = grad.const_data_ptr();
    const void* map = x.const_data_ptr();
    void* to = out.mutable_data_ptr();
    for_each_launch(
        p, {x_stride, grad_stride, 0, 0}, BranchWork::kSumsPerBranch, x, {grad_map, map, to},
        [&](auto element, auto vector, const BranchKernelProblem& kernel, cudaStream_t stream) {
      using T = decltype(element);
      using Vector = VectorOf<T, decltype(vector)::value>;
      S2MLP_LAUNCH(
          (combine_backward_weights_kernel<T, decltype(vector)::value>), kernel.blocks, kBlockThreads, stream,
          static_cast<const Vector*>(grad_map), static_cast<const Vector*>(map), static_cast<accumulator_t<T>*>(to), kernel);
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
    const auto address = [](const Tensor* tensor) { return tensor == nullptr ? nullptr : tensor->const_data_ptr(); };
    const void* from = address(grad);
    const void* numbers = address(weights);
    const void* sums = address(pool_grad);
    void* to = out.mutable_data_ptr();
    for_each_launch(
        p, {out_stride, grad_stride, weights_stride, pool_grad_stride}, BranchWork::kMaps, out, {from, numbers, sums, to},
        [&](auto element, auto vector, const BranchKernelProblem& kernel, cudaStream_t stream) {
      using T = decltype(element);
      using Acc = accumulator_t<T>;
      using Vector = VectorOf<T, decltype(vector)::value>;
      S2MLP_LAUNCH(
          (combine_backward_kernel<T, decltype(vector)::value>), kernel.blocks, kBlockThreads, stream,
          static_cast<const Vector*>(from), static_cast<const Acc*>(numbers), static_cast<const Acc*>(sums),
          static_cast<Vector*>(to), kernel);
    });
  }
};

}  // namespace
}  // namespace s2mlp

STABLE_TORCH_LIBRARY_IMPL(S2MLP_LIBRARY, S2MLP_DISPATCH_KEY, m) { S2MLP_IMPLEMENT_BRANCH_OPS(m, s2mlp::Cuda); }
