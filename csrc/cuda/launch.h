// How a kernel is launched here: on the tensor's device, on PyTorch's current stream, with the launch
// error checked, and with no synchronisation.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>

// Only libtorch_cuda defines this one. Weak, so that the same binary loads beside a CPU build of PyTorch.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device, void** stream);

#define S2MLP_CUDA_CHECK(call)                                               \
  do {                                                                       \
    const cudaError_t error_ = (call);                                       \
    STD_TORCH_CHECK(error_ == cudaSuccess, #call, ": ", cudaGetErrorString(error_)); \
  } while (0)

#define S2MLP_LAUNCH(kernel, grid, block, stream, ...)      \
  do {                                                      \
    kernel<<<(grid), (block), 0, (stream)>>>(__VA_ARGS__);  \
    S2MLP_CUDA_CHECK(cudaGetLastError());                   \
  } while (0)

namespace s2mlp {

constexpr int kBlockThreads = 256;

inline cudaStream_t current_stream(const torch::stable::Tensor& tensor) {
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr, "this build of PyTorch has no CUDA");
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// Blocks for a grid-stride loop over `work` items: no more than fill the current device four times over.
inline int grid_blocks(int64_t work) {
  int device = 0;
  int processors = 0;
  int threads = 0;
  S2MLP_CUDA_CHECK(cudaGetDevice(&device));
  S2MLP_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  S2MLP_CUDA_CHECK(cudaDeviceGetAttribute(&threads, cudaDevAttrMaxThreadsPerMultiProcessor, device));
  const int64_t resident = int64_t{4} * processors * (threads / kBlockThreads);
  return static_cast<int>(std::min<int64_t>(resident, (work + kBlockThreads - 1) / kBlockThreads));
}

}  // namespace s2mlp
