"""Every CUDA kernel, run on the CPU under AddressSanitizer and UBSan, against the slice reference.

Emulated is not "on a GPU": see emulator.h for what this cannot show.
"""

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
    return build_kernels(tmp_path_factory.mktemp("cpu"), kernels="csrc/cpu/*.cpp")


@pytest.mark.parametrize("capability", ["avx512", "avx2", "default"])
def test_cpu_kernels_under_the_same_sanitizers(capability, cpu_library, monkeypatch):
    """With the instructions of each capability that this processor has; of a wider one it takes its own."""
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", capability)
    assert run_cases(cpu_library, "ascending", launches=False) == {}


def test_cpu_kernels_with_streaming_stores(tmp_path):
    """As beyond half of the last-level cache of AMD's processors, for maps of any size."""
    edit = ("csrc/cpu/cache.h", "return cache > 0 ? cache / 2 : std::numeric_limits<int64_t>::max();", "return cache * 0;")
    library = build_kernels(tmp_path, [edit], kernels="csrc/cpu/*.cpp")
    assert run_cases(library, "ascending", only="replicate", launches=False) == {}
