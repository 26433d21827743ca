// Converts the arguments of a branch op to a BranchProblem and to tensors with the layout that the kernels require.
#pragma once

#include <algorithm>

#include "accumulator.h"
#include "branch_problem.h"
#include "shift_arguments.h"

namespace s2mlp {

// The dtype of sums and weights: float64 for float64, float32 otherwise.
inline ScalarType accumulator_dtype(ScalarType dtype) {
  return dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// The stride of the leading axes of x (all but the last `inner`) merged into one, or -1 if they cannot be merged.
inline int64_t merged_stride(const Tensor& x, int64_t inner) {
  int64_t stride = 0;
  int64_t next = -1;  // the stride that the axis to the left must have
  for (int64_t d = x.dim() - inner - 1; d >= 0; --d) {
    if (x.size(d) == 1) {
      continue;
    }
    if (next == -1) {
      stride = x.stride(d);
    } else if (x.stride(d) != next) {
      return -1;
    }
    next = x.stride(d) * x.size(d);
  }
  return stride;
}

// x itself if its channels are contiguous and its leading axes can be merged, else a contiguous copy.
inline Tensor readable_map(const Tensor& x) {
  const bool contiguous_channels = x.size(-1) == 1 || x.stride(-1) == 1;
  return contiguous_channels && merged_stride(x, 3) >= 0 ? x : allocated([&] { return torch::stable::contiguous(x); });
}

inline MapStrides map_strides(const Tensor& x) { return {merged_stride(x, 3), x.stride(x.dim() - 3), x.stride(x.dim() - 2)}; }

// Per-image values (sums or weights) with `inner` dimensions per image: x itself if they are contiguous within an image and the
// leading axes can be merged (any common stride, including zero), else a contiguous copy.
inline Tensor readable_channel_values(const Tensor& x, int64_t inner) {
  int64_t dense = 1;
  bool is_dense = true;
  for (int64_t d = x.dim() - 1; d >= x.dim() - inner; --d) {
    is_dense = is_dense && (x.size(d) == 1 || x.stride(d) == dense);
    dense *= x.size(d);
  }
  return is_dense && merged_stride(x, inner) >= 0 ? x : allocated([&] { return torch::stable::contiguous(x); });
}

// The BranchProblem of an expanded map with these sizes.
inline BranchProblem make_branch_problem(
    int64_t images,
    int64_t height,
    int64_t width,
    int64_t expanded_channels,
    int64_t branches,
    IntHeaderOnlyArrayRef offsets,
    IntHeaderOnlyArrayRef group_sizes,
    std::string_view padding_mode) {
  STD_TORCH_CHECK(
      branches > 0 && expanded_channels % branches == 0, "cannot split ", expanded_channels, " channels into ", branches,
      " branches of equal size");
  BranchProblem problem;
  problem.images = images;
  problem.height = height;
  problem.width = width;
  problem.branches = branches;
  problem.channels = expanded_channels / branches;
  problem.mode = parse_padding_mode(padding_mode);
  problem.groups = make_groups(offsets, group_sizes, expanded_channels, height, width, problem.mode);
  for (const ShiftGroup& group : problem.groups) {
    STD_TORCH_CHECK(
        group.channel_begin / problem.channels == (group.channel_end - 1) / problem.channels, "group_sizes: channels ",
        group.channel_begin, " to ", group.channel_end - 1, " form one group, but belong to different branches");
  }
  return problem;
}

// The number of channels of an expanded map.
inline int64_t expanded_channels_of(int64_t branches, int64_t channels) {
  int64_t product = 0;
  STD_TORCH_CHECK(
      branches > 0 && !__builtin_mul_overflow(branches, channels, &product), "cannot make a map of ", branches, " branches of ",
      channels, " channels");
  return product;
}

// The product of the sizes of all but the last `inner` dimensions, or 0 if x has no elements.
inline int64_t leading_size(const Tensor& x, int64_t inner) {
  int64_t size = x.numel() == 0 ? 0 : 1;  // without elements, the product of the others may overflow
  for (int64_t d = 0; size != 0 && d < x.dim() - inner; ++d) {
    size *= x.size(d);
  }
  return size;
}

inline void check_map_rank(const Tensor& x, const char* name) {
  STD_TORCH_CHECK(x.dim() >= 3, name, " must have at least 3 dimensions, (..., H, W, C), got shape ", shape_of(x));
}

// Checks the dtype and the storage of per-image values of a map.
inline void check_accumulator(const Tensor& values, const char* name, ScalarType map_dtype) {
  STD_TORCH_CHECK(values.scalar_type() == accumulator_dtype(map_dtype), name, " must be float32, or float64 for a float64 map");
  check_storage(values, name);
}

// Checks per-image values of the map `x`: its leading sizes, then the inner sizes, which `layout` names; accumulator dtype; same
// device.
inline void check_channel_values(
    const Tensor& values,
    const char* name,
    const Tensor& x,
    const char* x_name,
    const char* layout,
    std::initializer_list<int64_t> inner) {
  check_same_device(values, name, x, x_name);
  std::vector<int64_t> expected(x.sizes().begin(), x.sizes().end() - 3);
  expected.insert(expected.end(), inner);
  STD_TORCH_CHECK(
      std::equal(expected.begin(), expected.end(), values.sizes().begin(), values.sizes().end()), name, " must have shape ", layout,
      " = ", shape_of(expected), ", got ", shape_of(values));
  check_accumulator(values, name, x.scalar_type());
}

}  // namespace s2mlp
