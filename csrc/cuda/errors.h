// Messages for CUDA errors. If versions are incompatible, the message names them and says what to do.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace s2mlp {

inline const char* const kTorchWithoutCuda =
    "this tensor is on a GPU, but this build of PyTorch has no CUDA: install a build of PyTorch with CUDA to use s2mlp_cuda on it";

// 13020 is CUDA 13.2.
inline std::string cuda_version_text(int version) {
  return "CUDA " + std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// 90 is compute capability 9.0.
inline std::string capability_text(int capability) {
  return std::to_string(capability / 10) + "." + std::to_string(capability % 10);
}

// nvcc lists the architectures that it compiles for: 750, 800, ...
inline std::string compiled_capabilities() {
  std::string text;
  for (const int architecture : {__CUDA_ARCH_LIST__}) {
    text += (text.empty() ? "" : ", ") + capability_text(architecture / 10);
  }
  return text;
}

// Whether the binary has machine code for a GPU: code also runs on later minor versions of its major version.
inline bool is_compiled_for(int capability) {
  for (const int architecture : {__CUDA_ARCH_LIST__}) {
    if (architecture / 100 == capability / 10 && architecture / 10 <= capability) {
      return true;
    }
  }
  return false;
}

// The compute capability of the current device; 0 if it cannot be queried.
inline int current_capability() {
  int device = 0;
  int major = 0;
  int minor = 0;
  const bool known = cudaGetDevice(&device) == cudaSuccess &&
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess;
  return known ? major * 10 + minor : 0;
}

inline std::string cuda_error_message(cudaError_t error, const char* call) {
  const std::string built = "s2mlp_cuda was built with " + cuda_version_text(CUDART_VERSION);
  int version = 0;
  cudaDriverGetVersion(&version);
  const std::string driver = cuda_version_text(version);
  const std::string capability = capability_text(current_capability());
  switch (error) {
    case cudaErrorInsufficientDriver:
      if (version == 0) {
        return built + ", but no GPU driver was found: install one that supports " + cuda_version_text(CUDART_VERSION) +
            " or newer";
      }
      return built + ", but the GPU driver supports only " + driver +
          ": update the driver, or rebuild s2mlp_cuda with a toolkit of " + driver + " or older";
    case cudaErrorUnsupportedPtxVersion:
      return built + " and has only PTX for this GPU of compute capability " + capability + ", which the GPU driver (" + driver +
          ") is too old to compile: update the driver, or rebuild s2mlp_cuda with TORCH_CUDA_ARCH_LIST=" + capability;
    case cudaErrorSystemDriverMismatch:
      return built + ", but the CUDA driver library (" + driver +
          ") does not match the kernel driver: restart the machine, or reinstall the GPU driver";
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
      if (!is_compiled_for(current_capability())) {
        return "s2mlp_cuda was built for GPUs of compute capability " + compiled_capabilities() + ", but this GPU has " +
            capability + ": rebuild s2mlp_cuda with TORCH_CUDA_ARCH_LIST=" + capability + ", or with this GPU visible to the build";
      }
      break;
    default:
      break;
  }
  return std::string(call) + ": " + cudaGetErrorString(error);
}

inline void check_cuda(cudaError_t error, const char* call) {
  if (error != cudaSuccess) {
    const std::string message = cuda_error_message(error, call);
    cudaGetLastError();  // clears the error, which the next call would otherwise return
    throw std::runtime_error(message);
  }
}

}  // namespace s2mlp
