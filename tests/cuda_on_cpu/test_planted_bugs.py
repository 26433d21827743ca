"""Bugs put into a copy of the sources on purpose: the emulation must catch each, in the way it should."""

import ctypes

import pytest
from emulated import ORDERS, build_kernels, compile_shared, copy_sources, emulation_flags, run_cases

PLANTED = {
    "one row too far": (
        [("csrc/shift_geometry.h", "(source >= size ? size - 1 : source)", "(source > size ? size - 1 : source)")],
        "channels_last",
        "AddressSanitizer: heap-buffer-overflow",
    ),
    "a vector at an address that is no multiple of it": (
        [("csrc/cuda/launch_plan.h", " | misalignment.in / element_size | misalignment.out / element_size", "")],
        "channels_last",
        "misaligned address",
    ),
    "a chunk that ends behind the tensor": (
        [("csrc/cuda/kernel_problem.h", "end <= p.misalignment + p.in_extent", "end <= 2 * (p.misalignment + p.in_extent)")],
        "channels_first",
        "AddressSanitizer: heap-buffer-overflow",
    ),
    "the last item of a launch left out": (
        [("csrc/cuda/spatial_shift.cu", "      if (item < p.items) {", "      if (item + 1 < p.items) {")],
        "channels_last",
        "differs from the reference",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bug_is_caught(name, tmp_path):
    edits, data_format, finding = PLANTED[name]
    failures = run_cases(build_kernels(tmp_path, edits), "ascending", only=data_format)
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


