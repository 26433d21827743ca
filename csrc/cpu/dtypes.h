// One piece of code for each floating dtype that the ops take.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

namespace s2mlp {

// use(T{}) for the dtype.
template <typename Use>
void with_dtype(torch::headeronly::ScalarType dtype, const Use& use) {
  using torch::headeronly::ScalarType;
  switch (dtype) {
    case ScalarType::Double:
      return use(double{});
    case ScalarType::Float:
      return use(float{});
    case ScalarType::Half:
      return use(torch::headeronly::Half{});
    default:
      return use(torch::headeronly::BFloat16{});
  }
}

template <typename T>
const T* data(const torch::stable::Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

template <typename T>
T* output(const torch::stable::Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

}  // namespace s2mlp
