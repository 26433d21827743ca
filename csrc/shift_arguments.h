// Checks the arguments of an op and converts them to a ShiftProblem, for both CPU and CUDA kernels.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "allocation.h"
#include "dtypes.h"
#include "shift_problem.h"

namespace s2mlp {

using torch::headeronly::IntHeaderOnlyArrayRef;

// Integers as Python prints a list.
inline std::string in_brackets(IntHeaderOnlyArrayRef integers) {
  std::string text;
  for (const int64_t integer : integers) {
    text += (text.empty() ? "" : ", ") + std::to_string(integer);
  }
  return "[" + text + "]";
}

// A shape as Python prints it.
inline std::string shape_of(const std::vector<int64_t>& sizes) {
  std::string text;
  for (const int64_t size : sizes) {
    text += (text.empty() ? "" : ", ") + std::to_string(size);
  }
  return "(" + text + (sizes.size() == 1 ? ",)" : ")");
}

inline std::string shape_of(const Tensor& x) { return shape_of({x.sizes().begin(), x.sizes().end()}); }

// A device as Python prints it. Only CPU and CUDA tensors reach the kernels, and at least one of a call is a tensor of the backend.
inline std::string device_of(const Tensor& x) {
  return x.is_cpu() ? "cpu" : (x.is_cuda() ? "cuda:" + std::to_string(x.get_device_index()) : "another device");
}

// Checks that a tensor is on the device of another, which is named as well.
inline void check_same_device(const Tensor& x, const char* name, const Tensor& other, const char* other_name) {
  STD_TORCH_CHECK(
      x.device() == other.device(), "Expected all tensors to be on the same device, but got ", name, " on ", device_of(x), " and ",
      other_name, " on ", device_of(other));
}

// Checks that the storage, which may have been freed or resized, has every element.
inline void check_storage(const Tensor& x, const char* name) {
  if (x.numel() == 0) {
    return;
  }
  int64_t last = x.storage_offset();
  for (int64_t d = 0; d < x.dim(); ++d) {
    last += (x.size(d) - 1) * x.stride(d);
  }
  const int64_t needed = (last + 1) * static_cast<int64_t>(x.element_size());
  int64_t bytes = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(x.get(), &bytes));
  STD_TORCH_CHECK(
      needed <= bytes, name, " has shape ", shape_of(x), ", which takes a storage of ", needed, " bytes, but its storage has ",
      bytes, " bytes: it was resized or freed");
}

inline PaddingMode parse_padding_mode(std::string_view name) {
  for (const NamedPaddingMode& known : kPaddingModes) {
    if (name == known.name) {
      return known.mode;
    }
  }
  std::string names;
  for (const NamedPaddingMode& known : kPaddingModes) {
    names += (names.empty() ? "'" : ", '") + std::string(known.name) + "'";
  }
  STD_TORCH_CHECK(false, "padding_mode must be one of ", names, ", got '", name, "'");
}

inline std::vector<ShiftGroup> make_groups(
    IntHeaderOnlyArrayRef offsets,
    const std::optional<IntHeaderOnlyArrayRef>& group_sizes,
    int64_t channels,
    int64_t height,
    int64_t width,
    PaddingMode mode) {
  constexpr int64_t kLargest = int64_t{1} << 61;  // no index arithmetic overflows
  const int64_t count = static_cast<int64_t>(offsets.size()) / 2;
  STD_TORCH_CHECK(offsets.size() > 0, "offsets is empty: give at least one (dh, dw) pair");
  STD_TORCH_CHECK(
      offsets.size() % 2 == 0, "offsets must be a flat list dh0, dw0, dh1, dw1, ..., got a list of length ", offsets.size());
  STD_TORCH_CHECK(
      std::max({height, width, channels}) <= kLargest / count, "a map of ", height, " x ", width, " tokens of ", channels,
      " channels is too large for ", count, " groups");
  if (group_sizes.has_value()) {
    const int64_t sizes = static_cast<int64_t>(group_sizes->size());
    STD_TORCH_CHECK(sizes == count, "group_sizes has ", sizes, " entries, but there are ", count, " offsets");
    STD_TORCH_CHECK(
        std::all_of(group_sizes->begin(), group_sizes->end(), [](int64_t size) { return size >= 0; }),
        "group_sizes must not be negative, got ", in_brackets(*group_sizes));
  } else {
    STD_TORCH_CHECK(
        count <= channels || channels == 0, "cannot split ", channels, " channels into ", count,
        " groups: give at most one offset per channel");
  }
  std::vector<ShiftGroup> groups;
  groups.reserve(count);
  int64_t begin = 0;
  for (int64_t g = 0; g < count; ++g) {
    const int64_t end = group_sizes.has_value() ? begin + std::min((*group_sizes)[g], channels + 1 - begin)
                                                : even_group_begin(g + 1, count, channels);
    if (end > begin) {
      groups.push_back({begin, end, reduce_offset(offsets[2 * g], height, mode), reduce_offset(offsets[2 * g + 1], width, mode)});
    }
    begin = end;
  }
  STD_TORCH_CHECK(begin == channels, "group_sizes ", in_brackets(*group_sizes), " do not sum to the ", channels, " channels of x");
  return groups;
}

inline ShiftProblem make_problem(
    const Tensor& in,
    const Tensor& out,
    IntHeaderOnlyArrayRef offsets,
    const std::optional<IntHeaderOnlyArrayRef>& group_sizes,
    std::string_view padding_mode,
    std::string_view data_format) {
  const int64_t rank = in.dim();
  const bool last = data_format == "channels_last";
  STD_TORCH_CHECK(
      last || data_format == "channels_first", "data_format must be one of 'channels_last', 'channels_first', got '", data_format,
      "'");
  STD_TORCH_CHECK(
      rank >= 3, "x must have at least 3 dimensions, ", last ? "(..., H, W, C)" : "(..., C, H, W)", ", got shape ", shape_of(in));
  const auto axis = [&](int64_t d) { return Axis{in.size(d), in.stride(d), out.stride(d)}; };

  ShiftProblem problem;
  problem.height = axis(last ? rank - 3 : rank - 2);
  problem.width = axis(last ? rank - 2 : rank - 1);
  problem.channel = axis(last ? rank - 1 : rank - 3);
  problem.mode = parse_padding_mode(padding_mode);
  problem.groups = make_groups(offsets, group_sizes, problem.channel.size, problem.height.size, problem.width.size, problem.mode);
  std::vector<Axis> leading;
  for (int64_t d = 0; in.numel() != 0 && d < rank - 3; ++d) {  // without elements, the product of the sizes may overflow
    leading.push_back(axis(d));
  }
  add_leading_axes(problem, std::move(leading));
  return problem;
}

// Checks the dtype and the storage of a tensor that spatial_shift reads. It moves bits, so dtypes include integers and bool.
inline void check_readable(const Tensor& x, const char* name) {
  STD_TORCH_CHECK(
      is_one_of(FloatingTypes{}, x.scalar_type()) || is_one_of(IntegerTypes{}, x.scalar_type()), name,
      " must be float64, float32, float16, bfloat16, int64, int32, int16, int8, uint8 or bool");
  check_storage(x, name);
}

// Dtypes that differentiable ops support.
inline void check_floating_dtype(ScalarType dtype, const char* name) {
  STD_TORCH_CHECK(is_one_of(FloatingTypes{}, dtype), name, " must be float64, float32, float16 or bfloat16");
}

// Checks the dtype and the storage of a tensor that a differentiable op reads.
inline void check_floating(const Tensor& x, const char* name) {
  check_floating_dtype(x.scalar_type(), name);
  check_storage(x, name);
}

// Checks that x can be read with grad: same dtype and device.
inline void check_with_grad(const Tensor& x, const Tensor& grad) {
  check_same_device(x, "x", grad, "grad");
  STD_TORCH_CHECK(x.scalar_type() == grad.scalar_type(), "x and grad must have the same dtype");
  check_storage(x, "x");
}

}  // namespace s2mlp
