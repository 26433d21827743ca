// The kernel launches of a plan.
#pragma once

#include "element_kernel.h"
#include "launch.h"
#include "plane_kernel.h"
#include "token_kernel.h"

namespace s2mlp {

// One call, ready to launch.
struct Call {
  const ShiftProblem& problem;
  int64_t element_size;
  const void* in;
  void* out;
  const void* operand;  // of the epilogue; may be null
  LaunchPlan plan;
  LaunchContext context;
};

inline Call plan_call(const ShiftProblem& problem, const Tensor& in, const void* operand, const Tensor& out, bool computed) {
  const int64_t element_size = static_cast<int64_t>(in.element_size());
  const void* from = in.const_data_ptr();
  void* to = out.mutable_data_ptr();
  // Only the lowest set bit matters, so one number can represent both tensors.
  const Misalignment misalignment = {misalignment_of(from), misalignment_of(to) | misalignment_of(operand)};
  const LaunchPlan plan = plan_launch(problem, element_size, misalignment, computed);
  STD_TORCH_CHECK(
      plan.kernel != ShiftKernel::kTooLarge, "too large for the CUDA kernels: maps of ", problem.height.size, " x ",
      problem.width.size, " tokens and ", problem.channel.size,
      " channels; they take axes of up to 2^30 tokens, and count up to 2^31 - 2^25 tokens");
  return {problem, element_size, from, to, operand, plan, LaunchContext(in)};
}

template <typename T, int kVector, bool kAdjoint, typename Op>
void launch_tokens(const Call& call, const Op& op) {
  using Kernel = Epilogue<T, kVector, Op>;
  for_each_token_launch<kAdjoint>(
      call.problem, call.plan.vector, call.element_size, Kernel::kItems, call.context.limits(),
      [&](const TokenProblem& problem, const Grid& grid) {
    S2MLP_LAUNCH(
        (token_kernel<T, kVector, kAdjoint, Op>), grid.blocks, grid.threads, call.context.stream(), call.in, call.out, problem,
        (Kernel{op, call.operand}));
  });
}

template <typename T, bool kAdjoint, typename Op>
void launch_planes(const Call& call, const Op& op) {
  with_plane_launch<kAdjoint>(
      call.problem, call.element_size, call.context.limits(), [&](const PlaneProblem& problem, const Grid& grid) {
    S2MLP_LAUNCH(
        (plane_kernel<T, kAdjoint, Op>), grid.blocks, grid.threads, call.context.stream(), call.in, call.out, problem,
        (Epilogue<T, item_elements(sizeof(T)), Op>{op, call.operand}));
  });
}

template <typename T, bool kAdjoint, typename Op>
void launch_elements(const Call& call, const Op& op) {
  for_each_element_launch(
      call.problem, call.element_size, kElementItemsPerThread, call.context.limits(),
      [&](const ElementProblem& problem, const Grid& grid) {
    S2MLP_LAUNCH(
        (element_kernel<T, kAdjoint, Op>), grid.blocks, grid.threads, call.context.stream(), call.in, call.out, problem,
        (Epilogue<T, 1, Op>{op, call.operand}));
  });
}

}  // namespace s2mlp
