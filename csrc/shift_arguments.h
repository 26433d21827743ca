// From the arguments of an op to a ShiftProblem: everything that PyTorch hands over is checked here, for the CPU and the
// CUDA kernels alike.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <string_view>
#include <vector>

#include "shift_problem.h"

namespace s2mlp {

using torch::headeronly::IntHeaderOnlyArrayRef;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// empty_like(x). Dense maps, which is nearly all of them, do without the dispatcher: about a microsecond of a call's eight.
inline Tensor new_map_like(const Tensor& x) {
  if (!x.is_contiguous()) {
    return torch::stable::empty_like(x);
  }
  int32_t dtype = 0;
  int32_t device_type = 0;
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(x.get(), &dtype));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(x.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      x.dim(), x.sizes().data(), x.strides().data(), dtype, device_type, x.get_device_index(), &handle));
  return Tensor(handle);
}

inline PaddingMode parse_padding_mode(std::string_view name) {
  if (name == "replicate") {
    return PaddingMode::kReplicate;
  }
  if (name == "zeros") {
    return PaddingMode::kZeros;
  }
  STD_TORCH_CHECK(name == "circular", "padding_mode must be 'replicate', 'zeros' or 'circular', got '", name, "'");
  return PaddingMode::kCircular;
}

inline std::vector<ShiftGroup> make_groups(
    IntHeaderOnlyArrayRef offsets,
    const std::optional<IntHeaderOnlyArrayRef>& group_sizes,
    int64_t channels,
    int64_t height,
    int64_t width,
    PaddingMode mode) {
  const int64_t count = static_cast<int64_t>(offsets.size()) / 2;
  STD_TORCH_CHECK(
      count > 0 && offsets.size() % 2 == 0, "offsets must be a flat list dh0, dw0, dh1, dw1, ..., got ",
      offsets.size(), " numbers");
  STD_TORCH_CHECK(
      group_sizes.has_value() || count <= channels || channels == 0, "cannot cut ", channels, " channels into ",
      count, " groups");
  STD_TORCH_CHECK(
      !group_sizes.has_value() || static_cast<int64_t>(group_sizes->size()) == count, "group_sizes has ",
      group_sizes.has_value() ? group_sizes->size() : 0, " entries for ", count, " offsets");
  std::vector<ShiftGroup> groups;
  groups.reserve(count);
  int64_t begin = 0;
  for (int64_t g = 0; g < count; ++g) {
    STD_TORCH_CHECK(
        !group_sizes.has_value() || ((*group_sizes)[g] >= 0 && (*group_sizes)[g] <= channels - begin),
        "group_sizes must be non-negative and sum to the ", channels, " channels");
    const int64_t end = group_sizes.has_value() ? begin + (*group_sizes)[g] : even_group_begin(g + 1, count, channels);
    if (end > begin) {
      groups.push_back(
          {begin, end, reduce_offset(offsets[2 * g], height, mode), reduce_offset(offsets[2 * g + 1], width, mode)});
    }
    begin = end;
  }
  STD_TORCH_CHECK(begin == channels, "group_sizes sum to ", begin, ", but there are ", channels, " channels");
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
  STD_TORCH_CHECK(rank >= 3, "expected at least 3 dimensions, got ", rank);
  STD_TORCH_CHECK(
      data_format == "channels_last" || data_format == "channels_first",
      "data_format must be 'channels_last' or 'channels_first', got '", data_format, "'");
  const auto axis = [&](int64_t d) { return Axis{in.size(d), in.stride(d), out.stride(d)}; };
  const bool last = data_format == "channels_last";

  ShiftProblem problem;
  problem.height = axis(last ? rank - 3 : rank - 2);
  problem.width = axis(last ? rank - 2 : rank - 1);
  problem.channel = axis(last ? rank - 1 : rank - 3);
  problem.mode = parse_padding_mode(padding_mode);
  problem.groups = make_groups(
      offsets, group_sizes, problem.channel.size, problem.height.size, problem.width.size, problem.mode);
  problem.leading_size = 1;
  for (int64_t d = 0; d < rank - 3; ++d) {
    problem.leading_size *= in.size(d);
    add_leading_axis(problem, axis(d));
  }
  return problem;
}

inline void check_forward_dtype(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Bool:
    case ScalarType::Byte:
    case ScalarType::Char:
    case ScalarType::Short:
    case ScalarType::Int:
    case ScalarType::Long:
    case ScalarType::Half:
    case ScalarType::BFloat16:
    case ScalarType::Float:
    case ScalarType::Double:
      return;
    default:
      STD_TORCH_CHECK(false, "unsupported dtype: spatial_shift takes real floating-point, integer and bool tensors");
  }
}

inline void check_floating_dtype(const Tensor& x, const char* name) {
  const ScalarType dtype = x.scalar_type();
  STD_TORCH_CHECK(
      dtype == ScalarType::Double || dtype == ScalarType::Float || dtype == ScalarType::Half ||
          dtype == ScalarType::BFloat16,
      "unsupported dtype: ", name, " must be float64, float32, float16 or bfloat16");
}

// The other map of a backward op: same shape, dtype and device.
inline void check_like(const Tensor& x, const Tensor& grad) {
  STD_TORCH_CHECK(
      x.scalar_type() == grad.scalar_type() && x.device() == grad.device(),
      "x and grad must have one dtype and one device");
  bool same = x.dim() == grad.dim();
  for (int64_t d = 0; same && d < x.dim(); ++d) {
    same = x.size(d) == grad.size(d);
  }
  STD_TORCH_CHECK(same, "x and grad must have one shape");
}

// x itself where it lies in memory as `out` does, else a copy of it that does; `out` is empty_like(x).
inline Tensor with_strides_of(const Tensor& x, const Tensor& out) {
  for (int64_t d = 0; d < x.dim(); ++d) {
    if (x.size(d) > 1 && x.stride(d) != out.stride(d)) {
      Tensor copy = torch::stable::empty_like(x);
      torch::stable::copy_(copy, x);
      return copy;
    }
  }
  return x;
}

// Whether GELU's tanh approximation is meant.
inline bool parse_approximate(std::string_view name) {
  STD_TORCH_CHECK(name == "none" || name == "tanh", "approximate must be 'none' or 'tanh', got '", name, "'");
  return name == "tanh";
}

}  // namespace s2mlp
