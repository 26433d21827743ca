"""The launch planner and the kernels' index arithmetic, from numbers alone: also for maps that no machine could hold."""

import ctypes
import random

import pytest
import torch

from s2mlp_cuda import offsets
from s2mlp_cuda.ops import PADDING_MODES

from cases import all_cases, gelu_cases
from emulated import load_plan_check

KERNELS = ("channel vectors", "plane vectors", "elements")
H200 = (132, 2048)
V1 = offsets.V1


class Axis(ctypes.Structure):
    _fields_ = [("size", ctypes.c_int64), ("in_stride", ctypes.c_int64), ("out_stride", ctypes.c_int64)]


class Numbers(ctypes.Structure):
    _fields_ = [
        ("leading_count", ctypes.c_int64),
        ("leading", Axis * 8),
        ("height", Axis),
        ("width", Axis),
        ("channel", Axis),
        ("group_count", ctypes.c_int64),
        ("offsets", ctypes.POINTER(ctypes.c_int64)),
        ("mode", ctypes.c_int64),
        ("element_size", ctypes.c_int64),
        ("in_misalignment", ctypes.c_int64),
        ("out_misalignment", ctypes.c_int64),
        ("multiprocessors", ctypes.c_int64),
        ("threads_per_multiprocessor", ctypes.c_int64),
    ]


class Plan(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("kernel", "vector", "index_64", "items_per_thread", "grid", "block")]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    library = load_plan_check(tmp_path_factory.mktemp("plan"))
    library.s2mlp_violations.restype = ctypes.c_int64
    library.s2mlp_wrong_quotients.restype = ctypes.c_int64
    return library


def numbers(x, data_format, table=V1, mode="replicate", misalignment=0, device=H200) -> Numbers:
    """A map as the planner sees it; a meta tensor will do."""
    out = torch.empty_like(x)
    axes = [Axis(*sizes) for sizes in zip(x.shape, x.stride(), out.stride())]
    height, width, channel = (-3, -2, -1) if data_format == "channels_last" else (-2, -1, -3)
    flat = [d for pair in table for d in pair]
    return Numbers(
        x.dim() - 3, (Axis * 8)(*axes[:-3]), axes[height], axes[width], axes[channel],
        len(table), (ctypes.c_int64 * len(flat))(*flat), PADDING_MODES.index(mode), x.element_size(), misalignment, 0, *device,
    )  # fmt: skip


def plan(library, *args, computed=0, **kwargs) -> Plan:
    """Of the plain shift, or where elements are computed with."""
    result = Plan()
    library.s2mlp_plan(ctypes.byref(numbers(*args, **kwargs)), ctypes.c_int64(computed), ctypes.byref(result))
    return result


def meta(shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype, device="meta")


def test_channels_last_takes_the_widest_vector_that_the_groups_allow(library):
    for dtype in (torch.uint8, torch.bfloat16, torch.float32, torch.float64):
        full = 16 // dtype.itemsize
        vector = full
        while vector >= 1:
            result = plan(library, meta((2, 14, 14, 12 * vector), dtype), "channels_last")
            assert (KERNELS[result.kernel], result.vector, result.index_64) == ("channel vectors", vector, 0)
            vector //= 2


@pytest.mark.parametrize("misalignment, vector", [(0, 8), (8, 4), (4, 2), (2, 1), (6, 1)])
def test_misaligned_input_narrows_the_vector(library, misalignment, vector):
    assert plan(library, meta((2, 14, 14, 384)), "channels_last", misalignment=misalignment).vector == vector


def test_strides_narrow_the_vector(library):
    assert plan(library, meta((2, 14, 14, 388))[..., :384], "channels_last").vector == 4
    assert plan(library, meta((2, 14, 14, 768))[..., ::2], "channels_last").vector == 1


def test_channels_first_takes_planes_where_they_are_dense(library):
    dense = meta((2, 384, 14, 14))
    assert KERNELS[plan(library, dense, "channels_first").kernel] == "plane vectors"
    assert KERNELS[plan(library, dense, "channels_first", misalignment=2).kernel] == "plane vectors"
    assert KERNELS[plan(library, dense[..., 1:, :-1], "channels_first").kernel] == "elements"
    assert KERNELS[plan(library, dense, "channels_first", table=[(0, 1)] * 65).kernel] == "elements"
    channels_last_memory = meta((2, 14, 14, 384)).permute(0, 3, 1, 2)
    assert KERNELS[plan(library, channels_last_memory, "channels_first").kernel] == "channel vectors"


@pytest.mark.parametrize("device", [(1, 1024), (20, 1536), H200])
@pytest.mark.parametrize("shape", [(1, 1, 1, 8), (128, 14, 14, 384), (4096, 64, 56, 384)])
def test_grid_covers_the_work_within_the_devices_limits(library, device, shape):
    result = plan(library, meta(shape), "channels_last", device=device)
    items = -(-meta(shape).numel() // result.vector)
    tile = result.block * result.items_per_thread
    resident = device[0] * (device[1] // result.block)
    assert 1 <= result.grid <= min(2**31 - 1, 4 * resident)
    assert result.grid == min(4 * resident, -(-items // tile)), "no block without work, and no fewer than fit"
    assert result.block <= 1024


def test_64_bit_indices_only_where_needed(library):
    below, beyond = (64, 512, 256, 127), (64, 512, 256, 129)
    assert plan(library, meta(below), "channels_last").index_64 == 0
    assert plan(library, meta(beyond), "channels_last").index_64 == 1
    # Few elements, far apart: the offsets are what counts.
    assert plan(library, meta((2, 2**28, 4, 8))[:, :: 2**27], "channels_last").index_64 == 1


BEYOND = {
    "channels-last bfloat16": (meta((48, 512, 256, 384)), "channels_last"),
    "channels-last float32, uneven groups": (meta((48, 512, 256, 390), torch.float32), "channels_last"),
    "channels-last uint8": (meta((6000, 64, 64, 96), torch.uint8), "channels_last"),
    "one long row": (meta((1, 3 * 2**29, 4), torch.float16), "channels_last"),
    "channels-first bfloat16": (meta((48, 384, 512, 256)), "channels_first"),
    "channels-first, planes that no vector divides": (meta((12000, 1024, 14, 14)), "channels_first"),
    "channels-first, cut out of larger maps": (meta((48, 384, 514, 258), torch.float32)[:, :, 1:-1, 1:-1], "channels_first"),
    "a slice of every second image": (meta((96, 512, 256, 384))[::2], "channels_last"),
}  # fmt: skip


@pytest.mark.parametrize("adjoint", [0, 1])
@pytest.mark.parametrize("name", BEYOND)
def test_beyond_2_to_the_31_elements(library, name, adjoint):
    """Sampled items: each writes its own outputs, and reads what the problem says, inside the input."""
    x, data_format = BEYOND[name]
    assert x.numel() > 2**30
    for mode, table in (("replicate", V1), ("circular", ((3, -5), (0, 0), (-700, 1)))):
        request = numbers(x, data_format, table, mode)
        assert plan(library, x, data_format, table, mode).index_64 == 1
        assert library.s2mlp_violations(ctypes.byref(request), adjoint, ctypes.c_int64(100_003)) == 0


def test_every_item_of_a_map_beyond_2_to_the_31_elements(library):
    """Not sampled: all 138 million items of the launch."""
    x = meta((42, 200, 256, 1024), torch.uint8)
    assert x.numel() > 2**31 and plan(library, x, "channels_last").vector == 16
    request = numbers(x, "channels_last", V1)
    assert library.s2mlp_violations(ctypes.byref(request), 0, ctypes.c_int64(1)) == 0


def test_every_item_of_the_emulated_cases(library):
    for case in all_cases():
        x = case.make()
        for adjoint in (0, 1):
            request = numbers(x, case.data_format, case.offsets, case.mode, x.data_ptr() % 16)
            assert library.s2mlp_violations(ctypes.byref(request), adjoint, ctypes.c_int64(1)) == 0, case.name


def test_emulated_cases_reach_every_kernel_and_vector_width(library):
    """What test_kernels.py runs is all there is: each access size of the forward kernels, each vector of the adjoint's."""
    reached = set()
    for case in all_cases():
        x = case.make()
        result = plan(library, x, case.data_format, case.offsets, case.mode, x.data_ptr() % 16)
        reached.add((KERNELS[result.kernel], case.dtype, result.vector))
    expected = set()
    for dtype in (torch.uint8, torch.bfloat16, torch.float16, torch.float32, torch.float64):
        full = 16 // dtype.itemsize
        expected |= {("channel vectors", dtype, 2**k) for k in range(full.bit_length())}
        expected |= {("plane vectors", dtype, full), ("elements", dtype, 1)}
    assert reached == expected


def test_division_by_multiplication(library):
    """Every divisor near a power of two and random ones, at the edges of 31 bits, of their multiples, and at random."""
    generator = random.Random(0)
    largest = 2**31 - 1
    divisors = {max(1, min(largest, 2**k + d)) for k in range(32) for d in (-1, 0, 1)}
    divisors |= {generator.randint(1, largest) for _ in range(500)} | set(range(1, 300))
    for divisor in divisors:
        multiples = [divisor * generator.randint(0, largest // divisor) for _ in range(200)]
        values = [n + d for n in multiples for d in (-1, 0, 1)] + [0, largest - 1, largest]
        values = [n for n in values if 0 <= n <= largest] + [generator.randint(0, largest) for _ in range(200)]
        array = (ctypes.c_int64 * len(values))(*values)
        assert library.s2mlp_wrong_quotients(ctypes.c_int64(divisor), array, ctypes.c_int64(len(values))) == 0, divisor


def test_the_checker_sees_a_wrong_problem(library):
    """Fed strides of another tensor, the check must find violations: it is not vacuous."""
    x = meta((2, 14, 14, 384))
    request = numbers(x, "channels_last")
    request.height.out_stride += 8
    assert library.s2mlp_violations(ctypes.byref(request), 0, ctypes.c_int64(1)) > 0


# ---- Shift with GELU -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, full", [(torch.bfloat16, 8), (torch.float32, 4), (torch.float64, 1)])
def test_gelu_takes_full_vectors_or_single_elements(library, dtype, full):
    for channels, vector in ((12 * full, full), (390, 1), (6 * full, 1)):
        result = plan(library, meta((2, 14, 14, channels), dtype), "channels_last", computed=1)
        assert (KERNELS[result.kernel], result.vector, result.index_64) == ("channel vectors", vector, 0)
    assert plan(library, meta((2, 14, 14, 12 * full), dtype), "channels_last", misalignment=8, computed=1).vector == 1
    planes = plan(library, meta((2, 384, 14, 14), dtype), "channels_first", computed=1)
    assert (KERNELS[planes.kernel], planes.vector) == ("elements", 1)


def test_gelu_uses_64_bit_indices_where_needed(library):
    result = plan(library, meta((48, 512, 256, 384)), "channels_last", computed=1)
    assert (result.vector, result.index_64) == (8, 1)


def test_emulated_gelu_cases_reach_every_kernel(library):
    reached = set()
    for case in gelu_cases():
        x, grad = case.make(), case.make_grad()
        for misalignment in (x.data_ptr() % 16, grad.data_ptr() % 16):  # forward, and backward where x is no worse
            result = plan(library, x, case.data_format, case.offsets, case.mode, misalignment, computed=1)
            reached.add((KERNELS[result.kernel], case.dtype, result.vector))
    expected = set()
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        full = 16 // dtype.itemsize if dtype != torch.float64 else 1
        expected |= {("channel vectors", dtype, full), ("channel vectors", dtype, 1), ("elements", dtype, 1)}
    assert reached == expected
