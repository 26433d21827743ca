// Runs the GPU code of launch.h without a GPU. This program has stand-ins for the CUDA runtime and the PyTorch functions that
// launch.h calls, for a machine with two GPUs of which 0 is current. It launches one kernel and prints the launch and the state
// afterwards.
//
//   launch_check DEVICE [launch=ERROR] [attribute=ERROR] [driver=VERSION] [capability=NUMBER]
//
// DEVICE is the tensor's device, NUMBER its compute capability. ERROR is returned by the launch, or by the query of the device's
// limits.
#include <torch/csrc/stable/tensor.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "cuda/launch.h"

namespace {

struct Device {
  int multiprocessors;
  int threads_per_multiprocessor;
};

constexpr Device kDevices[] = {{10, 1024}, {20, 2048}};

std::map<std::string, int> options = {{"launch", 0}, {"attribute", 0}, {"driver", 13000}, {"capability", 90}};
int tensor_device = 0;
int current_device = 0;
cudaError_t last_error = cudaSuccess;

cudaError_t report(int error) {
  if (error != cudaSuccess) {
    last_error = static_cast<cudaError_t>(error);
  }
  return static_cast<cudaError_t>(error);
}

void kernel(const float* in, double factor) { std::printf("kernel(%p, %g)\n", static_cast<const void*>(in), factor); }

void call() {
  // The stand-in for PyTorch knows one tensor and does not look at its handle.
  const torch::stable::Tensor tensor(reinterpret_cast<AtenTensorHandle>(&tensor_device));
  const s2mlp::LaunchContext context(tensor);
  float* const in = nullptr;
  const int grid = 10000 * context.limits().multiprocessors + context.limits().threads_per_multiprocessor;  // shows both
  S2MLP_LAUNCH((kernel), grid, s2mlp::kBlockThreads, context.stream(), in, 3);
}

}  // namespace

// ---- The CUDA runtime ------------------------------------------------------------------------------------------------

cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}

const char* cudaGetErrorString(cudaError_t) { return "CUDA's words"; }

cudaError_t cudaDriverGetVersion(int* version) {
  *version = options["driver"];
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  const int capability = device == tensor_device ? options["capability"] : 80;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = kDevices[device].multiprocessors;
      return report(options["attribute"]);
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = kDevices[device].threads_per_multiprocessor;
      return report(options["attribute"]);
    case cudaDevAttrComputeCapabilityMajor:
      *value = capability / 10;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = capability % 10;
      return cudaSuccess;
  }
  return report(cudaErrorInvalidValue);
}

cudaError_t cudaLaunchKernel(
    const void* kernel, dim3 grid, dim3 block, void** arguments, size_t shared_bytes, cudaStream_t stream) {
  std::printf(
      "launch on device %d, stream %zu: %u x %u threads, %zu bytes shared\n", current_device, reinterpret_cast<size_t>(stream),
      grid.x, block.x, shared_bytes);
  if (options["launch"] == cudaSuccess) {
    const auto run = reinterpret_cast<void (*)(const float*, double)>(const_cast<void*>(kernel));
    run(*static_cast<const float**>(arguments[0]), *static_cast<double*>(arguments[1]));
  }
  return report(options["launch"]);
}

// ---- PyTorch ---------------------------------------------------------------------------------------------------------

struct DeviceGuardOpaque {
  int previous;
};

extern "C" {

AOTITorchError aoti_torch_create_device_guard(int32_t device, DeviceGuardHandle* guard) {
  *guard = new DeviceGuardOpaque{current_device};
  current_device = device;
  return AOTI_TORCH_SUCCESS;
}

AOTITorchError aoti_torch_delete_device_guard(DeviceGuardHandle guard) {
  current_device = guard->previous;
  delete guard;
  return AOTI_TORCH_SUCCESS;
}

AOTITorchError aoti_torch_get_device_index(AtenTensorHandle, int32_t* device) {
  *device = tensor_device;
  return AOTI_TORCH_SUCCESS;
}

AOTITorchError aoti_torch_delete_tensor_object(AtenTensorHandle) { return AOTI_TORCH_SUCCESS; }

#if !defined(TORCH_WITHOUT_CUDA)
AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device, void** stream) {
  *stream = reinterpret_cast<void*>(static_cast<size_t>(100 + device));
  return AOTI_TORCH_SUCCESS;
}
#endif
}

int main(int argc, char** argv) {
  tensor_device = std::atoi(argv[1]);
  for (int i = 2; i < argc; ++i) {
    const std::string option = argv[i];
    const size_t equals = option.find('=');
    options.at(option.substr(0, equals)) = std::stoi(option.substr(equals + 1));
  }
  try {
    call();
  } catch (const std::exception& error) {
    std::printf("error: %s\n", error.what());
  }
  std::printf("afterwards: device %d, error %d\n", current_device, cudaGetLastError());
}
