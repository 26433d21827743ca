// spatial_shift and its adjoint on a GPU: any strides, 64-bit safe, gathers only (no atomics, no barriers).
//
// Three kernels, chosen by launch_plan.h. In each, a thread first issues the loads of all its items, then looks after the
// few elements near a border that those loads cannot serve, then stores. The forward pass only moves bits, so it is
// compiled per access size, not per dtype.
#include "../accumulator.h"
#include "../shift_ops.h"
#include "launch.h"
#include "strided_kernel.h"

namespace s2mlp {
namespace {

// ---- Dense planes ----------------------------------------------------------------------------------------------------

// One element by the definition.
template <typename T, bool kAdjoint, typename Index>
__device__ T plane_element(const T* plane, const PlaneProblem<Index>& p, Index h, Index w, const KernelGroup<Index>& group) {
  if constexpr (kAdjoint) {
    const Sources<Index> rows = readers(h, group.dh, p.height, p.mode);
    const Sources<Index> columns = readers(w, group.dw, p.width, p.mode);
    accumulator_t<T> sum = 0;
#pragma unroll 1
    for (Index i = 0; i < rows.size(); ++i) {
#pragma unroll 1
      for (Index j = 0; j < columns.size(); ++j) {
        sum += static_cast<accumulator_t<T>>(plane[rows[i] * p.width + columns[j]]);
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
  return {
      __funnelshift_r(words[0], words[1], bits), __funnelshift_r(words[1], words[2], bits),
      __funnelshift_r(words[2], words[3], bits), __funnelshift_r(words[3], words[4], bits)};
}

// Bit v: element v of the item that begins at (h, w) does not take the one element at the distance of its group.
template <int kVector, bool kAdjoint, typename Index>
__device__ uint32_t border_elements(const PlaneProblem<Index>& p, const PlanePlace<Index>& place) {
  const Range<Index> rows = direct_range<kAdjoint>(place.group.dh, p.height, p.mode);
  const Range<Index> columns = direct_range<kAdjoint>(place.group.dw, p.width, p.mode);
  uint32_t border = 0;
  Index h = place.h;
  Index w = place.w;
#pragma unroll
  for (int v = 0; v < kVector; ++v) {
    border |= static_cast<uint32_t>(!(rows.contains(h) && columns.contains(w))) << v;
    if (++w == p.width) {
      w = 0;
      ++h;
    }
  }
  return border;
}

// An item near a border: its elements as loaded, and those of `border` by the definition.
template <typename T, bool kAdjoint, typename Index>
__device__ uint4
patch_border(const T* plane, const PlaneProblem<Index>& p, const PlanePlace<Index>& place, const uint4& shifted, uint32_t border) {
  constexpr int kVector = kVectorBytes / sizeof(T);
  VectorOf<T, kVector> values;
  memcpy(&values, &shifted, sizeof(values));
  while (border != 0) {
    const int v = __ffs(static_cast<int>(border)) - 1;
    border &= border - 1;
    Index h = place.h;
    Index w = place.w + v;
    while (w >= p.width) {
      w -= p.width;
      ++h;
    }
    const T value = plane_element<T, kAdjoint>(plane, p, h, w, place.group);
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      if (i == v) {
        values.values[i] = value;
      }
    }
  }
  uint4 patched;
  memcpy(&patched, &values, sizeof(patched));
  return patched;
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
      if (loaded[u]) {
        const uint4 shifted = shift_bytes(low[u], high[u], bytes[u]);
        const uint32_t border = border_elements<kVector, kAdjoint>(p, places[u]);
        *reinterpret_cast<uint4*>(out + first) = patch_border<T, kAdjoint>(in + places[u].in_offset, p, places[u], shifted, border);
        continue;
      }
#pragma unroll 1
      for (int v = 0; v < kVector && first + v < p.elements; ++v) {
        const PlanePlace<Index> single = locate(p, static_cast<Index>(first + v));
        out[first + v] = plane_element<T, kAdjoint>(in + single.in_offset, p, single.h, single.w, single.group);
      }
    }
  }
}

// ---- Launch ----------------------------------------------------------------------------------------------------------

template <typename T, bool kAdjoint, typename Index>
void launch_planes(const Call& call) {
  const PlaneProblem<Index> problem = plane_problem<Index>(
      call.problem, call.plan.vector, call.misalignment.in / static_cast<int>(sizeof(T)), extent(call.problem, &Axis::in_stride));
  S2MLP_LAUNCH(
      (plane_kernel<T, Index, kAdjoint>), grid_blocks(problem.items, call.plan.items_per_thread, call.context.limits()),
      kBlockThreads, call.context.stream(), static_cast<const T*>(call.in), static_cast<T*>(call.out), problem);
}

template <typename T, bool kAdjoint>
void launch_width_innermost(const Call& call) {
  const bool planes = call.plan.kernel == ShiftKernel::kPlaneVectors;
  if (call.plan.index_64) {
    return planes ? launch_planes<T, kAdjoint, int64_t>(call) : launch_strided<T, 1, kAdjoint, int64_t>(call, Identity{});
  }
  return planes ? launch_planes<T, kAdjoint, int32_t>(call) : launch_strided<T, 1, kAdjoint, int32_t>(call, Identity{});
}

// A vector of channels is moved as one word.
template <typename Word>
void launch_forward_words(const Call& call) {
  if (call.plan.index_64) {
    launch_strided<Word, 1, false, int64_t>(call, Identity{});
  } else {
    launch_strided<Word, 1, false, int32_t>(call, Identity{});
  }
}

template <typename T>
void launch_adjoint_vectors(const Call& call) {
  constexpr int kFull = kVectorBytes / sizeof(T);
  if (call.plan.index_64) {
    with_vector<kFull, 1>(
        call.plan.vector, [&](auto vector) { launch_strided<T, decltype(vector)::value, true, int64_t>(call, Identity{}); });
  } else {
    with_vector_up_to<kFull>(
        call.plan.vector, [&](auto vector) { launch_strided<T, decltype(vector)::value, true, int32_t>(call, Identity{}); });
  }
}

struct Cuda {
  static Call plan_call(const ShiftProblem& problem, const Tensor& in, const Tensor& out) {
    const void* from = in.const_data_ptr();
    void* to = out.mutable_data_ptr();
    const Misalignment misalignment = {misalignment_of(from), misalignment_of(to)};
    const LaunchPlan plan = plan_launch(problem, static_cast<int64_t>(in.element_size()), misalignment);
    return {problem, from, to, nullptr, misalignment, plan, LaunchContext(in)};
  }

  static void spatial_shift(const ShiftProblem& problem, const Tensor& x, const Tensor& out) {
    const Call call = plan_call(problem, x, out);
    if (call.plan.kernel == ShiftKernel::kChannelVectors) {
      const int64_t bytes = call.plan.vector * static_cast<int64_t>(x.element_size());
      with_word_type(TypeList<uint8_t, uint16_t, uint32_t, uint64_t, uint4>{}, bytes, [&](auto word) {
        launch_forward_words<decltype(word)>(call);
      });
    } else {
      with_word_type(x, [&](auto word) { launch_width_innermost<decltype(word), false>(call); });
    }
  }

  static void spatial_shift_backward(const ShiftProblem& problem, const Tensor& grad, const Tensor& out) {
    const Call call = plan_call(problem, grad, out);
    with_floating_type(grad, [&](auto element) {
      using T = decltype(element);
      if (call.plan.kernel == ShiftKernel::kChannelVectors) {
        launch_adjoint_vectors<T>(call);
      } else {
        launch_width_innermost<T, true>(call);
      }
    });
  }
};

}  // namespace
}  // namespace s2mlp

STABLE_TORCH_LIBRARY_IMPL(S2MLP_LIBRARY, S2MLP_DISPATCH_KEY, m) { S2MLP_IMPLEMENT_SPATIAL_SHIFT(m, s2mlp::Cuda); }
