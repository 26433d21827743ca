"""The launch planner of the branch ops and their kernels' index arithmetic, tested without tensors."""

import ctypes

import pytest
import torch

from s2mlp_cuda.ops import PADDING_MODES

from cases import BRANCHES, branch_cases, many_offsets
from emulated import load_plan_check

POOL, COMBINE, COMBINE_BACKWARD, COMBINE_BACKWARD_WEIGHTS = WORKS = range(4)
SUMS = (POOL, COMBINE_BACKWARD_WEIGHTS)


class MapStrides(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("image", "row", "column")]


class BranchNumbers(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "branches", "channels", "group_count")),
        ("sizes", ctypes.POINTER(ctypes.c_int64)),
        ("offsets", ctypes.POINTER(ctypes.c_int64)),
        *((name, ctypes.c_int64) for name in ("mode", "work", "element_size", "misalignment")),
        ("expanded", MapStrides),
        ("combined", MapStrides),
        *((name, ctypes.c_int64) for name in ("weights", "pool_grad")),
    ]


class BranchPlanned(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("vector", "fits", "launches", "blocks", "lanes", "pieces")]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return load(tmp_path_factory.mktemp("plan"))


def load(folder, edits=()):
    library = load_plan_check(folder, edits)
    library.s2mlp_branch_violations.restype = ctypes.c_int64
    return library


def cut(channels: int, tables) -> list[int]:
    """Group sizes through all branches, each split evenly."""
    borders = [[g * channels // len(table) for g in range(len(table) + 1)] for table in tables]
    return [end - begin for row in borders for begin, end in zip(row, row[1:])]


def branch_numbers(
    shape, work=COMBINE, dtype=torch.bfloat16, tables=BRANCHES["paper"], mode="replicate", misalignment=0, **strides
) -> BranchNumbers:
    """Dense maps (images, H, W, C) of each branch; ``strides`` overrides some strides."""
    images, height, width, channels = shape
    sizes = cut(channels, tables)
    flat = [d for table in tables for pair in table for d in pair]
    expanded = len(tables) * channels
    dense = {
        "expanded": MapStrides(height * width * expanded, width * expanded, expanded),
        "combined": MapStrides(height * width * channels, width * channels, channels),
        "weights": expanded,
        "pool_grad": channels,
    }
    return BranchNumbers(
        images, height, width, len(tables), channels, len(sizes), (ctypes.c_int64 * len(sizes))(*sizes),
        (ctypes.c_int64 * len(flat))(*flat), PADDING_MODES.index(mode), work, dtype.itemsize, misalignment,
        *(strides.get(name, value) for name, value in dense.items()),
    )  # fmt: skip


def branch_plan(library, *args, **kwargs) -> BranchPlanned:
    result = BranchPlanned()
    library.s2mlp_branch_plan(ctypes.byref(branch_numbers(*args, **kwargs)), ctypes.byref(result))
    return result


def violations(library, *args, step=1, **kwargs) -> int:
    return library.s2mlp_branch_violations(ctypes.byref(branch_numbers(*args, **kwargs)), ctypes.c_int64(step))


def test_branches_take_full_vectors_where_everything_allows(library):
    for dtype, full in ((torch.bfloat16, 8), (torch.float16, 8), (torch.float32, 4), (torch.float64, 1)):
        assert branch_plan(library, (2, 14, 14, 12 * full), dtype=dtype).vector == full
        assert branch_plan(library, (2, 14, 14, 13), dtype=dtype).vector == 1


@pytest.mark.parametrize(
    "change",
    [
        {"misalignment": 2},
        {"misalignment": 4},  # weights that begin in the middle of 16 bytes
        {"misalignment": 8},
        {"tables": (many_offsets(5),)},  # borders at 76, 153, ...
        {"expanded": MapStrides(14 * 14 * 1156, 14 * 1156, 1156)},
        {"combined": MapStrides(14 * 14 * 384 + 4, 14 * 384, 384)},
        {"weights": 1156},
        {"pool_grad": 385},
    ],
    ids=["by 2", "by 4", "by 8", "tables", "expanded", "combined", "weights", "pool_grad"],
)
def test_branches_take_single_elements_otherwise(library, change):
    assert branch_plan(library, (2, 14, 14, 384)).vector == 8
    assert branch_plan(library, (2, 14, 14, 384), **change).vector == 1


def test_strides_of_axes_of_size_one_do_not_matter(library):
    odd = MapStrides(3, 5, 7)
    assert branch_plan(library, (1, 1, 1, 384), expanded=odd, combined=odd, weights=1, pool_grad=1).vector == 8
    assert violations(library, (1, 1, 1, 384), expanded=odd, combined=odd) == 0


def test_weights_shared_by_all_images(library):
    assert branch_plan(library, (2, 14, 14, 384), weights=0, pool_grad=0).vector == 8


def test_branch_grids(library):
    """Maps: 256 threads of four tokens. Sums: lanes of vectors, or of elements, per block, with blocks per branch if necessary."""
    for work in (COMBINE, COMBINE_BACKWARD):
        assert branch_plan(library, (2, 14, 14, 384), work).blocks == 2 * -(-49 * 48 // 256)
    assert branch_plan(library, (128, 14, 14, 384), POOL).blocks == 128 * 3
    assert branch_plan(library, (128, 14, 14, 384), COMBINE_BACKWARD_WEIGHTS).blocks == 128 * 3 * 3
    assert branch_plan(library, (2, 4, 4, 13), POOL).blocks == 2


def test_lanes_leave_few_threads_without_work(library):
    """8 vectors side by side, or 16 or 32 if these suit the channels and the map is small; 32 elements or more."""
    for shape, lanes in (((56, 56, 192), 8), ((14, 14, 384), 16), ((7, 7, 384), 16), ((1, 1, 384), 32)):
        assert branch_plan(library, (128, *shape), POOL).lanes == lanes
    assert branch_plan(library, (128, 56, 56, 30), POOL).lanes == 32
    assert branch_plan(library, (128, 56, 56, 52), POOL).lanes == 64
    assert branch_plan(library, (128, 1, 1, 100), POOL).lanes == 128


@pytest.mark.parametrize("work", SUMS)
def test_tokens_are_divided_where_blocks_are_few(library, work):
    """Pieces have four tokens per thread or a multiple, and only exist if images and channels alone give fewer than 256 blocks."""
    assert branch_plan(library, (128, 56, 56, 192), work).pieces == 1
    assert branch_plan(library, (1, 56, 56, 192), work).pieces == 25
    assert branch_plan(library, (8, 56, 56, 192), work).blocks >= 256
    assert branch_plan(library, (1, 14, 14, 384), work).pieces == 4
    assert branch_plan(library, (1, 7, 7, 384), work).pieces == 1


def test_tables_of_branches_take_as_many_launches_as_they_need(library):
    """Launches have the same channels of every branch and at most 64 groups."""
    many = many_offsets(40)
    assert branch_plan(library, (2, 4, 4, 320), tables=(many,)).launches == 1
    assert branch_plan(library, (2, 4, 4, 320), tables=(many, many)).launches == 2
    assert branch_plan(library, (2, 4, 4, 320), tables=(many, many, many)).launches == 2
    assert branch_plan(library, (2, 4, 4, 320), tables=(many,) * 60).launches == 40
    assert branch_plan(library, (2, 4, 4, 1000), tables=(many_offsets(1000), ((0, 1),))).launches == 16


LARGE = [
    ((200, 512, 256, 384), BRANCHES["paper"]),
    ((48, 512, 256, 390), BRANCHES["five"]),
    ((1, 2**12, 2**13, 96), BRANCHES["two"]),
    ((1, 1, 2**27, 32), BRANCHES["one"]),
    ((3, 700, 900, 320), (many_offsets(40), many_offsets(30), ((0, 0),))),
    ((100_000, 7, 7, 768), BRANCHES["paper"]),
]


@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("shape, tables", LARGE)
def test_branches_of_large_maps(library, shape, tables, work):
    """Sampled blocks: the channel, tokens and shifts of every thread agree with 64-bit arithmetic."""
    for mode in PADDING_MODES:
        assert branch_plan(library, shape, work, tables=tables, mode=mode).fits
        assert violations(library, shape, work, tables=tables, mode=mode, step=100_003) == 0


def test_rows_far_apart(library):
    """Steps beyond the last token overflow 32 bits; no token of the image does."""
    row = 8 * (2**30 - 200)
    for work in WORKS:
        far = MapStrides(2 * row, row, 192)
        assert branch_plan(library, (3, 2, 8, 64), work, expanded=far).fits
        assert violations(library, (3, 2, 8, 64), work, expanded=far) == 0


def test_branches_too_large_are_refused(library):
    assert branch_plan(library, (1, 2**13, 2**13, 32)).fits
    for shape, tables in (
        ((1, 2**15, 2**15, 8), BRANCHES["one"]),  # tokens
        ((1, 2**13, 2**14, 32), BRANCHES["paper"]),  # vectors of an image
        ((1, 1, 1, 2**29), BRANCHES["paper"]),  # channels
        ((1, 2**12, 2**11, 390), BRANCHES["paper"]),  # elements of an image, one by one
        ((2**31, 1, 1, 8), BRANCHES["one"]),  # blocks
        ((1, 4, 4, 8), (((0, 1),),) * 65),  # branches
    ):
        assert not branch_plan(library, shape, tables=tables).fits
    assert not branch_plan(library, (1, 3, 4, 8), expanded=MapStrides(0, 2**33, 24)).fits  # rows too far apart


def test_every_block_of_the_emulated_branch_cases(library):
    """The cases also reach both vector widths of every dtype, tables that need several launches, and divided tokens."""
    reached = set()
    for case in branch_cases():
        tensors = case.make()
        shape = (torch.Size(case.shape[:-3]).numel(), *case.shape[-3:])
        misalignment = 0
        for tensor in tensors.values():
            misalignment |= tensor.data_ptr() % 16
        for work in WORKS:
            arguments = (shape, work, case.dtype, case.tables, case.mode, misalignment)
            result = branch_plan(library, *arguments)
            reached.add((case.dtype, result.vector, work, "tables" if result.launches > 1 else ""))
            reached.add((case.dtype, result.vector, work, f"{min(result.pieces, 3)} pieces"))
            assert violations(library, *arguments) == 0, case.name
    expected = set()
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        full = 16 // dtype.itemsize if dtype != torch.float64 else 1
        for work in WORKS:
            kinds = ["", "tables", "1 pieces", *(["3 pieces"] if work in SUMS else [])]
            expected |= {(dtype, vector, work, kind) for vector in {1, full} for kind in kinds}
    assert expected <= reached


@pytest.mark.parametrize(
    "old, new",
    [
        ("begin + c >= p.groups[next].channel_begin", "begin + c > p.groups[next].channel_begin"),
        ("if (place.w >= p.width)", "if (place.w > p.width)"),
        ("kernel.first_channel = static_cast<int32_t>(begin / plan.vector)", "kernel.first_channel = 0"),
        ("kernel.by_lines = Divider(branch_lines(p, work))", "kernel.by_lines = Divider(1)"),
        ("kernel.by_pieces = Divider(plan.pieces)", "kernel.by_pieces = Divider(1)"),
        ("return i * image; }", "return static_cast<int32_t>(i * image); }"),
        ("adjoint ? forth : -forth", "forth"),
        ("const bool adjoint = is_adjoint(work);", "const bool adjoint = false;"),
        ("rows.size() * p.width)", "rows.size() * p.width + 1)"),
    ],
)
def test_the_branch_checker_sees_wrong_arithmetic(tmp_path, old, new):
    library = load(tmp_path, [("csrc/cuda/branch_kernel_problem.h", old, new)])
    found = sum(
        violations(library, shape, work, tables=(many_offsets(40), many_offsets(40)), step=step)
        for shape, step in (((2, 14, 14, 320), 1), ((1, 40, 30, 320), 1), ((2000, 300, 200, 320), 10**7))
        for work in WORKS
    )
    assert found > 0
