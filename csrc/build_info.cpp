// Build information, passed by setup.py as macros.
#include <pybind11/pybind11.h>

#define S2MLP_STRINGIFY_(x) #x
#define S2MLP_STRINGIFY(x) S2MLP_STRINGIFY_(x)

PYBIND11_MODULE(_build_info, m) {
  m.doc() = "How the s2mlp_cuda binary was built.";
  m.attr("torch_version") = S2MLP_TORCH_VERSION;
  m.attr("torch_target_version") = S2MLP_TORCH_TARGET;
  m.attr("with_cuda") = static_cast<bool>(S2MLP_WITH_CUDA);
  m.attr("cuda_version") = S2MLP_CUDA_VERSION;
  m.attr("cuda_arch_list") = S2MLP_CUDA_ARCH_LIST;
  m.attr("cxx_flags") = S2MLP_CXX_FLAGS;
  m.attr("nvcc_flags") = S2MLP_NVCC_FLAGS;
  m.attr("compiler") = "g++ " S2MLP_STRINGIFY(__GNUC__) "." S2MLP_STRINGIFY(__GNUC_MINOR__);
  m.attr("pybind11_version") = S2MLP_STRINGIFY(PYBIND11_VERSION_MAJOR) "." S2MLP_STRINGIFY(PYBIND11_VERSION_MINOR);
}
