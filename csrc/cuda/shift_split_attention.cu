// The branch ops of split attention on a GPU: gathers without atomics, and sums over tokens in a fixed order.
//
// Kernels that write maps: a thread has one vector of channels of four adjacent tokens, so that weights are loaded
// once for four tokens and adjacent threads access adjacent channels. Kernels that sum over tokens: a block has a
// few vectors of channels and all tokens of an image, or a piece of them if there are few images; a second kernel then adds
// the sums of the pieces. Blocks of one image are consecutive, so that data read by two of them comes from the L2 cache the
// second time.
//
// Most tokens are direct: their source is at a distance that is constant for a group. The others, at the border, take the
// slow path, the only one that evaluates the padding mode.
#include <initializer_list>

#include "../branch_ops.h"
#include "branch_kernel_problem.h"
#include "launch.h"
#include "vector_of.h"

namespace s2mlp {
namespace {

// Weights or sums of a vector of channels, accessed 16 bytes at a time.
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
__device__ VectorOf<T, kVector> rounded(const accumulator_t<T> (&numbers)[kVector]) {
  VectorOf<T, kVector> vector;
#pragma unroll
  for (int v = 0; v < kVector; ++v) {
    vector.values[v] = static_cast<T>(numbers[v]);
  }
  return vector;
}

// Element `v` of a vector.
template <typename T, int kVector>
__device__ accumulator_t<T> element(const Packed<T, kVector>& packed, int v) {
  if constexpr (kVector > 1 && std::is_same_v<T, torch::headeronly::BFloat16>) {
    // One instruction each; conversion via BFloat16 takes two for the upper half of a word.
    const uint32_t words[] = {packed.x, packed.y, packed.z, packed.w};
    const uint32_t bits = v % 2 == 0 ? words[v / 2] << 16 : words[v / 2] & 0xffff0000u;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
  } else {
    return static_cast<accumulator_t<T>>(unpack<T, kVector>(packed).values[v]);
  }
}

template <typename T, int kVector>
__device__ void add_product(const Packed<T, kVector>& packed, accumulator_t<T> factor, accumulator_t<T> (&sums)[kVector]) {
#pragma unroll
  for (int v = 0; v < kVector; ++v) {
    sums[v] += element<T, kVector>(packed, v) * factor;
  }
}

// Takes the next token that is not direct from `border`, which has a bit for each of the kBranchTokens tokens of a thread from
// `first` on. Returns false if none is left before `end`.
__device__ bool take_border_token(const BranchKernelProblem& p, const Place& first, int32_t end, int& border, Token& token) {
  const int32_t number = first.number + (__ffs(border) - 1) * p.step.number;
  if (border == 0 || number >= end) {
    return false;
  }
  border &= border - 1;
  token = locate_token(p, number);
  return true;
}

// ---- Maps ------------------------------------------------------------------------------------------------------------

// Loads the sources of an item's tokens in one branch.
template <typename T, int kVector>
__device__ void load_sources(
    const VectorOf<T, kVector>* branch,
    const BranchKernelProblem& p,
    const BranchGroup& group,
    const Place& first,
    Packed<T, kVector> (&values)[kBranchTokens]) {
  int border = 0;
  Place place = first;
#pragma unroll
  for (int u = 0; u < kBranchTokens; ++u, advance(p, place)) {
    if (group.is_direct(place)) {
      values[u] = load_packed(branch + (place.expanded + group.distance));
    } else {
      border |= 1 << u;
    }
  }
  if (border == 0) {
    return;
  }
#pragma unroll
  for (int u = 0; u < kBranchTokens; ++u) {
    if ((border >> u & 1) != 0) {
      const int32_t number = first.number + u;
      const int32_t source = number < p.tokens ? source_offset(p, group, locate_token(p, number)) : -1;
      values[u] = Packed<T, kVector>{};
      if (source >= 0) {
        values[u] = load_packed(branch + source);
      }
    }
  }
}

// Adds the sources of four tokens in one branch, times the branch's weights.
template <typename T, int kVector>
__device__ void add_weighted(
    const Packed<T, kVector> (&values)[kBranchTokens],
    const accumulator_t<T>* weights,
    accumulator_t<T> (&sums)[kBranchTokens][kVector]) {
  using Acc = accumulator_t<T>;
  constexpr int kFactors = kVector < 4 ? kVector : 4;
  // To save registers, weights are loaded a few at a time, and elements are extracted from their words as late as possible.
#pragma unroll
  for (int first = 0; first < kVector; first += kFactors) {
    Acc factors[kFactors];
    load_numbers(weights + first, factors);
#pragma unroll
    for (int v = 0; v < kFactors; ++v) {
#pragma unroll
      for (int u = 0; u < kBranchTokens; ++u) {
        sums[u][first + v] += element<T, kVector>(values[u], first + v) * factors[v];
      }
    }
  }
}

template <typename T, int kVector>
__global__ void __launch_bounds__(kBlockThreads, kMinBlocks) combine_kernel(
    const VectorOf<T, kVector>* __restrict__ x,
    const accumulator_t<T>* __restrict__ weights,
    VectorOf<T, kVector>* __restrict__ out,
    const __grid_constant__ BranchKernelProblem p) {
  const BranchBlock block = locate_block(p, blockIdx.x);
  const BranchItem item = locate_item(p, block.tile, threadIdx.x);
  if (item.first.number >= p.tokens) {
    return;
  }
  x += p.expanded.image_begin(block.image) + item.channel;
  weights += int64_t{block.image} * p.weights + int64_t{item.channel} * kVector;
  accumulator_t<T> sums[kBranchTokens][kVector] = {};
  int next = 0;
#pragma unroll 1
  for (int32_t k = 0; k < p.branches; ++k) {
    const BranchGroup& group = p.groups[branch_group(p, k, item.channel, next)];
    Packed<T, kVector> values[kBranchTokens];
    load_sources<T, kVector>(x, p, group, item.first, values);
    add_weighted<T, kVector>(values, weights, sums);
    x += p.channels;
    weights += int64_t{p.channels} * kVector;
  }
  out += p.combined.image_begin(block.image) + item.channel;
  Place place = item.first;
#pragma unroll
  for (int u = 0; u < kBranchTokens; ++u, advance(p, place)) {
    if (place.number < p.tokens) {
      out[place.combined] = rounded<T, kVector>(sums[u]);
    }
  }
}

// The per-channel state of a thread of combine_backward_kernel. A missing `grad` is null, missing `factors` and `pooled` are zeros.
template <typename T, int kVector>
struct BackwardChannels {
  const VectorOf<T, kVector>* grad;
  VectorOf<T, kVector>* out;  // of one branch
  accumulator_t<T> factors[kVector];
  accumulator_t<T> pooled[kVector];
};

// Writes the tokens of an item that are in `border`: sums over all readers.
template <typename T, int kVector>
__device__ void store_border(
    const BackwardChannels<T, kVector>& channels,
    const BranchKernelProblem& p,
    const BranchGroup& group,
    const Place& first,
    int border) {
  using Acc = accumulator_t<T>;
  Token token;
#pragma unroll 1
  while (take_border_token(p, first, p.tokens, border, token)) {
    const TokenReaders readers = readers_of(p, group, token);
    Acc sums[kVector] = {};
    if (readers.size() != 0) {  // zero without readers, even if a factor is infinite or NaN
#pragma unroll 1
      for (int32_t h = 0; channels.grad != nullptr && h < readers.rows.size(); ++h) {
#pragma unroll 1
        for (int32_t w = 0; w < readers.columns.size(); ++w) {
          add_product<T, kVector>(load_packed(channels.grad + p.combined.offset({readers.rows[h], readers.columns[w]})), 1, sums);
        }
      }
#pragma unroll
      for (int v = 0; v < kVector; ++v) {
        sums[v] = sums[v] * channels.factors[v] + channels.pooled[v] * static_cast<Acc>(readers.size());
      }
    }
    channels.out[p.expanded.offset(token)] = rounded<T, kVector>(sums);
  }
}

// Writes an item's tokens of one branch.
template <typename T, int kVector>
__device__ void store_branch(
    const BackwardChannels<T, kVector>& channels, const BranchKernelProblem& p, const BranchGroup& group, const Place& first) {
  Packed<T, kVector> values[kBranchTokens] = {};
  int border = 0;
  Place place = first;
#pragma unroll
  for (int u = 0; u < kBranchTokens; ++u, advance(p, place)) {
    const bool direct = group.is_direct(place);
    border |= direct ? 0 : 1 << u;
    if (direct & (channels.grad != nullptr)) {
      values[u] = load_packed(channels.grad + (place.combined + group.distance));
    }
  }
  place = first;
#pragma unroll
  for (int u = 0; u < kBranchTokens; ++u, advance(p, place)) {
    if ((border >> u & 1) == 0) {
      accumulator_t<T> results[kVector];
#pragma unroll
      for (int v = 0; v < kVector; ++v) {
        results[v] = element<T, kVector>(values[u], v) * channels.factors[v] + channels.pooled[v];
      }
      channels.out[place.expanded] = rounded<T, kVector>(results);
    }
  }
  if (border != 0) {
    store_border(channels, p, group, first, border);
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
  const BranchBlock block = locate_block(p, blockIdx.x);
  const BranchItem item = locate_item(p, block.tile, threadIdx.x);
  if (item.first.number >= p.tokens) {
    return;
  }
  BackwardChannels<T, kVector> channels = {};
  channels.out = out + p.expanded.image_begin(block.image) + item.channel;
  if (pool_grad != nullptr) {
    load_numbers(pool_grad + int64_t{block.image} * p.pool_grad + int64_t{item.channel} * kVector, channels.pooled);
  }
  if (grad != nullptr) {
    channels.grad = grad + p.combined.image_begin(block.image) + item.channel;
    weights += int64_t{block.image} * p.weights + int64_t{item.channel} * kVector;
  }
  int next = 0;
#pragma unroll 1
  for (int32_t k = 0; k < p.branches; ++k) {
    const BranchGroup& group = p.groups[branch_group(p, k, item.channel, next)];
    if (grad != nullptr) {
      load_numbers(weights, channels.factors);
      weights += int64_t{p.channels} * kVector;
    }
    store_branch(channels, p, group, item.first);
    channels.out += p.channels;
  }
}

// ---- Sums over tokens ------------------------------------------------------------------------------------------------

// Threads are numbered by lane (a vector of channels), then by token; each holds the sums of its tokens. Returns, in the first
// threads of the block, one per channel of the lanes, the block's sum for that channel. The order of summation is fixed. All
// threads of the block must call this.
template <int kVector, typename Acc>
__device__ Acc sum_tokens_of_block(const Acc (&sums)[kVector], int lane_bits) {
  alignas(kVectorBytes) __shared__ Acc of_threads[kBlockThreads * kVector];
  __shared__ Acc of_parts[kBlockThreads];
  const unsigned int channels = kVector << lane_bits;
  store_numbers(of_threads + threadIdx.x * kVector, sums);
  __syncthreads();
  const unsigned int channel = threadIdx.x & (channels - 1);
  Acc sum = 0;
#pragma unroll
  for (unsigned int v = 0; v < kVector; ++v) {  // a kVector-th of a lane's threads per part
    sum += of_threads[(threadIdx.x - channel) * kVector + v * channels + channel];
  }
  of_parts[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x < channels) {
#pragma unroll 1
    for (unsigned int part = threadIdx.x + channels; part < kBlockThreads; part += channels) {
      sum += of_parts[part];
    }
  }
  return sum;
}

// Writes a block's sums; `line` is the row of the output, of p.channels vectors.
template <int kVector, typename Acc>
__device__ void store_sums(
    const BranchKernelProblem& p, const BranchBlock& block, int64_t line, const Acc (&sums)[kVector], Acc* out) {
  const Acc sum = sum_tokens_of_block(sums, p.lane_bits);
  const int32_t first = block.tile << p.lane_bits;
  const int32_t left = p.launch_channels - first;
  const int32_t lanes = left < 1 << p.lane_bits ? left : 1 << p.lane_bits;
  if (static_cast<int32_t>(threadIdx.x) < lanes * kVector) {
    const int64_t row = block.piece * p.piece_sums + line * p.channels * kVector;
    out[row + int64_t{p.first_channel + first} * kVector + threadIdx.x] = sum;
  }
}

// Adds the tokens in `border`, each as many times as it is read.
template <typename T, int kVector>
__device__ void add_border(
    const VectorOf<T, kVector>* branch,
    const BranchKernelProblem& p,
    const BranchGroup& group,
    const Place& first,
    int32_t end,
    int border,
    accumulator_t<T> (&sums)[kVector]) {
  Token token;
#pragma unroll 1
  while (take_border_token(p, first, end, border, token)) {
    const int32_t readers = readers_of(p, group, token).size();
    if (readers > 0) {
      add_product<T, kVector>(load_packed(branch + p.expanded.offset(token)), static_cast<accumulator_t<T>>(readers), sums);
    }
  }
}

// Adds a thread's tokens of one branch.
template <typename T, int kVector>
__device__ void add_tokens(
    const VectorOf<T, kVector>* branch,
    const BranchKernelProblem& p,
    const BranchGroup& group,
    const SumItem& item,
    accumulator_t<T> (&sums)[kVector]) {
  Place place = item.first;
#pragma unroll 1
  while (place.number < item.end) {
    Packed<T, kVector> values[kBranchTokens] = {};
    const Place first = place;
    int border = 0;
#pragma unroll
    for (int u = 0; u < kBranchTokens; ++u, advance(p, place)) {
      if (group.is_direct(place)) {
        values[u] = load_packed(branch + place.expanded);
      } else {
        border |= 1 << u;
      }
    }
    if (border != 0) {
      add_border<T, kVector>(branch, p, group, first, item.end, border, sums);
    }
#pragma unroll
    for (int u = 0; u < kBranchTokens; ++u) {
      add_product<T, kVector>(values[u], 1, sums);
    }
  }
}

template <typename T, int kVector>
__global__ void __launch_bounds__(kBlockThreads, kMinBlocks) pool_kernel(
    const VectorOf<T, kVector>* __restrict__ x, accumulator_t<T>* __restrict__ out, const __grid_constant__ BranchKernelProblem p) {
  const BranchBlock block = locate_block(p, blockIdx.x);
  const SumItem item = locate_sum(p, block, threadIdx.x);
  x += p.expanded.image_begin(block.image) + item.channel;
  accumulator_t<T> sums[kVector] = {};
  int next = 0;
#pragma unroll 1
  for (int32_t k = 0; item.inside && k < p.branches; ++k) {
    const BranchGroup& group = p.groups[branch_group(p, k, item.channel, next)];
    add_tokens<T, kVector>(x, p, group, item, sums);
    x += p.channels;
  }
  store_sums(p, block, block.image, sums, out);
}

// Adds the products of two vectors, element by element.
template <typename T, int kVector>
__device__ void add_products(const Packed<T, kVector>& a, const Packed<T, kVector>& b, accumulator_t<T> (&sums)[kVector]) {
#pragma unroll
  for (int v = 0; v < kVector; ++v) {
    sums[v] += element<T, kVector>(a, v) * element<T, kVector>(b, v);
  }
}

// Adds the products of the tokens in `border`.
template <typename T, int kVector>
__device__ void add_border_products(
    const VectorOf<T, kVector>* grad,
    const VectorOf<T, kVector>* branch,
    const BranchKernelProblem& p,
    const BranchGroup& group,
    const Place& first,
    int32_t end,
    int border,
    accumulator_t<T> (&sums)[kVector]) {
  Token token;
#pragma unroll 1
  while (take_border_token(p, first, end, border, token)) {
    const int32_t source = source_offset(p, group, token);
    const Packed<T, kVector> value = source >= 0 ? load_packed(branch + source) : Packed<T, kVector>{};
    add_products<T, kVector>(load_packed(grad + p.combined.offset(token)), value, sums);
  }
}

template <typename T, int kVector>
__global__ void __launch_bounds__(kBlockThreads, kMinBlocks) combine_backward_weights_kernel(
    const VectorOf<T, kVector>* __restrict__ grad,
    const VectorOf<T, kVector>* __restrict__ x,
    accumulator_t<T>* __restrict__ out,
    const __grid_constant__ BranchKernelProblem p) {
  const BranchBlock block = locate_block(p, blockIdx.x);
  const SumItem item = locate_sum(p, block, threadIdx.x);
  const int32_t expanded_channel = block.line * p.channels + item.channel;
  const BranchGroup& group = p.groups[group_of_channel(p, expanded_channel)];
  grad += p.combined.image_begin(block.image) + item.channel;
  x += p.expanded.image_begin(block.image) + expanded_channel;
  Place place = item.first;
  accumulator_t<T> sums[kVector] = {};
#pragma unroll 1
  while (item.inside && place.number < item.end) {
    Packed<T, kVector> grads[kBranchTokens] = {};
    Packed<T, kVector> values[kBranchTokens] = {};
    const Place first = place;
    int border = 0;
#pragma unroll
    for (int u = 0; u < kBranchTokens; ++u, advance(p, place)) {
      const bool direct = group.is_direct(place);
      border |= direct ? 0 : 1 << u;
      if (direct) {
        grads[u] = load_packed(grad + place.combined);
        values[u] = load_packed(x + (place.expanded + group.distance));
      }
    }
    if (border != 0) {
      add_border_products<T, kVector>(grad, x, p, group, first, item.end, border, sums);
    }
#pragma unroll
    for (int u = 0; u < kBranchTokens; ++u) {
      add_products<T, kVector>(grads[u], values[u], sums);
    }
  }
  store_sums(p, block, int64_t{block.image} * p.branches + block.line, sums, out);
}

// Adds the sums of the pieces, in order.
template <typename Acc>
__global__ void __launch_bounds__(kBlockThreads)
    add_pieces_kernel(const Acc* __restrict__ pieces, Acc* __restrict__ out, int64_t count, int64_t piece_count) {
  const int64_t i = int64_t{blockIdx.x} * kBlockThreads + threadIdx.x;
  if (i < count) {
    Acc sum = 0;
    for (int64_t piece = 0; piece < piece_count; ++piece) {
      sum += pieces[piece * count + i];
    }
    out[i] = sum;
  }
}

// ---- Launch ----------------------------------------------------------------------------------------------------------

// The plan of a call. `map` is any of the maps; `addresses` are those of all tensors that are accessed 16 bytes at a time.
BranchPlan checked_plan(
    const BranchProblem& p,
    const BranchStrides& strides,
    BranchWork work,
    const Tensor& map,
    std::initializer_list<const void*> addresses) {
  int misalignment = 0;
  for (const void* address : addresses) {
    misalignment |= misalignment_of(address);
  }
  const BranchPlan plan = plan_branches(p, strides, work, static_cast<int64_t>(map.element_size()), misalignment);
  STD_TORCH_CHECK(
      plan.fits, "too large for the CUDA kernels: ", p.images, " images of ", p.height, " x ", p.width, " tokens, ", p.branches,
      " branches of ", p.channels, " channels; they take up to ", kMaxGroups,
      " branches, and images of fewer than 2^30 tokens and 2^30 vectors of 16 bytes, or elements where strides allow no vectors");
  return plan;
}

// Calls launch(T{}, std::integral_constant<int, vector>, BranchKernelProblem) for each table of groups.
template <typename Launch>
void for_each_launch(
    const BranchProblem& p,
    const BranchStrides& strides,
    const BranchPlan& plan,
    BranchWork work,
    const Tensor& map,
    const Launch& launch) {
  with_floating_type(map, [&](auto element) {
    with_vector<kWidestComputed<decltype(element)>, 1>(plan.vector, [&](auto vector) {
      for_each_branch_table(p, strides, plan, work, [&](const BranchKernelProblem& kernel) { launch(element, vector, kernel); });
    });
  });
}

// Calls sum(tensor for the sums) with `out`, or with a tensor for the sums of each piece, and then adds these.
template <typename Sum>
void sum_in_pieces(const BranchPlan& plan, const Tensor& out, cudaStream_t stream, const Sum& sum) {
  if (plan.pieces == 1) {
    sum(out);
    return;
  }
  const int64_t count = out.numel();
  const Tensor pieces = allocated([&] { return torch::stable::new_empty(out, {plan.pieces, count}); });
  sum(pieces);
  const auto add = [&](auto zero) {
    using Acc = decltype(zero);
    S2MLP_LAUNCH(
        (add_pieces_kernel<Acc>), divide_up(count, kBlockThreads), kBlockThreads, stream, data<Acc>(pieces), mutable_data<Acc>(out),
        count, plan.pieces);
  };
  out.scalar_type() == ScalarType::Double ? add(double{}) : add(float{});
}

struct Cuda {
  static void pool(const BranchProblem& p, const Tensor& x, const MapStrides& x_stride, const Tensor& out) {
    constexpr BranchWork kWork = BranchWork::kPool;
    const BranchStrides strides = {x_stride, {}, 0, 0};
    const BranchPlan plan = checked_plan(p, strides, kWork, x, {x.const_data_ptr()});
    const LaunchContext context(x);
    sum_in_pieces(plan, out, context.stream(), [&](const Tensor& sums) {
      for_each_launch(p, strides, plan, kWork, x, [&](auto element, auto vector, const BranchKernelProblem& kernel) {
        using T = decltype(element);
        constexpr int kVector = decltype(vector)::value;
        S2MLP_LAUNCH(
            (pool_kernel<T, kVector>), kernel.blocks, kBlockThreads, context.stream(), data<VectorOf<T, kVector>>(x),
            mutable_data<accumulator_t<T>>(sums), kernel);
      });
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
    constexpr BranchWork kWork = BranchWork::kCombine;
    const BranchStrides strides = {x_stride, out_stride, weights_stride, 0};
    const BranchPlan plan =
        checked_plan(p, strides, kWork, x, {x.const_data_ptr(), weights.const_data_ptr(), out.const_data_ptr()});
    const LaunchContext context(x);
    for_each_launch(p, strides, plan, kWork, x, [&](auto element, auto vector, const BranchKernelProblem& kernel) {
      using T = decltype(element);
      using Vector = VectorOf<T, decltype(vector)::value>;
      S2MLP_LAUNCH(
          (combine_kernel<T, decltype(vector)::value>), kernel.blocks, kBlockThreads, context.stream(), data<Vector>(x),
          data<accumulator_t<T>>(weights), mutable_data<Vector>(out), kernel);
    });
  }

  static void combine_backward_weights(
      const BranchProblem& p,
      const Tensor& grad,
      const MapStrides& grad_stride,
      const Tensor& x,
      const MapStrides& x_stride,
      const Tensor& out) {
    constexpr BranchWork kWork = BranchWork::kCombineBackwardWeights;
    const BranchStrides strides = {x_stride, grad_stride, 0, 0};
    const BranchPlan plan = checked_plan(p, strides, kWork, x, {grad.const_data_ptr(), x.const_data_ptr()});
    const LaunchContext context(x);
    sum_in_pieces(plan, out, context.stream(), [&](const Tensor& sums) {
      for_each_launch(p, strides, plan, kWork, x, [&](auto element, auto vector, const BranchKernelProblem& kernel) {
        using T = decltype(element);
        using Vector = VectorOf<T, decltype(vector)::value>;
        S2MLP_LAUNCH(
            (combine_backward_weights_kernel<T, decltype(vector)::value>), kernel.blocks, kBlockThreads, context.stream(),
            data<Vector>(grad), data<Vector>(x), mutable_data<accumulator_t<T>>(sums), kernel);
      });
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
    constexpr BranchWork kWork = BranchWork::kCombineBackward;
    const auto address = [](const Tensor* tensor) { return tensor == nullptr ? nullptr : tensor->const_data_ptr(); };
    const void* from = address(grad);
    const void* numbers = address(weights);
    const void* sums = address(pool_grad);
    const BranchStrides strides = {out_stride, grad_stride, weights_stride, pool_grad_stride};
    const BranchPlan plan = checked_plan(p, strides, kWork, out, {from, numbers, sums, out.const_data_ptr()});
    const LaunchContext context(out);
    for_each_launch(p, strides, plan, kWork, out, [&](auto element, auto vector, const BranchKernelProblem& kernel) {
      using T = decltype(element);
      using Acc = accumulator_t<T>;
      using Vector = VectorOf<T, decltype(vector)::value>;
      S2MLP_LAUNCH(
          (combine_backward_kernel<T, decltype(vector)::value>), kernel.blocks, kBlockThreads, context.stream(),
          static_cast<const Vector*>(from), static_cast<const Acc*>(numbers), static_cast<const Acc*>(sums),
          mutable_data<Vector>(out), kernel);
    });
  }
};

}  // namespace
}  // namespace s2mlp

STABLE_TORCH_LIBRARY_IMPL(S2MLP_LIBRARY, S2MLP_DISPATCH_KEY, m) { S2MLP_IMPLEMENT_BRANCH_OPS(m, s2mlp::Cuda); }
