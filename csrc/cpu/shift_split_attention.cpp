// The branch ops of split attention on a CPU: dispatch by dtype.
#include "../branch_ops.h"
#include "../library.h"
#include "branch_maps.h"
#include "branch_sums.h"

namespace s2mlp {
namespace {

template <typename T>
const T* data_or_null(const Tensor* tensor) {
  return tensor == nullptr ? nullptr : data<T>(*tensor);
}

struct Cpu {
  static void pool(const BranchProblem& p, const Tensor& x, const MapStrides& x_stride, const Tensor& out) {
    with_floating_type(x, [&](auto element) {
      using T = decltype(element);
      s2mlp::pool(p, data<T>(x), x_stride, mutable_data<accumulator_t<T>>(out));
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
    with_floating_type(x, [&](auto element) {
      using T = decltype(element);
      const auto run = streams(p, p.channels, mutable_data<T>(out), out_stride) ? combine_rows<Stores::kStreaming, T>
                                                                                : combine_rows<Stores::kCached, T>;
      run(p, data<T>(x), x_stride, data<accumulator_t<T>>(weights), weights_stride, mutable_data<T>(out), out_stride);
    });
  }

  static void combine_backward_weights(
      const BranchProblem& p,
      const Tensor& grad,
      const MapStrides& grad_stride,
      const Tensor& x,
      const MapStrides& x_stride,
      const Tensor& out) {
    with_floating_type(x, [&](auto element) {
      using T = decltype(element);
      s2mlp::combine_backward_weights(p, data<T>(grad), grad_stride, data<T>(x), x_stride, mutable_data<accumulator_t<T>>(out));
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
    with_floating_type(out, [&](auto element) {
      using T = decltype(element);
      using Acc = accumulator_t<T>;
      const auto run = streams(p, p.branches * p.channels, mutable_data<T>(out), out_stride)
          ? combine_backward_rows<Stores::kStreaming, T>
          : combine_backward_rows<Stores::kCached, T>;
      run(p, data_or_null<T>(grad), grad_stride, data_or_null<Acc>(weights), weights_stride, data_or_null<Acc>(pool_grad),
          pool_grad_stride, mutable_data<T>(out), out_stride);
    });
  }
};

}  // namespace
}  // namespace s2mlp

STABLE_TORCH_LIBRARY_IMPL(S2MLP_LIBRARY, CPU, m) { S2MLP_IMPLEMENT_BRANCH_OPS(m, s2mlp::Cpu); }
