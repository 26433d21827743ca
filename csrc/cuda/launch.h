// Kernel launches: on the tensor's device, on PyTorch's current stream, with the launch error checked and without synchronization.
// With S2MLP_CUDA_ON_CPU, tests compile the kernels as C++ for an emulated GPU. tests/cuda_on_cpu/launch_check.cpp tests the code
// for real GPUs.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

#include "../library.h"
#include "launch_plan.h"

#if defined(S2MLP_CUDA_ON_CPU)
#include "emulator.h"
#else
#include <cuda_runtime.h>

#include <type_traits>

#include "errors.h"

#define S2MLP_DISPATCH_KEY CUDA

#define S2MLP_LAUNCH(kernel, grid, block, stream, ...) s2mlp::launch_kernel(kernel, grid, block, stream, __VA_ARGS__)

// Defined only by libtorch_cuda. Weak, so that the same binary also loads with a CPU build of PyTorch.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device, void** stream);

namespace s2mlp {

// kernel<<<grid, block, 0, stream>>>(arguments...), checked. Without the chevrons, any C++ compiler accepts it, and the launch
// returns its own error: cudaGetLastError could return an earlier one.
template <typename... Parameters>
void launch_kernel(
    void (*kernel)(Parameters...), int64_t grid, int block, cudaStream_t stream, std::common_type_t<Parameters>... arguments) {
  void* addresses[] = {&arguments...};
  const cudaError_t error = cudaLaunchKernel(
      reinterpret_cast<const void*>(kernel), dim3(static_cast<unsigned int>(grid)), dim3(static_cast<unsigned int>(block)),
      addresses, 0, stream);
  check_cuda(error, "cudaLaunchKernel");
}

// The state that a launch on a tensor's device needs. The device is current during the lifetime of this object.
class LaunchContext {
 public:
  explicit LaunchContext(const torch::stable::Tensor& tensor) : guard_(device_of(tensor)) {
    const int device = tensor.get_device_index();
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
    stream_ = static_cast<cudaStream_t>(stream);
    limits_.multiprocessors = attribute(cudaDevAttrMultiProcessorCount, device);
    limits_.threads_per_multiprocessor = attribute(cudaDevAttrMaxThreadsPerMultiProcessor, device);
  }

  cudaStream_t stream() const { return stream_; }
  const DeviceLimits& limits() const { return limits_; }

 private:
  // Checked before the guard is constructed, which also fails in a CPU build of PyTorch, but without saying what to do.
  static int32_t device_of(const torch::stable::Tensor& tensor) {
    if (aoti_torch_get_current_cuda_stream == nullptr) {
      throw std::runtime_error(kTorchWithoutCuda);
    }
    return tensor.get_device_index();
  }

  static int attribute(cudaDeviceAttr name, int device) {
    int value = 0;
    check_cuda(cudaDeviceGetAttribute(&value, name, device), "cudaDeviceGetAttribute");
    return value;
  }

  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
  DeviceLimits limits_;
};

}  // namespace s2mlp
#endif
