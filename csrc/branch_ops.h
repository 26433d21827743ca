// The branch ops except their kernels: argument checks and output allocation. A Backend has the kernels for one device type.
//
// With x_k branch k of the expanded map x, S_k its shift and S_k^T the adjoint, over the tokens of one image:
//
//     pool               p[c]      = sum over k and tokens of S_k x_k
//     pool_backward      gx_k      = S_k^T 1 * gp[c]                       1: a map of ones
//     combine            y         = sum over k of w[k, c] * S_k x_k
//     combine_backward   gx_k      = w[k, c] * S_k^T g  +  S_k^T 1 * gp[c]   the second term only if gp is given
//     ..._weights        gw[k, c]  = sum over tokens of g * S_k x_k
//
// Sums and weights are float32, or float64 for float64 maps.
#pragma once

#include "box.h"
#include "branch_arguments.h"

namespace s2mlp {

template <typename Backend>
struct BranchOps {
  static BranchProblem problem_of(
      const Tensor& expanded,
      int64_t branches,
      IntHeaderOnlyArrayRef offsets,
      IntHeaderOnlyArrayRef group_sizes,
      std::string_view padding_mode) {
    const int64_t rank = expanded.dim();
    return make_branch_problem(
        leading_size(expanded, 3), expanded.size(rank - 3), expanded.size(rank - 2), expanded.size(rank - 1), branches, offsets,
        group_sizes, padding_mode);
  }

  // The sizes of x, with the last `drop` replaced by `last`.
  static std::vector<int64_t> sizes_like(const Tensor& x, int64_t drop, std::initializer_list<int64_t> last) {
    std::vector<int64_t> sizes;
    for (int64_t d = 0; d < x.dim() - drop; ++d) {
      sizes.push_back(x.size(d));
    }
    sizes.insert(sizes.end(), last);
    return sizes;
  }

  static Tensor new_empty(const Tensor& like, const std::vector<int64_t>& sizes, ScalarType dtype) {
    return allocated([&] { return torch::stable::new_empty(like, sizes, dtype); });
  }

  static Tensor new_zeros(const Tensor& like, const std::vector<int64_t>& sizes, ScalarType dtype) {
    return allocated([&] { return torch::stable::new_zeros(like, sizes, dtype); });
  }

  static void check_weights_rank(const Tensor& weights) {
    STD_TORCH_CHECK(weights.dim() >= 2, "weights must have shape (..., K, C), got ", shape_of(weights));
  }

  static Tensor pool(
      const Tensor& x,
      int64_t branches,
      IntHeaderOnlyArrayRef offsets,
      IntHeaderOnlyArrayRef group_sizes,
      std::string_view padding_mode) {
    check_floating(x, "x");
    check_map_rank(x, "x");
    const BranchProblem problem = problem_of(x, branches, offsets, group_sizes, padding_mode);
    const ScalarType sums = accumulator_dtype(x.scalar_type());
    const std::vector<int64_t> sizes = sizes_like(x, 3, {problem.channels});
    if (x.numel() == 0) {
      return new_zeros(x, sizes, sums);
    }
    Tensor out = new_empty(x, sizes, sums);
    const Tensor map = readable_map(x);
    Backend::pool(problem, map, map_strides(map), out);
    return out;
  }

  static Tensor pool_backward(
      const Tensor& grad,
      int64_t height,
      int64_t width,
      ScalarType dtype,
      int64_t branches,
      IntHeaderOnlyArrayRef offsets,
      IntHeaderOnlyArrayRef group_sizes,
      std::string_view padding_mode) {
    STD_TORCH_CHECK(grad.dim() >= 1, "grad must have at least 1 dimension, got ", grad.dim());
    STD_TORCH_CHECK(height >= 0 && width >= 0, "height and width must not be negative, got ", height, " and ", width);
    check_floating_dtype(dtype, "dtype");
    check_accumulator(grad, "grad", dtype);
    const int64_t expanded_channels = expanded_channels_of(branches, grad.size(-1));
    const BranchProblem problem =
        make_branch_problem(leading_size(grad, 1), height, width, expanded_channels, branches, offsets, group_sizes, padding_mode);
    Tensor out = new_empty(grad, sizes_like(grad, 1, {height, width, expanded_channels}), dtype);
    if (out.numel() != 0) {
      const Tensor sums = readable_channel_values(grad, 1);
      Backend::combine_backward(problem, nullptr, {}, nullptr, 0, &sums, merged_stride(sums, 1), out, map_strides(out));
    }
    return out;
  }

  static Tensor combine(
      const Tensor& x,
      const Tensor& weights,
      IntHeaderOnlyArrayRef offsets,
      IntHeaderOnlyArrayRef group_sizes,
      std::string_view padding_mode) {
    check_floating(x, "x");
    check_map_rank(x, "x");
    check_weights_rank(weights);
    const BranchProblem problem = problem_of(x, weights.size(-2), offsets, group_sizes, padding_mode);
    check_channel_values(weights, "weights", x, "x", "(..., K, C)", {problem.branches, problem.channels});
    Tensor out = new_empty(x, sizes_like(x, 1, {problem.channels}), x.scalar_type());
    if (out.numel() != 0) {
      const Tensor map = readable_map(x);
      const Tensor values = readable_channel_values(weights, 2);
      Backend::combine(problem, map, map_strides(map), values, merged_stride(values, 2), out, map_strides(out));
    }
    return out;
  }

  static Tensor combine_backward(
      const Tensor& grad,
      const Tensor& weights,
      const std::optional<Tensor>& pool_grad,
      IntHeaderOnlyArrayRef offsets,
      IntHeaderOnlyArrayRef group_sizes,
      std::string_view padding_mode) {
    check_floating(grad, "grad");
    check_map_rank(grad, "grad");
    check_weights_rank(weights);
    const int64_t rank = grad.dim();
    const int64_t branches = weights.size(-2);
    const int64_t expanded_channels = expanded_channels_of(branches, grad.size(-1));
    const BranchProblem problem = make_branch_problem(
        leading_size(grad, 3), grad.size(rank - 3), grad.size(rank - 2), expanded_channels, branches, offsets, group_sizes,
        padding_mode);
    check_channel_values(weights, "weights", grad, "grad", "(..., K, C)", {branches, problem.channels});
    if (pool_grad.has_value()) {
      check_channel_values(*pool_grad, "pool_grad", grad, "grad", "(..., C)", {problem.channels});
    }
    Tensor out = new_empty(grad, sizes_like(grad, 1, {expanded_channels}), grad.scalar_type());
    if (out.numel() == 0) {
      return out;
    }
    const Tensor map = readable_map(grad);
    const Tensor values = readable_channel_values(weights, 2);
    const int64_t weights_stride = merged_stride(values, 2);
    if (pool_grad.has_value()) {
      const Tensor sums = readable_channel_values(*pool_grad, 1);
      Backend::combine_backward(
          problem, &map, map_strides(map), &values, weights_stride, &sums, merged_stride(sums, 1), out, map_strides(out));
    } else {
      Backend::combine_backward(problem, &map, map_strides(map), &values, weights_stride, nullptr, 0, out, map_strides(out));
    }
    return out;
  }

  static Tensor combine_backward_weights(
      const Tensor& grad,
      const Tensor& x,
      IntHeaderOnlyArrayRef offsets,
      IntHeaderOnlyArrayRef group_sizes,
      std::string_view padding_mode) {
    check_floating(grad, "grad");
    check_map_rank(grad, "grad");
    check_map_rank(x, "x");
    check_with_grad(x, grad);
    const int64_t channels = grad.size(-1);
    const int64_t branches = channels == 0 ? 1 : x.size(-1) / channels;
    const BranchProblem problem = problem_of(x, std::max<int64_t>(branches, 1), offsets, group_sizes, padding_mode);
    bool fits = x.dim() == grad.dim() && problem.channels == channels;
    for (int64_t d = 0; fits && d < x.dim() - 1; ++d) {
      fits = x.size(d) == grad.size(d);
    }
    STD_TORCH_CHECK(fits, "x must have the shape of grad, except that its channels must be a multiple of those of grad");
    const ScalarType sums = accumulator_dtype(x.scalar_type());
    const std::vector<int64_t> sizes = sizes_like(x, 3, {problem.branches, channels});
    if (x.numel() == 0) {
      return new_zeros(x, sizes, sums);
    }
    Tensor out = new_empty(x, sizes, sums);
    const Tensor map = readable_map(x);
    const Tensor grad_map = readable_map(grad);
    Backend::combine_backward_weights(problem, grad_map, map_strides(grad_map), map, map_strides(map), out);
    return out;
  }
};

// Registers the ops of a backend; `m` is the library of its dispatch key.
#define S2MLP_IMPLEMENT_BRANCH_OPS(m, Backend)                                                      \
  m.impl("shift_branch_pool", S2MLP_BOX(&s2mlp::BranchOps<Backend>::pool));                         \
  m.impl("shift_branch_pool_backward", S2MLP_BOX(&s2mlp::BranchOps<Backend>::pool_backward));       \
  m.impl("shift_branch_combine", S2MLP_BOX(&s2mlp::BranchOps<Backend>::combine));                   \
  m.impl("shift_branch_combine_backward", S2MLP_BOX(&s2mlp::BranchOps<Backend>::combine_backward)); \
  m.impl("shift_branch_combine_backward_weights", S2MLP_BOX(&s2mlp::BranchOps<Backend>::combine_backward_weights))

}  // namespace s2mlp
