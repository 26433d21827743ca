"""Checks the machine code of the CUDA kernels, for every architecture in the binary. No GPU is needed."""

import re
import shutil

import pytest

from s2mlp_cuda._extension import build_facts

import sass

#: Kernels that move 16 bytes at a time, and how many loads a thread must have in flight. A new kernel needs a line here.
WIDE = {
    r"token_kernel<uint4, 1, false, Identity>": 4,
    r"token_kernel<(double, 2|float, 4|Half, 8|BFloat16, 8), true, Identity>": 4,
    r"token_kernel<(float, 4|Half, 8|BFloat16, 8), false, Gelu<bool> >": 4,
    r"token_kernel<(float, 4|Half, 8|BFloat16, 8), true, TimesGeluSlope<bool> >": 4,
    # Four tokens and the weights of their channels: one load for float32, two for eight 16-bit elements.
    r"combine_kernel<float, 4>": 5,
    r"combine_kernel<(Half|BFloat16), 8>": 6,
    r"combine_backward_kernel<float, 4>": 5,
    r"combine_backward_kernel<(Half|BFloat16), 8>": 6,
    r"pool_kernel<(float, 4|Half, 8|BFloat16, 8)>": 4,
    r"combine_backward_weights_kernel<(float, 4|Half, 8|BFloat16, 8)>": 8,  # from both maps
}
#: Kernels that assemble 16 bytes from one load per element, all in flight.
PLANES = {
    r"plane_kernel<(unsigned short|Half|BFloat16), .*>": 8,
    r"plane_kernel<(unsigned int|float), .*>": 4,
    r"plane_kernel<(unsigned long|double), .*>": 2,
}
#: Kernels that write little, 4 or 8 bytes per thread.
SUMS = ("pool_kernel", "combine_backward_weights_kernel")


@pytest.fixture(scope="module")
def kernels():
    if build_facts().get("CUDA kernels") == "not compiled in":
        pytest.skip("no CUDA kernels in this build")
    if shutil.which("c++filt") is None:
        pytest.skip("no c++filt")
    return sass.kernels()


def test_default_architectures(kernels):
    archs = {f"sm_{arch.replace('.', '')}" for arch in re.findall(r"\d+\.\d+(?=[;+]|$)", build_facts()["CUDA kernels"])}
    assert archs and {kernel.arch for kernel in kernels} == archs


def test_no_local_memory_and_no_spills(kernels):
    for kernel in kernels:
        assert (kernel.stack, kernel.local, kernel.local_accesses) == (0, 0, []), kernel


@pytest.mark.parametrize("pattern", WIDE)
def test_vector_paths_use_128_bit_accesses(kernels, pattern):
    matching = [kernel for kernel in kernels if re.fullmatch(pattern, kernel.name)]
    assert len(matching) >= len({kernel.arch for kernel in kernels})
    for kernel in matching:
        assert kernel.wide_loads >= WIDE[pattern] and (kernel.wide_stores > 0 or kernel.name.startswith(SUMS)), kernel
        assert kernel.loads_in_flight >= WIDE[pattern], kernel


@pytest.mark.parametrize("pattern", PLANES)
def test_planes_have_all_elements_of_a_store_in_flight(kernels, pattern):
    matching = [kernel for kernel in kernels if re.fullmatch(pattern, kernel.name)]
    assert len(matching) >= 2 * len({kernel.arch for kernel in kernels})
    for kernel in matching:
        assert kernel.wide_stores > 0 and kernel.loads_in_flight >= PLANES[pattern], kernel


def test_occupancy(kernels, capsys):
    """At least three blocks fit on a multiprocessor."""
    with capsys.disabled():
        print("\n" + sass.table([k for k in kernels if any(re.fullmatch(p, k.name) for p in WIDE)]))
    for kernel in kernels:
        assert kernel.blocks >= 3, kernel
