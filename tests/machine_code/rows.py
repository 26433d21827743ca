"""The counted calls: launches at the sizes of the papers' models, and the least memory traffic of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from s2mlp_cuda import offsets

#: AS-MLP and UNeXt: five groups, which are unequal for 96 channels.
FIVE = tuple((0, d) for d in (-2, -1, 0, 1, 2))
BRANCHES = (offsets.SS1, offsets.SS2, ((0, 0),))
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
#: The size of one map. From this size on, memory bandwidth should limit a kernel.
MAP_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Row:
    """A call of an operator, and how many maps it must read or write once (the memory floor)."""

    name: str
    maps: float  # of ``shape``
    shape: tuple[int, ...]
    dtype: torch.dtype
    call: Callable  # of the operators

    @property
    def kilobytes(self) -> float:
        return self.maps * torch.Size(self.shape).numel() * self.dtype.itemsize / 1024


def flat(table) -> list[int]:
    return [d for pair in table for d in pair]


def images_of(height: int, channels: int, dtype: torch.dtype) -> int:
    return MAP_BYTES // (height * height * channels * dtype.itemsize)


def group_sizes(channels: int, table) -> list[int]:
    borders = [g * channels // len(table) for g in range(len(table) + 1)]
    return [end - begin for begin, end in zip(borders, borders[1:])]


def shift_rows(what: str, height: int, channels: int, table, data_format: str, dtype_name: str) -> Iterator[Row]:
    last = data_format == "channels_last"
    dtype = DTYPES[dtype_name]
    images = images_of(height, channels, dtype)
    shape = (images, height, height, channels) if last else (images, channels, height, height)
    layout = "CL" if last else "CF"
    table = flat(table)

    def x() -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype)

    def row(op: str, maps: int, call) -> Row:
        return Row(f"{op} {dtype_name} {layout} {what} {height}x{height}x{channels}", maps, shape, dtype, call)

    rest = (None, "replicate", data_format)
    yield row("shift forward", 2, lambda ops: ops.spatial_shift(x(), table, *rest))
    yield row("shift adjoint", 2, lambda ops: ops.spatial_shift_backward(x(), table, *rest))
    with_gelu = (None, "none", "replicate", data_format)
    yield row("gelu forward", 2, lambda ops: ops.gelu_spatial_shift(x(), table, *with_gelu))
    yield row("gelu backward", 3, lambda ops: ops.gelu_spatial_shift_backward(x(), x(), table, *with_gelu))


def branch_rows(height: int, channels: int, dtype_name: str) -> Iterator[Row]:
    dtype, count = DTYPES[dtype_name], len(BRANCHES)
    images = images_of(height, channels, dtype)
    shape = (images, height, height, channels)
    table = [d for branch in BRANCHES for d in flat(branch)]
    groups = table, [size for branch in BRANCHES for size in group_sizes(channels, branch)], "replicate"

    def one() -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype)

    def expanded() -> torch.Tensor:
        return torch.zeros(*shape[:-1], count * channels, dtype=dtype)

    def weights() -> torch.Tensor:
        return torch.zeros(images, count, channels)

    def pool_grad() -> torch.Tensor:
        return torch.zeros(images, channels)

    def row(op: str, maps: int, call) -> Row:
        return Row(f"branch {op} {dtype_name} {height}x{height}x{channels}", maps, shape, dtype, call)

    yield row("pool", count, lambda ops: ops.shift_branch_pool(expanded(), count, *groups))
    yield row("combine", count + 1, lambda ops: ops.shift_branch_combine(expanded(), weights(), *groups))
    yield row("combine_backward", count + 1, lambda ops: ops.shift_branch_combine_backward(one(), weights(), pool_grad(), *groups))
    yield row(
        "combine_backward_weights", count + 1,
        lambda ops: ops.shift_branch_combine_backward_weights(one(), expanded(), *groups),
    )  # fmt: skip


def all_rows() -> Iterator[Row]:
    for dtype_name in DTYPES:
        for height, channels in ((56, 64), (32, 128), (14, 384)):
            for data_format in ("channels_last", "channels_first"):
                yield from shift_rows("V1", height, channels, offsets.V1, data_format, dtype_name)
        yield from shift_rows("five groups", 56, 96, FIVE, "channels_last", dtype_name)
        for height, channels in ((32, 192), (16, 384)):
            yield from branch_rows(height, channels, dtype_name)
