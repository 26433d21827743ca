// Passes launches to Python instead of running them, with the parameters in the layout that the kernel's machine code expects.
// emulator.h includes this in place of its own launches.
#pragma once

#include <tuple>
#include <type_traits>
#include <typeinfo>

namespace s2mlp {
namespace recorder {

// Kernel: a mangled type name that contains the kernel's name. Const pointers: the pointers to const among its parameters.
using Callback = void (*)(
    const char* kernel,
    const uint32_t* grid,
    const uint32_t* block,
    const uint8_t* parameters,
    int64_t parameter_bytes,
    const uint64_t* const_pointers,
    int64_t const_pointer_count);

Callback& callback();
DeviceLimits& limits();

template <auto kKernel>
struct Named {};

inline dim3 extent_of(const dim3& size) { return size; }
inline dim3 extent_of(int64_t size) { return dim3(static_cast<unsigned int>(size)); }

// Packs parameters one after the other, each at its own alignment.
template <typename T>
void append(std::vector<uint8_t>& bytes, std::vector<uint64_t>& const_pointers, const T& value) {
  bytes.resize((bytes.size() + alignof(T) - 1) / alignof(T) * alignof(T));
  const auto* from = reinterpret_cast<const uint8_t*>(&value);
  bytes.insert(bytes.end(), from, from + sizeof(T));
  if constexpr (std::is_pointer_v<T>) {
    if (std::is_const_v<std::remove_pointer_t<T>> && value != nullptr) {
      const_pointers.push_back(reinterpret_cast<uint64_t>(value));
    }
  }
}

template <typename Name, typename... Parameters, typename... Arguments>
void launch(void (*)(Parameters...), const dim3& grid, const dim3& block, Arguments&&... arguments) {
  const std::tuple<std::remove_cv_t<Parameters>...> values(std::forward<Arguments>(arguments)...);
  std::vector<uint8_t> bytes;
  std::vector<uint64_t> const_pointers;
  std::apply([&](const auto&... value) { (append(bytes, const_pointers, value), ...); }, values);
  const uint32_t grid_size[3] = {grid.x, grid.y, grid.z};
  const uint32_t block_size[3] = {block.x, block.y, block.z};
  callback()(
      typeid(Name).name(), grid_size, block_size, bytes.data(), static_cast<int64_t>(bytes.size()), const_pointers.data(),
      static_cast<int64_t>(const_pointers.size()));
}

}  // namespace recorder

class LaunchContext {
 public:
  explicit LaunchContext(const torch::stable::Tensor&) {}
  cudaStream_t stream() const { return nullptr; }
  const DeviceLimits& limits() const { return recorder::limits(); }
};

}  // namespace s2mlp

#define S2MLP_LAUNCH(kernel, grid, block, stream, ...)     \
  s2mlp::recorder::launch<s2mlp::recorder::Named<kernel>>( \
      kernel, s2mlp::recorder::extent_of(grid), s2mlp::recorder::extent_of(block), __VA_ARGS__)
