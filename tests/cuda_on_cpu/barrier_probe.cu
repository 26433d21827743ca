// A kernel with a barrier, which reverses each block's tile through shared memory. It shows that the emulator implements
// barriers and that a missing one is detected.
#include "cuda/launch.h"

int s2mlp_switch = 0;

namespace {

constexpr int kThreads = 64;

__global__ void reverse_kernel(const int* in, int* out) {
  __shared__ int tile[kThreads];
  tile[threadIdx.x] = in[blockIdx.x * kThreads + threadIdx.x];
  __syncthreads();
  out[blockIdx.x * kThreads + threadIdx.x] = tile[kThreads - 1 - threadIdx.x];
}

}  // namespace

// The number of wrong elements under a thread order.
extern "C" int s2mlp_probe_barrier(int order) {
  s2mlp::emulator::Block::current().order = static_cast<s2mlp::emulator::Order>(order);
  constexpr int kBlocks = 3;
  std::vector<int> in(kBlocks * kThreads);
  std::vector<int> out(in.size(), -1);
  std::iota(in.begin(), in.end(), 0);
  S2MLP_LAUNCH((reverse_kernel), kBlocks, kThreads, nullptr, in.data(), out.data());
  int wrong = 0;
  for (int i = 0; i < static_cast<int>(out.size()); ++i) {
    wrong += out[i] != in[(i / kThreads + 1) * kThreads - 1 - i % kThreads];
  }
  return wrong;
}
