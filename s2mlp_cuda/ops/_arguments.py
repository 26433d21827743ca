"""Checks and normal forms of the arguments that every shift op takes."""

from collections.abc import Callable, Sequence
from functools import wraps
from operator import index

import torch

#: As csrc/padding.h has them.
PADDING_MODES = ("replicate", "zeros", "circular", "reflect")
DATA_FORMATS = ("channels_last", "channels_first")
APPROXIMATIONS = ("none", "tanh")
_FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
#: The shift table of one branch, None for a branch that stays.
BranchOffsets = Sequence[Sequence[int]] | None
_DTYPES = frozenset(_FLOATING + (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool))


_MOST_REMEMBERED = 256


def _is_constant(x) -> bool:
    return type(x) is int or x is None or (type(x) is tuple and all(map(_is_constant, x)))


def _remembering(function: Callable) -> Callable:
    """Remembers results of ``function(table, *rest)`` for tables that are tuples of integers throughout, which cannot change.

    By their identity: (1.0, 0) equals (1, 0), and is refused. Results must not be changed by those who get them.
    """
    known: dict[tuple, tuple] = {}  # with the table itself, which keeps its identity from being used again

    @wraps(function)
    def remembering(table, *rest):
        if torch.compiler.is_compiling():
            return function(table, *rest)
        key = (id(table), *rest)
        found = known.get(key)
        if found is not None:
            return found[1]
        result = function(table, *rest)
        if _is_constant(table):
            if len(known) == _MOST_REMEMBERED:
                known.clear()
            known[key] = table, result
        return result

    return remembering


@_remembering
def flat_offsets(offsets: Sequence[Sequence[int]]) -> list[int]:
    """``((dh0, dw0), (dh1, dw1), ...)`` as ``[dh0, dw0, dh1, dw1, ...]``, which callers must not change.

    Raises:
        TypeError: an offset is not a pair of integers.
        ValueError: the table is empty.
    """
    flat: list[int] = []
    try:
        for dh, dw in offsets:
            flat += (index(dh), index(dw))
    except (TypeError, ValueError):
        raise TypeError(f"offsets must be a sequence of (dh, dw) pairs of integers, got {offsets!r}") from None
    if not flat:
        raise ValueError("offsets is empty: give at least one (dh, dw) pair")
    return flat


def check_data_format(data_format: str) -> None:
    if data_format not in DATA_FORMATS:
        raise ValueError(f"data_format must be one of {', '.join(map(repr, DATA_FORMATS))}, got {data_format!r}")


def check_map(x: torch.Tensor, data_format: str) -> int:
    """Refuses what is not a map of a supported dtype and layout; returns the number of channels.

    Raises:
        TypeError: ``x`` is not a tensor, or its dtype is not supported.
        ValueError: fewer than three dimensions, or an unknown data format.
    """
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"x must be a torch.Tensor, got {type(x).__name__}")
    if x.dtype not in _DTYPES:
        raise TypeError(f"x must be float64, float32, float16, bfloat16, int64, int32, int16, int8, uint8 or bool, got {x.dtype}")
    check_data_format(data_format)
    if x.dim() < 3:
        layout = "(..., H, W, C)" if data_format == "channels_last" else "(..., C, H, W)"
        raise ValueError(f"x must have at least 3 dimensions, {layout}, got shape {tuple(x.shape)}")
    return x.shape[-1 if data_format == "channels_last" else -3]


def check_padding_mode(padding_mode: str) -> None:
    """
    Raises:
        ValueError: an unknown padding mode.
    """
    if padding_mode not in PADDING_MODES:
        raise ValueError(f"padding_mode must be one of {', '.join(map(repr, PADDING_MODES))}, got {padding_mode!r}")


def check_groups(groups: int, group_sizes: Sequence[int] | None, channels: int) -> list[int] | None:
    """Refuses groups that do not tile the channels; returns ``group_sizes`` as a list.

    Raises:
        TypeError: group sizes that are not integers.
        ValueError: more groups than channels, or group sizes that do not match the offsets or the channels.
    """
    if group_sizes is None:
        if groups > channels > 0:
            raise ValueError(f"cannot cut {channels} channels into {groups} groups: give at most one offset per channel")
        return None
    try:
        sizes = [index(size) for size in group_sizes]
    except TypeError:
        raise TypeError(f"group_sizes must be a sequence of integers, got {group_sizes!r}") from None
    if len(sizes) != groups:
        raise ValueError(f"group_sizes has {len(sizes)} entries, but there are {groups} offsets")
    if min(sizes) < 0:
        raise ValueError(f"group_sizes must not be negative, got {sizes}")
    if sum(sizes) != channels:
        raise ValueError(f"group_sizes {sizes} do not sum to the {channels} channels of x")
    return sizes


def check_floating(x: torch.Tensor, name: str) -> None:
    """
    Raises:
        TypeError: a dtype that has no derivatives.
    """
    if x.dtype not in _FLOATING:
        raise TypeError(f"{name} must be float64, float32, float16 or bfloat16, got {x.dtype}")


def check_approximate(approximate: str) -> None:
    """
    Raises:
        ValueError: an unknown approximation of GELU.
    """
    if approximate not in APPROXIMATIONS:
        raise ValueError(f"approximate must be one of {', '.join(map(repr, APPROXIMATIONS))}, got {approximate!r}")


def check_branches(branch_offsets: Sequence[BranchOffsets], expanded_channels: int) -> int:
    """The channels of one branch.

    Raises:
        ValueError: no branches, or channels that they do not divide.
    """
    if not len(branch_offsets):
        raise ValueError("branch_offsets is empty: give at least one offset table, or None for a branch that stays")
    if expanded_channels % len(branch_offsets):
        raise ValueError(f"cannot cut {expanded_channels} channels into {len(branch_offsets)} branches of equal size")
    return expanded_channels // len(branch_offsets)


def even_group_sizes(channels: int, groups: int) -> list[int]:
    """Group g owns channels floor(g*C/G) .. floor((g+1)*C/G) - 1."""
    return [(g + 1) * channels // groups - g * channels // groups for g in range(groups)]


@_remembering
def branch_groups(branch_offsets: Sequence[BranchOffsets], channels: int) -> tuple[list[int], list[int]]:
    """Flat offsets and group sizes of all branches, of ``channels`` channels each, as one table, which callers must not change.

    Raises:
        TypeError: offsets that are not pairs of integers.
        ValueError: an empty table, or one with more groups than channels.
    """
    offsets: list[int] = []
    sizes: list[int] = []
    for table in branch_offsets:
        flat = [0, 0] if table is None else flat_offsets(table)
        groups = len(flat) // 2
        check_groups(groups, None, channels)
        offsets += flat
        sizes += even_group_sizes(channels, groups)
    return offsets, sizes
