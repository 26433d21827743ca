"""Bugs put into a copy of the sources on purpose: the emulation must catch each, in the way it should."""

import ctypes

import pytest

from emulated import ORDERS, build_kernels, compile_shared, copy_sources, emulation_flags, run_cases

#: What is wrong: the edits, the .cu file that is compiled with them, the cases that are run, what is found.
PLANTED = {
    "one row too far": (
        [("csrc/shift_geometry.h", "(source >= size ? size - 1 : source)", "(source > size ? size - 1 : source)")],
        "spatial_shift",
        "shift channels_last",
        "AddressSanitizer: heap-buffer-overflow",
    ),
    "a vector at an address that is no multiple of it": (
        [("csrc/cuda/launch_plan.h", " | misalignment.in / element_size | misalignment.out / element_size", "")],
        "spatial_shift",
        "shift channels_last",
        "misaligned address",
    ),
    "a chunk that ends behind the tensor": (
        [("csrc/cuda/kernel_problem.h", "end <= p.misalignment + p.in_extent", "end <= 2 * (p.misalignment + p.in_extent)")],
        "spatial_shift",
        "shift channels_first",
        "AddressSanitizer: heap-buffer-overflow",
    ),
    "the last item of a launch left out": (
        [("csrc/cuda/strided_kernel.h", "      if (item < p.items) {", "      if (item + 1 < p.items) {")],
        "spatial_shift",
        "shift channels_last",
        "differs from the reference",
    ),
    "no barrier between the steps of a sum over tokens": (
        [("csrc/cuda/shift_split_attention.cu", "    __syncthreads();\n", "")],
        "shift_split_attention",
        "branches float32",
        "pool differs from the reference",
    ),
    "the last token of a combined map left out": (
        [("csrc/cuda/shift_split_attention.cu", "u < p.tokens) {\n      VectorOf", "u + 1 < p.tokens) {\n      VectorOf")],
        "shift_split_attention",
        "branches float32",
        "combine differs from the reference",
    ),
    "only the first of several readers": (
        [("csrc/cuda/shift_split_attention.cu", "if (readers > 1 &&", "if (readers < 0 &&")],
        "shift_split_attention",
        "branches float32",
        "combine_backward differs from the reference",
    ),
    "float32 weights at an address that is no multiple of 16 bytes": (
        [("csrc/cuda/launch_plan.h", "int64_t bits = misalignment == 0 ? 0 : 1;", "int64_t bits = 0;")],
        "shift_split_attention",
        "branches float32",
        "misaligned address",
    ),
    "the slope of GELU at the shifted place": (
        [("csrc/cuda/strided_kernel.h", "element.load(place.out_offset)", "element.load(place.in_offset)")],
        "gelu_spatial_shift",
        "gelu",
        "backward differs from the reference",
    ),
    "one approximation for the other": (
        [("csrc/cuda/gelu_spatial_shift.cu", "return tanh ? gelu<true>", "return !tanh ? gelu<true>")],
        "gelu_spatial_shift",
        "gelu",
        "forward differs from the reference",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bug_is_caught(name, tmp_path):
    edits, source, cases, finding = PLANTED[name]
    library = build_kernels(tmp_path, edits, f"csrc/cuda/{source}.cu")
    failures = run_cases(library, "ascending", only=cases)
    assert any(finding in text for text in failures.values()), failures


def wrong_results(folder, edits) -> dict[str, int]:
    """Elements that the barrier probe gets wrong, per thread order."""
    copy_sources(folder, edits)
    library = ctypes.CDLL(str(compile_shared([folder / "barrier_probe.cu"], folder / "probe.so", *emulation_flags(folder))))
    return {order: library.s2mlp_probe_barrier(ORDERS.index(order)) for order in ORDERS}


def test_missing_barrier_is_caught(tmp_path):
    assert wrong_results(tmp_path / "right", []) == dict.fromkeys(ORDERS, 0)
    without = wrong_results(tmp_path / "wrong", [("barrier_probe.cu", "  __syncthreads();\n", "")])
    assert max(without.values()) > 0, without


