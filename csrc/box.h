// S2MLP_BOX(&kernel) makes a kernel the implementation of an op: TORCH_BOX without its memory leak. PyTorch before 2.14 leaks a
// std::string for each str argument that it unboxes (pytorch/pytorch#191340), 48 bytes per argument and call. Here strings stay
// PyTorch's: they are read in place and freed after the call.
#pragma once

#include <torch/csrc/stable/c/shim.h>
#include <torch/csrc/stable/library.h>

#include <string_view>

namespace s2mlp {

class OwnedString {
 public:
  explicit OwnedString(StringHandle handle) : handle_(handle) {}
  OwnedString(const OwnedString&) = delete;
  OwnedString& operator=(const OwnedString&) = delete;
  ~OwnedString() { torch_delete_string(handle_); }

  operator std::string_view() const {
    size_t length = 0;
    const char* data = nullptr;
    TORCH_ERROR_CODE_CHECK(torch_string_length(handle_, &length));
    TORCH_ERROR_CODE_CHECK(torch_string_c_str(handle_, &data));
    return {data, length};
  }

 private:
  StringHandle handle_;
};

// The type in which PyTorch passes a kernel's parameter, and the type that owns it while the kernel runs.
template <typename Parameter>
struct Argument {
  using Boxed = Parameter;
  using Held = Parameter;
};

template <>
struct Argument<std::string_view> {
  using Boxed = StringHandle;
  using Held = OwnedString;
};

template <auto kernel>
struct Boxable;

template <typename Result, typename... Parameters, Result (*kernel)(Parameters...)>
struct Boxable<kernel> {
  static Result call(typename Argument<Parameters>::Boxed... arguments) {
    return kernel(static_cast<typename Argument<Parameters>::Held>(arguments)...);
  }
};

}  // namespace s2mlp

#define S2MLP_BOX(kernel) TORCH_BOX(&s2mlp::Boxable<kernel>::call)
