"""Hypothesis strategies for what a caller can pass to the raw operators: shapes, strides, offsets, groups, dtypes, threads."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st

from s2mlp_cuda.ops import PADDING_MODES

FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
DTYPES = (*FLOATING, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
#: Up to the ends of int64.
_FAR = (-(2**63), 2**63 - 1, -(2**31), 2**31 - 1, 2**32, 2**62)
any_offset = st.one_of(st.integers(-3, 3), st.integers(-40, 40), st.integers(-(2**63), 2**63 - 1), st.sampled_from(_FAR))
_sides = st.sampled_from((0, 1, 2, 3, 5, 7, 11))
_channels = st.sampled_from((0, 1, 2, 3, 4, 5, 7, 8, 12, 13, 16, 24, 31, 32, 64, 67, 96, 130))
_leading = st.lists(st.sampled_from((0, 1, 2, 3)), max_size=3)
_threads = st.sampled_from((1, 2, 3, 8))


@dataclass(frozen=True)
class Layout:
    """How a tensor lies in its buffer."""

    skip: int  # elements of the buffer before the tensor, for unaligned addresses
    steps: tuple[int, ...]  # every step-th index of each dimension of a larger tensor
    margins: tuple[int, ...]  # from this index on
    order: tuple[int, ...]  # of the dimensions in memory
    expanded: tuple[bool, ...]  # dimensions of stride 0

    def place(self, shape: tuple[int, ...], make_values) -> torch.Tensor:
        """A tensor with this shape and layout. ``make_values`` gets the shape without expanded dimensions."""
        values = make_values([1 if expanded else size for size, expanded in zip(shape, self.expanded)])
        sizes = [size * step + margin for size, step, margin in zip(values.shape, self.steps, self.margins)]
        in_memory = [sizes[d] for d in self.order]
        buffer = torch.zeros(self.skip + torch.Size(in_memory).numel(), dtype=values.dtype)
        larger = buffer[self.skip :].view(in_memory).permute([self.order.index(d) for d in range(len(sizes))])
        view = larger[tuple(slice(margin, None, step) for margin, step in zip(self.margins, self.steps))]
        return view.copy_(values).expand(shape)


def contiguous(dims: int, skip: int = 0) -> Layout:
    return Layout(skip, (1,) * dims, (0,) * dims, tuple(range(dims)), (False,) * dims)


@st.composite
def layouts(draw, shape: tuple[int, ...]) -> Layout:
    dims = len(shape)
    skip = draw(st.sampled_from((0, 0, 1, 2, 3, 5)))
    if draw(st.booleans()):
        return contiguous(dims, skip)
    steps = tuple(draw(st.lists(st.sampled_from((1, 1, 1, 2, 3)), min_size=dims, max_size=dims)))
    margins = tuple(draw(st.lists(st.sampled_from((0, 0, 0, 1, 3)), min_size=dims, max_size=dims)))
    order = tuple(draw(st.permutations(range(dims))))
    expanded = tuple(size > 1 and draw(st.integers(0, 7)) == 0 for size in shape)
    return Layout(skip, steps, margins, order, expanded)


@st.composite
def group_tables(draw, channels: int) -> tuple[list[int], list[int] | None]:
    """Flat offsets, and group sizes or None. Without group sizes, there are at most as many groups as channels."""
    even = channels > 0 and draw(st.booleans())
    groups = draw(st.integers(1, min(channels, 70) if even else draw(st.sampled_from((1, 4, 9, 70)))))
    offsets = draw(st.lists(any_offset, min_size=2 * groups, max_size=2 * groups))
    if even:
        return offsets, None
    cuts = sorted(draw(st.lists(st.integers(0, channels), min_size=groups - 1, max_size=groups - 1)))
    return offsets, [end - begin for begin, end in zip([0, *cuts], [*cuts, channels])]


@dataclass(frozen=True)
class ShiftCase:
    """Arguments of spatial_shift and gelu_spatial_shift, and of their backward operators."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    offsets: list[int]
    group_sizes: list[int] | None
    mode: str
    data_format: str
    approximate: str
    x: Layout
    grad: Layout
    threads: int
    seed: int


@st.composite
def shift_cases(draw, dtypes: tuple[torch.dtype, ...]) -> ShiftCase:
    data_format = draw(st.sampled_from(("channels_last", "channels_first")))
    channels, sides, leading = draw(_channels), [draw(_sides), draw(_sides)], draw(_leading)
    shape = (*leading, *sides, channels) if data_format == "channels_last" else (*leading, channels, *sides)
    return ShiftCase(
        shape,
        draw(st.sampled_from(dtypes)),
        *draw(group_tables(channels)),
        draw(st.sampled_from(PADDING_MODES)),
        data_format,
        draw(st.sampled_from(("none", "tanh"))),
        draw(layouts(shape)),
        draw(layouts(shape)),
        draw(_threads),
        draw(st.integers(0, 2**31)),
    )


@dataclass(frozen=True)
class BranchCase:
    """Arguments of the branch operators; ``shape`` is that of one branch's map, (..., H, W, C)."""

    shape: tuple[int, ...]
    branches: int
    dtype: torch.dtype
    offsets: list[int]
    group_sizes: list[int]
    mode: str
    x: Layout
    grad: Layout
    weights: Layout
    pool_grad: Layout
    threads: int
    seed: int


@st.composite
def branch_cases(draw) -> BranchCase:
    channels, branches = draw(_channels.filter(bool)), draw(st.integers(1, 5))
    shape = (*draw(_leading), draw(_sides), draw(_sides), channels)
    offsets, sizes = [], []
    for _ in range(branches):
        table, group_sizes = draw(group_tables(channels))
        groups = len(table) // 2
        even = [(g + 1) * channels // groups - g * channels // groups for g in range(groups)]
        offsets, sizes = offsets + table, sizes + (even if group_sizes is None else group_sizes)
    return BranchCase(
        shape,
        branches,
        draw(st.sampled_from(FLOATING)),
        offsets,
        sizes,
        draw(st.sampled_from(PADDING_MODES)),
        draw(layouts((*shape[:-1], branches * channels))),
        draw(layouts(shape)),
        draw(layouts((*shape[:-3], branches, channels))),
        draw(layouts((*shape[:-3], channels))),
        draw(_threads),
        draw(st.integers(0, 2**31)),
    )
