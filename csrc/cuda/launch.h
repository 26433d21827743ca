// How a kernel is launched here: on the tensor's device, on PyTorch's current stream, with the launch error checked, and
// with no synchronisation. Tests compile this tree as C++ with S2MLP_CUDA_ON_CPU, and a CPU plays the GPU.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

#include "../library.h"
#include "launch_plan.h"

#if defined(S2MLP_CUDA_ON_CPU)
#include "emulator.h"
#else
#include <cuda_runtime.h>

#define S2MLP_DISPATCH_KEY CUDA

#define S2MLP_CUDA_CHECK(call)                                                       \
  do {                                                                               \
    const cudaError_t error_ = (call);                                               \
    STD_TORCH_CHECK(error_ == cudaSuccess, #call, ": ", cudaGetErrorString(error_)); \
  } while (0)

#define S2MLP_LAUNCH(kernel, grid, block, stream, ...)     \
  do {                                                     \
    kernel<<<(grid), (block), 0, (stream)>>>(__VA_ARGS__); \
    S2MLP_CUDA_CHECK(cudaGetLastError());                  \
  } while (0)

// Only libtorch_cuda defines this one. Weak, so that the same binary loads beside a CPU build of PyTorch.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device, void** stream);

namespace s2mlp {

// What a launch on a tensor's device needs. Makes that device the current one while it lives.
class LaunchContext {
 public:
  explicit LaunchContext(const torch::stable::Tensor& tensor) : guard_(tensor.get_device_index()) {
    const int device = tensor.get_device_index();
    STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr, "this build of PyTorch has no CUDA");
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
    stream_ = static_cast<cudaStream_t>(stream);
    S2MLP_CUDA_CHECK(cudaDeviceGetAttribute(&limits_.multiprocessors, cudaDevAttrMultiProcessorCount, device));
    S2MLP_CUDA_CHECK(cudaDeviceGetAttribute(&limits_.threads_per_multiprocessor, cudaDevAttrMaxThreadsPerMultiProcessor, device));
  }

  cudaStream_t stream() const { return stream_; }
  const DeviceLimits& limits() const { return limits_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
  DeviceLimits limits_;
};

}  // namespace s2mlp
#endif
