"""The launch planner and the index arithmetic of the shift's kernels, tested without tensors: for maps of any size."""

import ctypes
import random

import pytest
import torch

from s2mlp_cuda import offsets
from s2mlp_cuda._arguments import even_group_sizes
from s2mlp_cuda.ops import PADDING_MODES

from cases import all_cases, gelu_cases, many_offsets
from emulated import load_plan_check

KERNELS = ("tokens", "planes", "elements", "too large")
H200 = (132, 2048)
SMALL = (1, 256)
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
        ("sizes", ctypes.POINTER(ctypes.c_int64)),
        ("offsets", ctypes.POINTER(ctypes.c_int64)),
        *(
            (name, ctypes.c_int64)
            for name in (
                "mode", "element_size", "in_misalignment", "out_misalignment", "multiprocessors", "threads_per_multiprocessor",
                "computed",
            )
        ),
    ]  # fmt: skip


class Plan(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("kernel", "vector", "launches", "blocks", "threads")]

    @property
    def name(self) -> str:
        return KERNELS[self.kernel]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    library = load_plan_check(tmp_path_factory.mktemp("plan"))
    library.s2mlp_wrong_quotients.restype = ctypes.c_int64
    return library


def numbers(x, data_format, table=V1, mode="replicate", misalignment=0, device=H200, sizes=None, computed=0) -> Numbers:
    """The planner's view of a map, which may be a meta tensor."""
    out = torch.empty_like(x)
    axes = [Axis(*axis) for axis in zip(x.shape, x.stride(), out.stride())]
    height, width, channel = (-3, -2, -1) if data_format == "channels_last" else (-2, -1, -3)
    flat = [d for pair in table for d in pair]
    sizes = sizes or even_group_sizes(x.shape[channel], len(table))
    return Numbers(
        x.dim() - 3, (Axis * 8)(*axes[:-3]), axes[height], axes[width], axes[channel],
        len(table), (ctypes.c_int64 * len(sizes))(*sizes), (ctypes.c_int64 * len(flat))(*flat), PADDING_MODES.index(mode),
        x.element_size(), misalignment, 0, *device, computed,
    )  # fmt: skip


def plan(library, *args, **kwargs) -> Plan:
    result = Plan()
    library.s2mlp_plan(ctypes.byref(numbers(*args, **kwargs)), ctypes.byref(result))
    return result


def check(library, request: Numbers, adjoint: int, step: int) -> tuple[int, int]:
    """Counts, in every ``step``-th block, wrong results of the index arithmetic and output elements that were computed."""
    violations, elements = ctypes.c_int64(), ctypes.c_int64()
    library.s2mlp_check(
        ctypes.byref(request), ctypes.c_int64(adjoint), ctypes.c_int64(step), ctypes.byref(violations), ctypes.byref(elements)
    )
    return violations.value, elements.value


def meta(shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype, device="meta")


def test_channels_last_takes_the_widest_vector_that_divides_the_channels(library):
    for dtype in (torch.uint8, torch.bfloat16, torch.float32, torch.float64):
        full = 16 // dtype.itemsize
        vector = full
        while vector >= 1:
            for channels in (13 * vector, 20 * vector):  # groups need not be multiples of the vector
                result = plan(library, meta((2, 14, 14, channels), dtype), "channels_last")
                assert (result.name, result.vector) == ("tokens", min(full, channels & -channels))
            vector //= 2


@pytest.mark.parametrize("misalignment, vector", [(0, 8), (8, 4), (4, 2), (2, 1), (6, 1)])
def test_misaligned_input_narrows_the_vector(library, misalignment, vector):
    assert plan(library, meta((2, 14, 14, 384)), "channels_last", misalignment=misalignment).vector == vector


def test_strides_narrow_the_vector(library):
    assert plan(library, meta((2, 14, 14, 388))[..., :384], "channels_last").vector == 4
    assert plan(library, meta((2, 14, 14, 768))[..., ::2], "channels_last").vector == 1


def test_channels_first_takes_planes_where_they_are_dense(library):
    dense = meta((2, 384, 14, 14))
    assert plan(library, dense, "channels_first").name == "planes"
    assert plan(library, dense, "channels_first", misalignment=2).name == "planes"
    assert plan(library, meta((2, 768, 14, 14))[:, ::2], "channels_first").name == "planes"
    assert plan(library, dense[..., 1:, :-1], "channels_first").name == "elements"
    assert plan(library, dense, "channels_first", table=[(0, 1)] * 65).name == "elements"
    channels_last_memory = meta((2, 14, 14, 384)).permute(0, 3, 1, 2)
    assert plan(library, channels_last_memory, "channels_first").name == "tokens"


@pytest.mark.parametrize("dtype, full", [(torch.bfloat16, 8), (torch.float32, 4), (torch.float64, 1)])
def test_gelu_takes_full_vectors_or_single_channels(library, dtype, full):
    for channels, vector in (
        (12 * full, full),
        (390 * full // 2 * 2, full),
        (387, 1),
        (6 * full + full // 2, full if full < 2 else 1),
    ):
        result = plan(library, meta((2, 14, 14, channels), dtype), "channels_last", computed=1)
        assert (result.name, result.vector) == ("tokens", vector)
    assert plan(library, meta((2, 14, 14, 12 * full), dtype), "channels_last", misalignment=8, computed=1).vector == 1
    planes = plan(library, meta((2, 384, 14, 14), dtype), "channels_first", computed=1)
    assert planes.name == ("planes" if full > 1 else "elements")


def test_leading_axes_are_merged_in_any_order(library):
    """The leading axes of a permuted dense map merge into one; those of slices of the inner axis stay two."""
    video = meta((4, 8, 14, 14, 384))
    for x in (video, video.transpose(0, 1), video[:, :5], video.transpose(0, 1)[:3]):
        result = plan(library, x, "channels_last")
        assert (result.name, result.vector) == ("tokens", 8)
    three = meta((4, 8, 6, 14, 14, 384))
    assert plan(library, three[:, :7, :5], "channels_last").name == "elements"
    assert plan(library, three.permute(2, 0, 1, 3, 4, 5), "channels_last").name == "tokens"


@pytest.mark.parametrize("device", [(1, 1024), (20, 1536), H200])
@pytest.mark.parametrize("shape", [(1, 1, 1, 8), (128, 14, 14, 384), (4096, 64, 56, 384), (8, 56, 56, 96), (2, 14, 14, 5000)])
def test_grids_cover_the_work_within_the_limits_of_the_device(library, device, shape):
    for data_format in ("channels_last", "channels_first"):
        result = plan(library, meta(shape), data_format, device=device)
        resident = device[0] * max(1, min(3 * 256, device[1]) // result.threads)
        assert result.threads % 32 == 0 and 32 <= result.threads <= 256
        column_tiles = -(-(shape[-1] // result.vector) // 256) if result.name == "tokens" else 2**10
        assert 1 <= result.blocks <= max(2 * resident, column_tiles)


LAST, FIRST = "channels_last", "channels_first"
BEYOND = {
    "channels-last bfloat16": (meta((48, 512, 256, 384)), LAST, "tokens"),
    "channels-last float32, uneven groups": (meta((48, 512, 256, 390), torch.float32), LAST, "tokens"),
    "channels-last uint8": (meta((6000, 64, 64, 96), torch.uint8), LAST, "tokens"),
    "one long row": (meta((1, 3 * 2**28, 4), torch.float16), LAST, "elements"),
    "one large image": (meta((2**15, 2**15, 4), torch.float16), LAST, "elements"),
    "channels-first bfloat16": (meta((48, 384, 512, 256)), FIRST, "planes"),
    "channels-first, planes that no vector divides": (meta((12000, 1024, 14, 14)), FIRST, "planes"),
    "channels-first, odd planes": (meta((300000, 7, 33, 33)), FIRST, "planes"),
    "channels-first, odd planes of few channels": (meta((700000, 3, 33, 33)), FIRST, "elements"),
    "channels-first, cut out of larger maps": (meta((48, 384, 514, 258), torch.float32)[:, :, 1:-1, 1:-1], FIRST, "elements"),
    "a slice of every second image": (meta((96, 512, 256, 384))[::2], LAST, "tokens"),
    "two leading axes": (meta((48, 3, 512, 256, 384))[:, :2], LAST, "tokens"),
    "images far apart": (meta((2, 2**14, 4, 4, 8))[:, :: 2**13], LAST, "tokens"),
}  # fmt: skip


@pytest.mark.parametrize("adjoint", [0, 1])
@pytest.mark.parametrize("name", BEYOND)
def test_beyond_2_to_the_31_elements(library, name, adjoint):
    """Sampled blocks: each thread writes its own outputs and reads the sources that the problem defines."""
    x, data_format, kernel = BEYOND[name]
    for mode, table in (("replicate", V1), ("circular", ((3, -5), (0, 0), (-700, 1))), ("reflect", ((1, 0), (0, -2)))):
        assert plan(library, x, data_format, table, mode).name == kernel
        violations, elements = check(library, numbers(x, data_format, table, mode), adjoint, 97)
        assert violations == 0 and elements > 0


def test_every_element_of_a_map_beyond_2_to_the_31_bytes(library):
    """Not sampled: all accesses of the launch are right, and each output is written once."""
    x = meta((42, 200, 256, 1024), torch.uint8)
    assert x.numel() > 2**31 and plan(library, x, "channels_last").vector == 16
    assert check(library, numbers(x, "channels_last", V1), 0, 1) == (0, x.numel())


def test_too_large_maps_are_refused(library):
    assert plan(library, meta((1, 1, 2**31, 4)), "channels_last").name == "too large"
    assert plan(library, meta((2**31, 1, 1, 4)), "channels_last").name == "too large"
    assert plan(library, meta((1, 2**15, 2**14, 64)), "channels_last").name == "elements"


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("shape, data_format", [((1, 1, 2**30, 1), "channels_last"), ((1, 2**30, 1), "channels_first")])
def test_the_longest_axis(library, shape, data_format, mode):
    """Sums of two sizes fit into 32 bits; a longer axis is refused. With offsets at which they are largest."""
    x = meta(shape, torch.uint8)
    for offset in (2**30, -(2**30), 2**30 - 1, 1 - 2**30, 1):
        table = ((0, offset),) if data_format == "channels_last" else ((offset, 0),)
        for adjoint in (0, 1):
            violations, elements = check(library, numbers(x, data_format, table, mode), adjoint, 1_000_003)
            assert violations == 0 and elements > 1000
    longer = meta([size + (size == 2**30) for size in shape], torch.uint8)
    assert plan(library, longer, data_format).name == "too large"


def test_every_element_of_the_emulated_cases(library):
    for case in all_cases():
        x = case.make()
        for adjoint in (0, 1):
            request = numbers(
                x, case.data_format, case.offsets, case.mode, x.data_ptr() % 16, SMALL, case.group_sizes
            )  # fmt: skip
            assert check(library, request, adjoint, 1) == (0, x.numel()), case.name


def test_emulated_cases_reach_every_kernel_and_vector_width(library):
    """test_kernels.py covers each access size of the forward kernels and each vector of the adjoint kernels."""
    reached = set()
    for case in all_cases():
        x = case.make()
        result = plan(library, x, case.data_format, case.offsets, case.mode, x.data_ptr() % 16, sizes=case.group_sizes)
        reached.add((result.name, case.dtype, result.vector))
    expected = set()
    for dtype in (torch.uint8, torch.bfloat16, torch.float16, torch.float32, torch.float64):
        full = 16 // dtype.itemsize
        expected |= {("tokens", dtype, 2**k) for k in range(full.bit_length())}
        expected |= {("planes", dtype, min(8, full)), ("elements", dtype, 1)}
    assert reached == expected


def test_emulated_gelu_cases_reach_every_kernel(library):
    reached = set()
    for case in gelu_cases():
        x, grad = case.make(), case.make_grad()
        for misalignment in (x.data_ptr() % 16, grad.data_ptr() % 16):  # forward, and backward if x is aligned at least as well
            result = plan(
                library, x, case.data_format, case.offsets, case.mode, misalignment, sizes=case.group_sizes, computed=1
            )  # fmt: skip
            reached.add((result.name, case.dtype, result.vector))
    expected = set()
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        full = 16 // dtype.itemsize if dtype != torch.float64 else 1
        expected |= {("tokens", dtype, full), ("tokens", dtype, 1)}
        expected |= {("planes", dtype, full)} if full > 1 else {("elements", dtype, 1)}
    assert expected <= reached


def test_tables_take_as_many_launches_as_they_need(library):
    """Launches have at most 64 groups and begin at multiples of the vector."""
    for groups, channels, launches in ((64, 512, 1), (65, 520, 2), (150, 1200, 3), (384, 384, 6)):
        x = meta((2, 5, 6, channels))
        table = many_offsets(groups)
        assert plan(library, x, "channels_last", table).launches == launches
        assert check(library, numbers(x, "channels_last", table), 0, 1) == (0, x.numel())


def test_division_by_multiplication(library):
    """Divisors near powers of two and random ones; dividends at the edges of 31 bits, near multiples, and random."""
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


OFFSETS_OF_32_BITS = [
    ("csrc/cuda/multiply_add.h", "return uint64_t{a} * b + c;", "return static_cast<uint32_t>(a * b) + c;"),
    ("csrc/cuda/plane_problem.h", "image.quotient * p.image_stride", "static_cast<int32_t>(image.quotient * p.image_stride)"),
]


@pytest.mark.parametrize("edit", OFFSETS_OF_32_BITS, ids=["tokens", "planes"])
def test_the_checker_sees_offsets_of_32_bits(tmp_path, edit):
    """Maps within 2^31 bytes do not show such bugs."""
    library = load_plan_check(tmp_path, [edit])
    name = "channels-last bfloat16" if "multiply" in edit[0] else "channels-first bfloat16"
    x, data_format, _ = BEYOND[name]
    assert check(library, numbers(x, data_format), 0, 97)[0] > 0
    small = x[:1, :8, :64, :64]
    assert check(library, numbers(torch.empty_like(small, device="meta"), data_format), 0, 1)[0] == 0
