"""The machine code of the CUDA kernels, for every architecture in the binary. No GPU is needed to read it."""

import re
import shutil

import pytest

from s2mlp_cuda._extension import build_facts

import sass

#: Kernels that move 16 bytes at a time, and how many loads a thread must have in flight. A new kernel joins with a line.
WIDE = {
    r"strided_kernel<uint4, 1, (int|long), false, Identity>": 4,
    r"strided_kernel<(double, 2|float, 4|Half, 8|BFloat16, 8), (int|long), true, Identity>": 4,
    r"strided_kernel<(float, 4|Half, 8|BFloat16, 8), (int|long), false, Gelu<bool, 0> >": 2,
    r"strided_kernel<(float, 4|Half, 8|BFloat16, 8), (int|long), true, TimesGeluSlope<bool> >": 4,
    r"plane_kernel<\w+( \w+)?, (int|long), (true|false)>": 2,
    # Four tokens, with the weights of their channels: one load for float32, two for eight elements of 16 bits.
    r"combine_kernel<float, 4>": 5,
    r"combine_kernel<(Half|BFloat16), 8>": 6,
    r"combine_backward_kernel<float, 4>": 5,
    r"combine_backward_kernel<(Half|BFloat16), 8>": 6,
    r"pool_kernel<(float, 4|Half, 8|BFloat16, 8)>": 4,
    r"combine_backward_weights_kernel<(float, 4|Half, 8|BFloat16, 8)>": 8,  # of both maps
}
#: Kernels that write few numbers, 4 or 8 bytes per thread.
SUMS = ("pool_kernel", "combine_backward_weights_kernel")
#: With 32-bit indices but too many registers for half of a multiprocessor's threads: two on sm_100.
ALMOST_HALF = "strided_kernel<BFloat16, 8, int, true, TimesGeluSlope<bool> >"


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


def test_occupancy(kernels, capsys):
    """At least 37% everywhere, which is three blocks, and half a multiprocessor where indices have 32 bits."""
    with capsys.disabled():
        vectors = [k for k in kernels if any(re.fullmatch(p, k.name) for p in WIDE) and ", long," not in k.name]
        print("\n" + sass.table(vectors))
    for kernel in kernels:
        half = ", int," in kernel.name and kernel.name != ALMOST_HALF
        assert kernel.occupancy >= (0.5 if half else 0.37), kernel
