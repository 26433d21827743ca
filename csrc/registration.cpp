// The schemas of all ops, and the Python module of the compiled extension.
// Kernels are registered in their own files under cpu/ and cuda/.
#include <Python.h>
#include <torch/csrc/stable/library.h>

#include "cpu/instruction_sets.h"
#include "library.h"

// offsets: flat dh0, dw0, dh1, dw1, ... in tokens, one pair per channel group.
// group_sizes: channels per group; None splits the channels evenly, at floor(g * C / G).
STABLE_TORCH_LIBRARY(S2MLP_LIBRARY, m) {
  m.def(
      "spatial_shift(Tensor x, int[] offsets, int[]? group_sizes=None, str padding_mode=\"replicate\", "
      "str data_format=\"channels_last\") -> Tensor");
  m.def(
      "spatial_shift_backward(Tensor grad, int[] offsets, int[]? group_sizes=None, str padding_mode=\"replicate\", "
      "str data_format=\"channels_last\") -> Tensor");
  m.def(
      "gelu_spatial_shift(Tensor x, int[] offsets, int[]? group_sizes=None, str approximate=\"none\", "
      "str padding_mode=\"replicate\", str data_format=\"channels_last\") -> Tensor");
  m.def(
      "gelu_spatial_shift_backward(Tensor grad, Tensor x, int[] offsets, int[]? group_sizes=None, "
      "str approximate=\"none\", str padding_mode=\"replicate\", str data_format=\"channels_last\") -> Tensor");
  // Ops on the K branches of a split attention, side by side in a map of K * C channels; branch_ops.h defines what they compute.
  // Offsets and group sizes cover all K * C channels; no group spans two branches.
  m.def(
      "shift_branch_pool(Tensor x, int branches, int[] offsets, int[] group_sizes, "
      "str padding_mode=\"replicate\") -> Tensor");
  m.def(
      "shift_branch_pool_backward(Tensor grad, SymInt height, SymInt width, ScalarType dtype, int branches, "
      "int[] offsets, int[] group_sizes, str padding_mode=\"replicate\") -> Tensor");
  m.def(
      "shift_branch_combine(Tensor x, Tensor weights, int[] offsets, int[] group_sizes, "
      "str padding_mode=\"replicate\") -> Tensor");
  m.def(
      "shift_branch_combine_backward(Tensor grad, Tensor weights, Tensor? pool_grad, int[] offsets, "
      "int[] group_sizes, str padding_mode=\"replicate\") -> Tensor");
  m.def(
      "shift_branch_combine_backward_weights(Tensor grad, Tensor x, int[] offsets, int[] group_sizes, "
      "str padding_mode=\"replicate\") -> Tensor");
}

namespace {

PyObject* cpu_capability(PyObject*, PyObject*) { return PyUnicode_FromString(s2mlp::name_of(s2mlp::cpu_capability())); }

PyMethodDef methods[] = {
    {"cpu_capability", cpu_capability, METH_NOARGS, "The instruction set of the CPU kernels: DEFAULT, AVX2 or AVX512."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

PyMODINIT_FUNC PyInit__C() {
  static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
