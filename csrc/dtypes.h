// The dtypes that kernels are compiled for. These are the only such lists, for CPU and CUDA.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstdint>

namespace s2mlp {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <typename... Ts>
struct TypeList {};

// Differentiable dtypes.
using FloatingTypes = TypeList<double, float, torch::headeronly::Half, torch::headeronly::BFloat16>;

// Dtypes that only spatial_shift supports. It moves bits, and is compiled once per element size.
using IntegerTypes = TypeList<int64_t, int32_t, int16_t, int8_t, uint8_t, bool>;
using WordTypes = TypeList<uint8_t, uint16_t, uint32_t, uint64_t>;

template <typename... Ts>
constexpr bool is_one_of(TypeList<Ts...>, ScalarType dtype) {
  return ((dtype == torch::headeronly::CppTypeToScalarType<Ts>::value) || ...);
}

// Calls use(T{}) with the first T of the list for which matches(T{}) holds; an error if there is none.
template <typename... Ts, typename Matches, typename Use>
void with_first(TypeList<Ts...>, const Matches& matches, const Use& use) {
  const bool found = ((matches(Ts{}) && (use(Ts{}), true)) || ...);
  STD_TORCH_CHECK(found, "s2mlp_cuda has no kernel for this dtype");
}

// Calls use(T{}) with the C++ type of a floating-point tensor.
template <typename Use>
void with_floating_type(const Tensor& tensor, const Use& use) {
  const ScalarType dtype = tensor.scalar_type();
  const auto matches = [&](auto element) { return dtype == torch::headeronly::CppTypeToScalarType<decltype(element)>::value; };
  with_first(FloatingTypes{}, matches, use);
}

// Calls use(T{}) with the type of the given size in bytes.
template <typename Types, typename Use>
void with_word_type(Types types, size_t bytes, const Use& use) {
  with_first(types, [&](auto word) { return sizeof(word) == bytes; }, use);
}

// Calls use(T{}) with the unsigned integer type of the tensor's element size.
template <typename Use>
void with_word_type(const Tensor& tensor, const Use& use) {
  with_word_type(WordTypes{}, tensor.element_size(), use);
}

template <typename T>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

template <typename T>
T* mutable_data(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

}  // namespace s2mlp
