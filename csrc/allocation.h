// Allocation of results and of copies of arguments.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <stdexcept>

namespace s2mlp {

// allocate(), which returns a new tensor. PyTorch's stable interface drops the exception of an allocation that fails. The functions
// in Python recognize this text, and repeat the allocation to raise PyTorch's own exception: see ops/_kernels.py.
template <typename Allocate>
torch::stable::Tensor allocated(const Allocate& allocate) {
  try {
    return allocate();
  } catch (const std::exception&) {
    throw std::runtime_error("s2mlp_cuda could not allocate memory for a result or a copy of an argument");
  }
}

}  // namespace s2mlp
