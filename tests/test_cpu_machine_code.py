"""Checks the machine code of the CPU kernels, for every instruction set in the binary. The processor need not support them."""

import platform
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from torch.utils.cpp_extension import include_paths

import x86_code

#: The least number of loops over vectors for each instruction set, by kernel. There are many more: remainders of runs take narrower
#: vectors, compilers vectorize other loops, and three branches have separate code from any other number.
LOOPS = {
    "shift": 2 * 2 * 4,  # by rows and by planes, cached and streaming stores, element sizes
    "adjoint": 2 * 2 * 4 * 2,  # the same per dtype: copies and sums
    "GELU": 3 * 2 * 3,  # by rows with both kinds of stores and by planes; exact and tanh; all dtypes but float64
    "GELU backward": 3 * 2 * 3 * 2,  # products and sums
    "pool, combine_backward_weights": 2 * 4,
    "combine, combine_backward": 2 * 2 * 4,  # with both kinds of stores
}
GELU_LOOPS = 2 * 3 * (1 + 3)  # loops that divide: forward and backward; exact in float32, tanh in all dtypes but float64

pytestmark = [
    pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="not an x86-64 processor"),
    pytest.mark.skipif(shutil.which("objdump") is None, reason="no objdump"),
]


@pytest.fixture(scope="module")
def loops():
    return x86_code.hot_loops()


@pytest.mark.parametrize("width", [16, 32, 64])  # baseline, AVX2, AVX-512
def test_all_kernels_have_loops_over_vectors(loops, width):
    of_width = [loop for loop in loops if loop.vector_bytes == width]
    assert len(of_width) >= sum(LOOPS.values())
    assert sum("divps" in str(loop) for loop in of_width) >= GELU_LOOPS


def test_no_loop_sends_vectors_through_the_stack(loops):
    faulty = [(loop, faults) for loop in loops if (faults := list(loop.faults()))]
    report = "\n\n".join(f"{faults[0]}, in\n{loop}" for loop, faults in faulty[:5])
    assert not faulty, f"{Counter(loop.vector_bytes for loop, _ in faulty)}\n{report}"


HALVES = """
    lea 0x40(%rsp),%r8
    vmovdqu (%rdx),%xmm5
    add $0x20,%rdx
    vmovdqa %xmm5,(%r8)
    vmovdqu -0x10(%rdx),%xmm5
    vmovdqa %xmm5,0x10(%r8)
    vmovaps 0x40(%rsp),%ymm0
    vmulps %ymm0,%ymm1,%ymm0
    vmovups %ymm0,-0x20(%rdx)
    jne 1
"""
WHOLE = HALVES.replace("ymm", "xmm")


def faults(listing: str) -> list[str]:
    """The faults of the only loop in a listing. Lines are numbered from 0; jump targets are line numbers."""
    lines = listing.strip().splitlines()
    code = [x86_code.Instruction(i, *line.strip().split(" ", 1)) for i, line in enumerate(lines)]
    (loop,) = x86_code.innermost_loops(code)
    assert loop.is_hot
    return [fault.partition(":")[0] for fault in loop.faults()]


@pytest.mark.parametrize(
    "listing, expected",
    [
        pytest.param(HALVES, ["cannot be forwarded"] * 2, id="two halves"),
        pytest.param(HALVES.replace("lea", "add"), [], id="elsewhere in memory"),
        pytest.param(HALVES.replace("0x40(%rsp),%ymm0", "0x60(%rsp),%ymm0"), [], id="a constant"),
        pytest.param(HALVES.replace("vmovaps 0x40(%rsp),%ymm0", "vmovaps %ymm5,%ymm0"), [], id="stored only"),
        pytest.param(WHOLE, ["stored as it was loaded"], id="whole"),
        pytest.param(WHOLE.replace("5,(%r8)", "5,(%r8){%k1}"), ["stored as it was loaded"], id="masked"),
        pytest.param(WHOLE.replace("vmovdqa %xmm5,(%r8)", "mov %rax,(%r8)"), ["cannot be forwarded"], id="a general register"),
        pytest.param(WHOLE.replace("vmovdqu (%rdx),%xmm5", "vaddps (%rdx),%xmm1,%xmm5"), [], id="computed"),
    ],
)
def test_what_a_fault_is(listing, expected):
    assert faults(listing) == expected


COPY = """
#include "cpu/runs.h"
void copy(float* to, const float* from, long count) {
  s2mlp::with_vectors([&](auto vectors) S2MLP_INLINE { s2mlp::copy_run(to, 1, from, 1, count, vectors); });
}
"""


@pytest.mark.parametrize(
    "flags",
    [
        "",
        "-march=native",
        "-march=nocona -mtune=haswell",
        "-march=haswell",
        "-march=znver3",
        "-march=skylake-avx512",
        "-mavx512vnni",
    ],
)
def test_kernels_compile_for_any_processor_that_users_choose(flags, tmp_path):
    """In CFLAGS or CXXFLAGS, as the compilers of conda do."""
    (tmp_path / "copy.cpp").write_text(COPY)
    includes = [f"-I{Path(__file__).parent.parent / 'csrc'}", *(f"-isystem{path}" for path in include_paths())]
    command = ["g++", "-std=c++17", "-Wno-psabi", *includes, *flags.split(), "-c", "copy.cpp", "-o", "copy.o"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
