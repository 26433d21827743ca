// spatial_shift and its adjoint on a GPU: any strides, 64-bit safe, gathers only (no atomics, no barriers).
//
// Three kernels, chosen by launch_plan.h. In each, a thread first issues the loads of all its items, then looks after the
// few elements near a border that those loads cannot serve, then stores. The forward pass only moves bits, so it is
// compiled per access size, not per dtype.
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "../accumulator.h"
#include "../box.h"
#include "../shift_arguments.h"
#include "launch.h"
#include "strided_kernel.h"

namespace s2mlp {
namespace {

// ---- Dense planes ----------------------------------------------------------------------------------------------------

// One element by the definition.
template <typename T, bool kAdjoint, typename Index>
__device__ T plane_element(const T* plane, const PlaneProblem<Index>& p, Index h, Index w, const KernelGroup<Index>& group) {
  if constexpr (kAdjoint) {
    const Range<Index> rows = reader_range(h, group.dh, p.height, p.mode);
    const Range<Index> columns = reader_range(w, group.dw, p.width, p.mode);
    accumulator_t<T> sum = 0;
#pragma unroll 1
    for (Index i = rows.begin; i < rows.end; ++i) {
#pragma unroll 1
      for (Index j = columns.begin; j < columns.end; ++j) {
        sum += static_cast<accumulator_t<T>>(plane[i * p.width + j]);
      }
    }
    return static_cast<T>(sum);
  } else {
    const Index i = source_index(h, group.dh, p.height, p.mode);
    const Index j = source_index(w, group.dw, p.width, p.mode);
    return i >= 0 && j >= 0 ? plane[i * p.width + j] : T{};
  }
}

// 16 bytes that begin `bytes` (0 to 15) into the 32 bytes low, high.
__device__ __forceinline__ uint4 shift_bytes(const uint4& low, const uint4& high, int bytes) {
  uint32_t words[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
  if (bytes & 8) {
#pragma unroll
    for (int i = 0; i < 6; ++i) {
      words[i] = words[i + 2];
    }
  }
  if (bytes & 4) {
#pragma unroll
    for (int i = 0; i < 5; ++i) {
      words[i] = words[i + 1];
    }
  }
  const int bits = (bytes & 3) * 8;
  return {__funnelshift_r(words[0], words[1], bits), __funnelshift_r(words[1], words[2], bits),
          __funnelshift_r(words[2], words[3], bits), __funnelshift_r(words[3], words[4], bits)};
}

// An item is 16 bytes of output. In a plane, a shift by (dh, dw) is a shift of the flat index by dh * W + dw, so an item's
// inputs are 16 neighbouring bytes too, at any address: two aligned loads and a shift in registers. Elements for which
// that does not hold (near a border, or where an item reaches into the next plane) are taken one by one.
template <typename T, typename Index, bool kAdjoint>
__global__ void __launch_bounds__(kBlockThreads, kMinBlocks)
    plane_kernel(const T* __restrict__ in, T* __restrict__ out, const __grid_constant__ PlaneProblem<Index> p) {
  constexpr int kVector = kVectorBytes / sizeof(T);
  constexpr int64_t kTile = int64_t{kBlockThreads} * kPlaneItemsPerThread;
  const uint4* chunks = reinterpret_cast<const uint4*>(in - p.misalignment);
  for (int64_t tile = blockIdx.x * kTile; tile < p.items; tile += gridDim.x * kTile) {
    PlanePlace<Index> places[kPlaneItemsPerThread];
    uint4 low[kPlaneItemsPerThread];
    uint4 high[kPlaneItemsPerThread];
    int bytes[kPlaneItemsPerThread];
    bool loaded[kPlaneItemsPerThread];
#pragma unroll
    for (int u = 0; u < kPlaneItemsPerThread; ++u) {
      const int64_t item = tile + u * kBlockThreads + threadIdx.x;
      const Index first = static_cast<Index>(item < p.items ? item : p.items - 1) * kVector;
      places[u] = locate(p, first);
      const ChunkRead<Index> read = chunk_read<kVector, kAdjoint>(p, places[u], first);
      loaded[u] = read.possible;
      bytes[u] = read.rest * static_cast<int>(sizeof(T));
      low[u] = uint4{};
      high[u] = uint4{};
      if (read.possible) {
        low[u] = chunks[read.begin / kVector];
        if (read.rest != 0) {
          high[u] = chunks[read.begin / kVector + 1];
        }
      }
    }
#pragma unroll
    for (int u = 0; u < kPlaneItemsPerThread; ++u) {
      const int64_t item = tile + u * kBlockThreads + threadIdx.x;
      if (item >= p.items) {
        continue;
      }
      const Index first = static_cast<Index>(item) * kVector;
      const PlanePlace<Index>& place = places[u];
      if (!loaded[u]) {
#pragma unroll 1
        for (int v = 0; v < kVector && first + v < p.elements; ++v) {
          const PlanePlace<Index> single = locate(p, static_cast<Index>(first + v));
          out[first + v] = plane_element<T, kAdjoint>(in + single.in_offset, p, single.h, single.w, single.group);
        }
        continue;
      }
      const Range<Index> rows = plain_range(place.group.dh, p.height, p.mode, kAdjoint);
      const Range<Index> columns = plain_range(place.group.dw, p.width, p.mode, kAdjoint);
      uint32_t border = 0;  // bit v: element v is not simply shifted
      Index h = place.h;
      Index w = place.w;
#pragma unroll
      for (int v = 0; v < kVector; ++v) {
        const bool plain = h >= rows.begin && h < rows.end && w >= columns.begin && w < columns.end;
        border |= static_cast<uint32_t>(!plain) << v;
        if (++w == p.width) {
          w = 0;
          ++h;
        }
      }
      const uint4 shifted = shift_bytes(low[u], high[u], bytes[u]);
      VectorOf<T, kVector> values;
      memcpy(&values, &shifted, sizeof(values));
      while (border != 0) {
        const int v = __ffs(static_cast<int>(border)) - 1;
        border &= border - 1;
        h = place.h;
        w = place.w + v;
        while (w >= p.width) {
          w -= p.width;
          ++h;
        }
        const T value = plane_element<T, kAdjoint>(in + place.in_offset, p, h, w, place.group);
#pragma unroll
        for (int i = 0; i < kVector; ++i) {
          if (i == v) {
            values.values[i] = value;
          }
        }
      }
      *reinterpret_cast<VectorOf<T, kVector>*>(out + first) = values;
    }
  }
}

// ---- Launch ----------------------------------------------------------------------------------------------------------

template <typename T, bool kAdjoint, typename Index>
void launch_planes(const Call& call) {
  const PlaneProblem<Index> problem =
      plane_problem<Index>(call.problem, call.plan.vector, call.misalignment.in / static_cast<int>(sizeof(T)),
                           extent(call.problem, &Axis::in_stride));
  S2MLP_LAUNCH((plane_kernel<T, Index, kAdjoint>),
               grid_blocks(problem.items, call.plan.items_per_thread, call.context.limits()), kBlockThreads,
               call.context.stream(), static_cast<const T*>(call.in), static_cast<T*>(call.out), problem);
}

template <typename T, bool kAdjoint>
void launch_width_innermost(const Call& call) {
  const bool planes = call.plan.kernel == ShiftKernel::kPlaneVectors;
  if (call.plan.wide) {
    return planes ? launch_planes<T, kAdjoint, int64_t>(call) : launch_strided<T, 1, kAdjoint, int64_t>(call);
  }
  return planes ? launch_planes<T, kAdjoint, int32_t>(call) : launch_strided<T, 1, kAdjoint, int32_t>(call);
}

template <typename T>
void launch_forward_word(const Call& call) {
  if (call.plan.wide) {
    launch_strided<T, 1, false, int64_t>(call);
  } else {
    launch_strided<T, 1, false, int32_t>(call);
  }
}

void launch_forward(const Call& call, int64_t element_size) {
  if (call.plan.kernel == ShiftKernel::kChannelVectors) {
    switch (call.plan.vector * element_size) {
      case 1:
        return launch_forward_word<uint8_t>(call);
      case 2:
        return launch_forward_word<uint16_t>(call);
      case 4:
        return launch_forward_word<uint32_t>(call);
      case 8:
        return launch_forward_word<uint64_t>(call);
      default:
        return launch_forward_word<uint4>(call);
    }
  }
  switch (element_size) {
    case 1:
      return launch_width_innermost<uint8_t, false>(call);
    case 2:
      return launch_width_innermost<uint16_t, false>(call);
    case 4:
      return launch_width_innermost<uint32_t, false>(call);
    default:
      return launch_width_innermost<uint64_t, false>(call);
  }
}

template <typename T>
void launch_adjoint(const Call& call) {
  constexpr int kFull = kVectorBytes / sizeof(T);
  if (call.plan.kernel != ShiftKernel::kChannelVectors) {
    return launch_width_innermost<T, true>(call);
  }
  if (call.plan.wide) {
    return call.plan.vector == kFull ? launch_strided<T, kFull, true, int64_t>(call)
                                     : launch_strided<T, 1, true, int64_t>(call);
  }
  if (call.plan.vector == kFull) {
    return launch_strided<T, kFull, true, int32_t>(call);
  }
  if constexpr (kFull >= 4) {
    if (call.plan.vector == kFull / 2) {
      return launch_strided<T, kFull / 2, true, int32_t>(call);
    }
  }
  if constexpr (kFull >= 8) {
    if (call.plan.vector == kFull / 4) {
      return launch_strided<T, kFull / 4, true, int32_t>(call);
    }
  }
  return launch_strided<T, 1, true, int32_t>(call);
}

// launch(call) for a tensor that is not empty.
template <typename Launch>
void with_call(const ShiftProblem& problem, const Tensor& in, const Tensor& out, const Launch& launch) {
  if (in.numel() == 0) {
    return;
  }
  const LaunchContext context(in);
  const void* from = in.const_data_ptr();
  void* to = out.mutable_data_ptr();
  const Misalignment misalignment = {misalignment_of(from), misalignment_of(to)};
  launch(Call{problem, from, to, misalignment,
              plan_launch(problem, static_cast<int64_t>(in.element_size()), misalignment), context});
}

Tensor spatial_shift(
    const Tensor& x,
    IntHeaderOnlyArrayRef offsets,
    std::optional<IntHeaderOnlyArrayRef> group_sizes,
    std::string_view padding_mode,
    std::string_view data_format) {
  check_forward_dtype(x);
  Tensor out = new_map_like(x);
  const ShiftProblem problem = make_problem(x, out, offsets, group_sizes, padding_mode, data_format);
  with_call(problem, x, out, [&](const Call& call) {
    launch_forward(call, static_cast<int64_t>(x.element_size()));
  });
  return out;
}

Tensor spatial_shift_backward(
    const Tensor& grad,
    IntHeaderOnlyArrayRef offsets,
    std::optional<IntHeaderOnlyArrayRef> group_sizes,
    std::string_view padding_mode,
    std::string_view data_format) {
  check_floating_dtype(grad, "grad");
  Tensor out = new_map_like(grad);
  const ShiftProblem problem = make_problem(grad, out, offsets, group_sizes, padding_mode, data_format);
  with_call(problem, grad, out, [&](const Call& call) {
    switch (grad.scalar_type()) {
      case ScalarType::Double:
        return launch_adjoint<double>(call);
      case ScalarType::Float:
        return launch_adjoint<float>(call);
      case ScalarType::Half:
        return launch_adjoint<torch::headeronly::Half>(call);
      default:
        return launch_adjoint<torch::headeronly::BFloat16>(call);
    }
  });
  return out;
}

}  // namespace
}  // namespace s2mlp

STABLE_TORCH_LIBRARY_IMPL(S2MLP_LIBRARY, S2MLP_DISPATCH_KEY, m) {
  m.impl("spatial_shift", S2MLP_BOX(&s2mlp::spatial_shift));
  m.impl("spatial_shift_backward", S2MLP_BOX(&s2mlp::spatial_shift_backward));
}
