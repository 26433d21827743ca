// spatial_shift and its adjoint on a GPU: any strides, 64-bit safe, gathers only (no atomics).
//
// One thread writes one vector of `kVector` neighbouring channels (channels innermost) or one element
// (width innermost) at a time. The forward pass only moves bits, so it is compiled per vector size in
// bytes, not per dtype.
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <limits>
#include <type_traits>

#include "../shift_problem.h"
#include "launch.h"

namespace s2mlp {
namespace {

constexpr int kMaxGroups = 64;   // per launch; a table with more groups takes several launches
constexpr int kMaxLeading = 62;  // axes of size > 1 that a 64-bit element count can have

template <typename Index>
struct KernelAxis {
  Index size;
  Index in_stride;
  Index out_stride;
};

template <typename Index>
struct KernelGroup {
  Index channel_end;
  Index dh;
  Index dw;
};

// Sizes, strides and channel numbers are in vectors along the channel axis.
template <typename Index>
struct KernelProblem {
  KernelAxis<Index> leading[kMaxLeading];
  int leading_count;
  KernelAxis<Index> height;
  KernelAxis<Index> width;
  KernelAxis<Index> channel;  // size: channels covered by this launch
  Index first_channel;
  KernelGroup<Index> groups[kMaxGroups];
  PaddingMode mode;
  int64_t work;
};

// Where a thread's element lies: its map (leading offsets), position and group.
template <typename Index>
struct Place {
  Index in_offset;   // of the map and the channel
  Index out_offset;  // of the element
  Index h;
  Index w;
  int group;
};

template <typename Index, bool kChannelsInnermost>
__device__ __forceinline__ Place<Index> locate(const KernelProblem<Index>& p, Index i) {
  Index c;
  Place<Index> place;
  if (kChannelsInnermost) {
    c = i % p.channel.size;
    i /= p.channel.size;
    place.w = i % p.width.size;
    i /= p.width.size;
    place.h = i % p.height.size;
    i /= p.height.size;
  } else {
    place.w = i % p.width.size;
    i /= p.width.size;
    place.h = i % p.height.size;
    i /= p.height.size;
    c = i % p.channel.size;
    i /= p.channel.size;
  }
  c += p.first_channel;
  place.group = 0;
  while (c >= p.groups[place.group].channel_end) {
    ++place.group;
  }
  place.in_offset = c * p.channel.in_stride;
  place.out_offset = c * p.channel.out_stride + place.h * p.height.out_stride + place.w * p.width.out_stride;
  for (int d = p.leading_count - 1; d >= 0; --d) {
    const Index position = d > 0 ? i % p.leading[d].size : i;
    i /= p.leading[d].size;
    place.in_offset += position * p.leading[d].in_stride;
    place.out_offset += position * p.leading[d].out_stride;
  }
  return place;
}

template <typename Vector, typename Index, bool kChannelsInnermost>
__global__ void __launch_bounds__(kBlockThreads)
    shift_forward_kernel(const Vector* __restrict__ in, Vector* __restrict__ out, const KernelProblem<Index> p) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < p.work; i += stride) {
    const Place<Index> place = locate<Index, kChannelsInnermost>(p, static_cast<Index>(i));
    const KernelGroup<Index> group = p.groups[place.group];
    const Index h = source_index(place.h, group.dh, p.height.size, p.mode);
    const Index w = source_index(place.w, group.dw, p.width.size, p.mode);
    Vector value{};
    if (h >= 0 && w >= 0) {
      value = in[place.in_offset + h * p.height.in_stride + w * p.width.in_stride];
    }
    out[place.out_offset] = value;
  }
}

template <typename T>
using accumulator_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <typename T, int kVector>
struct alignas(sizeof(T) * kVector) VectorOf {
  T values[kVector];
};

// Here `in` is the gradient of the shift's output and `out` that of its input.
template <typename T, int kVector, typename Index, bool kChannelsInnermost>
__global__ void __launch_bounds__(kBlockThreads) shift_adjoint_kernel(
    const VectorOf<T, kVector>* __restrict__ in,
    VectorOf<T, kVector>* __restrict__ out,
    const KernelProblem<Index> p) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < p.work; i += stride) {
    const Place<Index> place = locate<Index, kChannelsInnermost>(p, static_cast<Index>(i));
    const KernelGroup<Index> group = p.groups[place.group];
    const Range<Index> rows = reader_range(place.h, group.dh, p.height.size, p.mode);
    const Range<Index> columns = reader_range(place.w, group.dw, p.width.size, p.mode);
    accumulator_t<T> sums[kVector] = {};
#pragma unroll 1
    for (Index h = rows.begin; h < rows.end; ++h) {
#pragma unroll 1
      for (Index w = columns.begin; w < columns.end; ++w) {
        const VectorOf<T, kVector> grad = in[place.in_offset + h * p.height.in_stride + w * p.width.in_stride];
#pragma unroll
        for (int v = 0; v < kVector; ++v) {
          sums[v] += static_cast<accumulator_t<T>>(grad.values[v]);
        }
      }
    }
    VectorOf<T, kVector> result;
#pragma unroll
    for (int v = 0; v < kVector; ++v) {
      result.values[v] = static_cast<T>(sums[v]);
    }
    out[place.out_offset] = result;
  }
}

// The largest power of two of channels that can move at once: every group border, every stride and
// both base addresses are multiples of it, and it is at most 16 bytes.
int vector_channels(const ShiftProblem& p, const void* in, const void* out, int64_t element_size) {
  if (!p.channels_innermost() || p.channel.in_stride != 1 || p.channel.out_stride != 1) {
    return 1;
  }
  int64_t bits = 16 / element_size;
  for (const ShiftGroup& group : p.groups) {
    bits |= group.channel_end;
  }
  const auto add_axis = [&](const Axis& axis) {
    if (axis.size > 1) {
      bits |= axis.in_stride | axis.out_stride;
    }
  };
  add_axis(p.height);
  add_axis(p.width);
  for (const Axis& axis : p.leading) {
    add_axis(axis);
  }
  const int64_t addresses = static_cast<int64_t>(reinterpret_cast<uintptr_t>(in) | reinterpret_cast<uintptr_t>(out));
  bits |= addresses / element_size;
  return static_cast<int>(bits & -bits);
}

// Whether every offset and count of this call fits in 32 bits.
bool fits_32_bits(const ShiftProblem& p) {
  int64_t in_extent = 0;
  int64_t out_extent = 0;
  const auto add_axis = [&](const Axis& axis) {
    in_extent += (axis.size - 1) * axis.in_stride;
    out_extent += (axis.size - 1) * axis.out_stride;
  };
  add_axis(p.height);
  add_axis(p.width);
  add_axis(p.channel);
  for (const Axis& axis : p.leading) {
    add_axis(axis);
  }
  const int64_t count = p.leading_size * p.height.size * p.width.size * p.channel.size;
  // An offset can be as large as its axis, so i + offset needs one more bit than the axis itself.
  const int64_t limit = std::numeric_limits<int32_t>::max() / 2;
  return std::max({in_extent, out_extent, count, p.height.size, p.width.size}) <= limit;
}

template <typename Index>
KernelAxis<Index> kernel_axis(const Axis& axis, int vector) {
  return {static_cast<Index>(axis.size), static_cast<Index>(axis.in_stride / vector),
          static_cast<Index>(axis.out_stride / vector)};
}

// launch(problem) for each slice of the group table, at most kMaxGroups groups at a time.
template <typename Index, typename Launch>
void for_each_table(const ShiftProblem& p, int vector, const Launch& launch) {
  KernelProblem<Index> kernel;
  kernel.leading_count = static_cast<int>(p.leading.size());
  for (int d = 0; d < kernel.leading_count; ++d) {
    kernel.leading[d] = kernel_axis<Index>(p.leading[d], vector);
  }
  kernel.height = kernel_axis<Index>(p.height, vector);
  kernel.width = kernel_axis<Index>(p.width, vector);
  kernel.channel = {0, 1, 1};
  if (vector == 1) {
    kernel.channel = kernel_axis<Index>(p.channel, 1);
  }
  kernel.mode = p.mode;
  const int groups = static_cast<int>(p.groups.size());
  for (int first = 0; first < groups; first += kMaxGroups) {
    const int count = std::min(kMaxGroups, groups - first);
    for (int g = 0; g < count; ++g) {
      const ShiftGroup& group = p.groups[first + g];
      kernel.groups[g] = {static_cast<Index>(group.channel_end / vector), static_cast<Index>(group.dh),
                          static_cast<Index>(group.dw)};
    }
    const int64_t channel_begin = p.groups[first].channel_begin;
    const int64_t channels = (p.groups[first + count - 1].channel_end - channel_begin) / vector;
    kernel.first_channel = static_cast<Index>(channel_begin / vector);
    kernel.channel.size = static_cast<Index>(channels);
    kernel.work = p.leading_size * p.height.size * p.width.size * channels;
    launch(kernel);
  }
}

template <typename Vector, bool kChannelsInnermost>
void launch_forward(const ShiftProblem& p, const void* in, void* out, int vector, cudaStream_t stream) {
  const auto launch = [&](const auto& kernel_problem) {
    using Index = decltype(kernel_problem.first_channel);
    S2MLP_LAUNCH((shift_forward_kernel<Vector, Index, kChannelsInnermost>),
                 grid_blocks(kernel_problem.work), kBlockThreads, stream, static_cast<const Vector*>(in),
                 static_cast<Vector*>(out), kernel_problem);
  };
  if (fits_32_bits(p)) {
    for_each_table<int32_t>(p, vector, launch);
  } else {
    for_each_table<int64_t>(p, vector, launch);
  }
}

template <typename T, int kVector, bool kChannelsInnermost>
void launch_adjoint(const ShiftProblem& p, const void* in, void* out, cudaStream_t stream) {
  using Vector = VectorOf<T, kVector>;
  const auto launch = [&](const auto& kernel_problem) {
    using Index = decltype(kernel_problem.first_channel);
    S2MLP_LAUNCH((shift_adjoint_kernel<T, kVector, Index, kChannelsInnermost>),
                 grid_blocks(kernel_problem.work), kBlockThreads, stream, static_cast<const Vector*>(in),
                 static_cast<Vector*>(out), kernel_problem);
  };
  if (fits_32_bits(p)) {
    for_each_table<int32_t>(p, kVector, launch);
  } else {
    for_each_table<int64_t>(p, kVector, launch);
  }
}

template <bool kChannelsInnermost>
void forward_by_bytes(
    const ShiftProblem& p, const void* in, void* out, int vector, int64_t bytes, cudaStream_t stream) {
  switch (bytes) {
    case 1:
      return launch_forward<uint8_t, kChannelsInnermost>(p, in, out, vector, stream);
    case 2:
      return launch_forward<uint16_t, kChannelsInnermost>(p, in, out, vector, stream);
    case 4:
      return launch_forward<uint32_t, kChannelsInnermost>(p, in, out, vector, stream);
    case 8:
      return launch_forward<uint2, kChannelsInnermost>(p, in, out, vector, stream);
    default:
      return launch_forward<uint4, kChannelsInnermost>(p, in, out, vector, stream);
  }
}

template <typename T>
void adjoint_by_layout(const ShiftProblem& p, const Tensor& in, const Tensor& out, cudaStream_t stream) {
  constexpr int kFull = 16 / sizeof(T);
  const void* from = in.const_data_ptr();
  void* to = out.mutable_data_ptr();
  if (!p.channels_innermost()) {
    launch_adjoint<T, 1, false>(p, from, to, stream);
  } else if (vector_channels(p, from, to, sizeof(T)) == kFull) {
    launch_adjoint<T, kFull, true>(p, from, to, stream);
  } else {
    launch_adjoint<T, 1, true>(p, from, to, stream);
  }
}

Tensor spatial_shift(
    const Tensor& x,
    IntHeaderOnlyArrayRef offsets,
    std::optional<IntHeaderOnlyArrayRef> group_sizes,
    std::string_view padding_mode,
    std::string_view data_format) {
  check_forward_dtype(x);
  Tensor out = torch::stable::empty_like(x);
  const ShiftProblem problem = make_problem(x, out, offsets, group_sizes, padding_mode, data_format);
  if (x.numel() == 0) {
    return out;
  }
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const cudaStream_t stream = current_stream(x);
  const void* from = x.const_data_ptr();
  void* to = out.mutable_data_ptr();
  const int64_t element_size = static_cast<int64_t>(x.element_size());
  const int vector = vector_channels(problem, from, to, element_size);
  if (problem.channels_innermost()) {
    forward_by_bytes<true>(problem, from, to, vector, vector * element_size, stream);
  } else {
    forward_by_bytes<false>(problem, from, to, vector, element_size, stream);
  }
  return out;
}

Tensor spatial_shift_backward(
    const Tensor& grad,
    IntHeaderOnlyArrayRef offsets,
    std::optional<IntHeaderOnlyArrayRef> group_sizes,
    std::string_view padding_mode,
    std::string_view data_format) {
  check_backward_dtype(grad);
  Tensor out = torch::stable::empty_like(grad);
  const ShiftProblem problem = make_problem(grad, out, offsets, group_sizes, padding_mode, data_format);
  if (grad.numel() == 0) {
    return out;
  }
  const torch::stable::accelerator::DeviceGuard guard(grad.get_device_index());
  const cudaStream_t stream = current_stream(grad);
  switch (grad.scalar_type()) {
    case ScalarType::Double:
      adjoint_by_layout<double>(problem, grad, out, stream);
      break;
    case ScalarType::Float:
      adjoint_by_layout<float>(problem, grad, out, stream);
      break;
    case ScalarType::Half:
      adjoint_by_layout<torch::headeronly::Half>(problem, grad, out, stream);
      break;
    default:
      adjoint_by_layout<torch::headeronly::BFloat16>(problem, grad, out, stream);
  }
  return out;
}

}  // namespace
}  // namespace s2mlp

STABLE_TORCH_LIBRARY_IMPL(s2mlp_cuda, CUDA, m) {
  m.impl("spatial_shift", TORCH_BOX(&s2mlp::spatial_shift));
  m.impl("spatial_shift_backward", TORCH_BOX(&s2mlp::spatial_shift_backward));
}
