"""Every CUDA kernel, run on the CPU under AddressSanitizer and UBSan, against the slice reference.

Emulation cannot show everything that a GPU would: see emulator.h.
"""

import pytest

from cases import DTYPES, all_cases, branch_cases, every_value_cases, far_cases, gelu_cases
from emulated import ORDERS, Run, build_kernels, run_cases, run_sanitized
from switches import ELEMENTS, STREAMING

#: The kernels of branches are not affected by the switch.
RUNS = {**{order: Run(order) for order in ORDERS}, "element by element": Run("shuffled", "^(shift|gelu)", ELEMENTS)}


@pytest.fixture(scope="module")
def failures_of_runs():
    return dict(zip(RUNS, run_cases("cuda", *RUNS.values())))


@pytest.fixture(scope="module", params=RUNS)
def failures(request, failures_of_runs):
    return failures_of_runs[request.param]


def check(failures, cases):
    names = {case.name for case in cases}
    assert names
    # A failure outside any case (such as a crash at the start) fails every test.
    assert {name: text for name, text in failures.items() if name in names or name.startswith("(")} == {}


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kernels(failures, dtype, data_format):
    check(failures, [case for case in all_cases() if case.dtype == dtype and case.data_format == data_format])


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_gelu_kernels(failures, dtype):
    check(failures, [case for case in gelu_cases() if case.dtype == dtype])


def test_gelu_of_every_value_of_16_bits(failures):
    check(failures, every_value_cases())


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_branch_kernels(failures, dtype):
    check(failures, [case for case in branch_cases() if case.dtype == dtype])


def test_branch_kernels_where_images_are_far_apart(failures):
    check(failures, far_cases())


def test_no_case_failed_unseen(failures):
    assert failures == {}


@pytest.mark.parametrize("capability", ["avx512", "avx2", "default"])
def test_cpu_kernels_under_the_same_sanitizers(capability, monkeypatch):
    """With the instruction set of each capability; the processor's own one if the capability is wider."""
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", capability)
    assert run_cases("cpu", Run()) == [{}]


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_wrong_calls_are_refused_without_a_finding(kind):
    assert run_sanitized(kind, "run_wrong_calls.py", str(build_kernels(kind))).endswith("calls refused\n")


def test_cpu_kernels_with_streaming_stores():
    assert run_cases("cpu", Run(only="replicate", switch=STREAMING)) == [{}]
