"""Validation and normalization of the arguments of operators, layers and tables."""

from collections.abc import Callable, Sequence
from functools import wraps
from math import inf
from numbers import Real
from operator import index
from typing import Any

import torch

#: The same as in csrc/padding.h.
PADDING_MODES = ("replicate", "zeros", "circular", "reflect")
DATA_FORMATS = ("channels_last", "channels_first")
APPROXIMATIONS = ("none", "tanh")
ATTENTION_POOLS = ("sum", "mean")
_FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
#: The shift table of one branch; None leaves the branch unshifted.
BranchOffsets = Sequence[Sequence[int]] | None
_DTYPES = frozenset(_FLOATING + (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool))


_CACHE_SIZE = 256


def _is_immutable(x) -> bool:
    """Whether ``x`` is an int, None or a nested tuple of these."""
    return type(x) is int or x is None or (type(x) is tuple and all(map(_is_immutable, x)))


def _cached(function: Callable) -> Callable:
    """Caches the results of ``function(table, *rest)`` for immutable tables: nested tuples of integers.

    The key is the identity of the table, not its value: (1.0, 0) equals (1, 0), but must be rejected. Callers must not modify
    the results.
    """
    cache: dict[tuple, tuple] = {}  # entries hold a reference to the table, so that its id is not reused

    @wraps(function)
    def cached(table, *rest):
        if torch.compiler.is_compiling():
            return function(table, *rest)
        rest = tuple(int(item) if isinstance(item, torch.SymInt) else item for item in rest)  # SymInt cannot be hashed
        key = (id(table), *rest)
        entry = cache.get(key)
        if entry is not None:
            return entry[1]
        result = function(table, *rest)
        if _is_immutable(table):
            if len(cache) >= _CACHE_SIZE:  # other threads may have filled it in the meantime
                cache.clear()
            cache[key] = table, result
        return result

    return cached


def _integer(value: Any) -> int:
    """
    Raises:
        TypeError: ``value`` is not an integer. As in PyTorch, a bool is none.
    """
    if isinstance(value, bool):
        raise TypeError
    return index(value)


def check_count(name: str, value: Any, least: int = 1) -> int:
    """``value`` as an int.

    Raises:
        TypeError: ``value`` is not an integer.
        ValueError: it is less than ``least``.
    """
    try:
        count = _integer(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if count < least:
        raise ValueError(f"{name} must be at least {least}, got {count}")
    return count


def check_ratio(name: str, value: Any) -> None:
    """
    Raises:
        TypeError: ``value`` is not a number.
        ValueError: it is not positive and finite.
    """
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0 < float(value) < inf:
        raise ValueError(f"{name} must be positive and finite, got {value}")


@_cached
def flat_offsets(offsets: Sequence[Sequence[int]], name: str = "offsets") -> list[int]:
    """``((dh0, dw0), (dh1, dw1), ...)`` as ``[dh0, dw0, dh1, dw1, ...]``. Callers must not modify the list.

    Raises:
        TypeError: an offset is not a pair of integers.
        ValueError: the table is empty, or an offset is not in the range of 64-bit integers.
    """
    flat: list[int] = []
    try:
        for dh, dw in offsets:
            flat += (_integer(dh), _integer(dw))
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a sequence of (dh, dw) pairs of integers, got {offsets!r}") from None
    if not flat:
        raise ValueError(f"{name} is empty: give at least one (dh, dw) pair")
    if max(flat) >= 2**63 or min(flat) < -(2**63):
        raise ValueError(f"{name} must be 64-bit integers, got {offsets!r}")
    return flat


def pairs_of(offsets: Sequence[Sequence[int]], name: str = "offsets") -> tuple[tuple[int, int], ...]:
    """A table as a tuple of pairs of ints.

    Raises:
        TypeError, ValueError: as :func:`flat_offsets`.
    """
    flat = flat_offsets(offsets, name)
    return tuple(zip(flat[::2], flat[1::2]))


def check_data_format(data_format: str) -> None:
    """
    Raises:
        ValueError: the data format is unknown.
    """
    if data_format not in DATA_FORMATS:
        raise ValueError(f"data_format must be one of {', '.join(map(repr, DATA_FORMATS))}, got {data_format!r}")


def check_map(x: torch.Tensor, data_format: str) -> int:
    """Checks type, dtype and dimensions of a map; returns the number of channels.

    Raises:
        TypeError: ``x`` is not a dense tensor, or its dtype is not supported.
        ValueError: ``x`` has fewer than three dimensions, or the data format is unknown.
    """
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"x must be a torch.Tensor, got {type(x).__name__}")
    if x.is_nested or x.layout is not torch.strided:
        raise TypeError(f"x must be a dense tensor, got {'a nested tensor' if x.is_nested else x.layout}")
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
        ValueError: the padding mode is unknown.
    """
    if padding_mode not in PADDING_MODES:
        raise ValueError(f"padding_mode must be one of {', '.join(map(repr, PADDING_MODES))}, got {padding_mode!r}")


def _hint_at(data_format: str | None) -> str:
    return "; channels are the last dimension unless data_format='channels_first'" if data_format == "channels_last" else ""


def check_groups(
    groups: int, group_sizes: Sequence[int] | None, channels: int | None, data_format: str | None = None
) -> list[int] | None:
    """Checks that the groups partition the channels, whose number may not be known yet; returns ``group_sizes`` as a list.

    Args:
        data_format: of the map that has these channels, if there is one: messages say where the channels were looked for.

    Raises:
        TypeError: a group size is not an integer.
        ValueError: there are more groups than channels, or the group sizes do not match the offsets or the channels.
    """
    if group_sizes is None:
        if channels is not None and groups > channels > 0:
            problem = f"cannot split {channels} channels into {groups} groups: give at most one offset per channel"
            raise ValueError(problem + _hint_at(data_format))
        return None
    try:
        sizes = [_integer(size) for size in group_sizes]
    except TypeError:
        raise TypeError(f"group_sizes must be a sequence of integers, got {group_sizes!r}") from None
    if len(sizes) != groups:
        raise ValueError(f"group_sizes has {len(sizes)} entries, but there are {groups} offsets")
    if min(sizes) < 0:
        raise ValueError(f"group_sizes must not be negative, got {sizes}")
    if channels is not None and sum(sizes) != channels:
        raise ValueError(f"group_sizes {sizes} do not sum to the {channels} channels of x{_hint_at(data_format)}")
    return sizes


def check_floating(x: torch.Tensor, name: str) -> None:
    """
    Raises:
        TypeError: ``x`` is not of a floating-point dtype.
    """
    if x.dtype not in _FLOATING:
        raise TypeError(f"{name} must be float64, float32, float16 or bfloat16, got {x.dtype}")


def check_same_device(x: torch.Tensor, name: str, other: torch.Tensor, other_name: str) -> None:
    """
    Raises:
        RuntimeError: the tensors are on different devices.
    """
    if x.device != other.device:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but got {name} on {x.device} and {other_name} on {other.device}"
        )


def check_beside_map(tensor: Any, name: str, x: torch.Tensor) -> torch.Tensor:
    """Checks a tensor that is used with the map ``x`` and converted to its accumulator dtype; returns it.

    Raises:
        TypeError: it is not a tensor, or is complex, which would lose the imaginary part.
        RuntimeError: it is on another device.
    """
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
    if tensor.dtype.is_complex:
        raise TypeError(f"{name} must be real, got {tensor.dtype}")
    check_same_device(tensor, name, x, "x")
    return tensor


def check_approximate(approximate: str) -> None:
    """
    Raises:
        ValueError: the GELU approximation is unknown.
    """
    if approximate not in APPROXIMATIONS:
        raise ValueError(f"approximate must be one of {', '.join(map(repr, APPROXIMATIONS))}, got {approximate!r}")


def check_attention_pool(attention_pool: str) -> None:
    """
    Raises:
        ValueError: the pooling is unknown.
    """
    if attention_pool not in ATTENTION_POOLS:
        raise ValueError(f"attention_pool must be one of {', '.join(map(repr, ATTENTION_POOLS))}, got {attention_pool!r}")


def check_branches(branch_offsets: Sequence[BranchOffsets], expanded_channels: int, name: str = "branch_offsets") -> int:
    """The number of channels of one branch.

    Raises:
        TypeError: the tables are not in a sequence.
        ValueError: there are no branches, or the number of channels is not a multiple of the number of branches.
    """
    try:
        branches = len(branch_offsets)
    except TypeError:
        raise TypeError(f"{name} must be a sequence of offset tables, got {branch_offsets!r}") from None
    if not branches:
        raise ValueError(f"{name} is empty: give at least one offset table, or None for an unshifted branch")
    if expanded_channels % branches:
        raise ValueError(f"cannot split {expanded_channels} channels into {branches} branches of equal size")
    return expanded_channels // branches


def branch_tables(
    branch_offsets: Sequence[BranchOffsets], name: str = "branch_offsets"
) -> tuple[tuple[tuple[int, int], ...] | None, ...]:
    """The tables of all branches as tuples of pairs of ints.

    Raises:
        TypeError: an offset is not a pair of integers.
        ValueError: a table is empty, or an offset is not in the range of 64-bit integers.
    """
    try:
        return tuple([None if table is None else pairs_of(table, f"{name}[{k}]") for k, table in enumerate(branch_offsets)])
    except TypeError:
        if _is_table(branch_offsets):
            raise TypeError(f"{name} must have one table per branch, got one table {branch_offsets!r}") from None
        raise


def _is_table(offsets) -> bool:
    try:
        return bool(flat_offsets(offsets))
    except (TypeError, ValueError):
        return False


def even_group_sizes(channels: int, groups: int) -> list[int]:
    """Group g owns channels floor(g*C/G) .. floor((g+1)*C/G) - 1."""
    return [(g + 1) * channels // groups - g * channels // groups for g in range(groups)]


@_cached
def branch_groups(
    branch_offsets: Sequence[BranchOffsets], channels: int, name: str = "branch_offsets"
) -> tuple[list[int], list[int]]:
    """The tables of all branches, of ``channels`` channels each, as flat offsets and group sizes. Callers must not modify them.

    Raises:
        TypeError: an offset is not a pair of integers.
        ValueError: a table is empty or has more groups than channels.
    """
    offsets: list[int] = []
    sizes: list[int] = []
    for k, table in enumerate(branch_tables(branch_offsets, name)):
        pairs = ((0, 0),) if table is None else table
        try:
            check_groups(len(pairs), None, channels)
        except ValueError as error:
            raise ValueError(f"{name}[{k}]: {error}") from None
        offsets += [number for pair in pairs for number in pair]
        sizes += even_group_sizes(channels, len(pairs))
    return offsets, sizes
