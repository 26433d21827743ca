"""Every CUDA kernel, run on the CPU under AddressSanitizer and UBSan, against the slice reference.

Emulated is not "on a GPU": see emulator.h for what this cannot show.
"""

import platform

import pytest

from cases import DTYPES, all_cases, branch_cases, gelu_cases
from emulated import ORDERS, build_kernels, run_cases

#: The same sources with 64-bit indices for every map, which are otherwise taken beyond 2^30 elements.
WIDE = [("csrc/cuda/launch_plan.h", "std::numeric_limits<int32_t>::max() / 2", "0")]
RUNS = [("narrow", order) for order in ORDERS] + [("wide", "shuffled")]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    return {
        "narrow": build_kernels(tmp_path_factory.mktemp("narrow")),
        "wide": build_kernels(tmp_path_factory.mktemp("wide"), WIDE),
    }


@pytest.fixture(scope="module", params=RUNS, ids=[" ".join(run) for run in RUNS])
def failures(request, libraries):
    indices, order = request.param
    return run_cases(libraries[indices], order)


def check(failures, cases):
    names = {case.name for case in cases}
    assert names
    # A failure outside any case (a crash at the start, say) fails every test.
    assert {name: text for name, text in failures.items() if name in names or name.startswith("(")} == {}


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kernels(failures, dtype, data_format):
    check(failures, [case for case in all_cases() if case.dtype == dtype and case.data_format == data_format])


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_gelu_kernels(failures, dtype):
    check(failures, [case for case in gelu_cases() if case.dtype == dtype])


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_branch_kernels(failures, dtype):
    check(failures, [case for case in branch_cases() if case.dtype == dtype])


def test_no_case_failed_unseen(failures):
    assert failures == {}


@pytest.fixture(scope="module")
def cpu_library(tmp_path_factory):
    """The CPU kernels, which take the instruction set of an environment variable, if there is one."""
    path, detected = "csrc/cpu/instruction_sets.h", "= detect_instruction_set();"
    chosen = '= std::getenv("SET") ? InstructionSet(std::atoi(std::getenv("SET"))) : detect_instruction_set();'
    edits = [(path, detected, chosen), (path, "#include <type_traits>", "#include <cstdlib>\n#include <type_traits>")]
    return build_kernels(tmp_path_factory.mktemp("cpu"), edits, kernels="csrc/cpu/*.cpp")


@pytest.mark.parametrize("instructions", [None, 1, 0], ids=["widest", "kAvx2", "kBaseline"])
def test_cpu_kernels_under_the_same_sanitizers(instructions, cpu_library, monkeypatch):
    """As this processor would run them, and compiled for narrower vectors."""
    if instructions is not None:
        if platform.machine() != "x86_64":
            pytest.skip("not an x86-64 processor")
        monkeypatch.setenv("SET", str(instructions))
    assert run_cases(cpu_library, "ascending", launches=False) == {}
