"""The public functions and layers as functions of tensors, and the same in PyTorch operators without slices: index_select with
the indices of the NumPy oracle. Shares no code with the package, and has derivatives of all orders."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
import torch
from torch.func import functional_call
from torch.nn import functional

import s2mlp_cuda
from s2mlp_cuda.layers import S2, ShiftSum

import numpy_oracle

#: Offsets per group; None for a branch that is not shifted.
Table = tuple[tuple[int, int], ...] | None


@dataclass(frozen=True)
class Options:
    """The arguments of a function or layer besides tensors. Functions of one map use the first table."""

    tables: tuple[Table, ...]
    group_sizes: tuple[int, ...] | None
    mode: str
    data_format: str
    approximate: str
    mean: bool  # of the branches in ShiftSum, of the tokens in split attention


@lru_cache(maxsize=256)
def _sources(height: int, width: int, channels: int, tables: tuple[Table, ...], group_sizes, mode: str):
    """For each element of a map (H, W, K*C), the index of the element that it reads, and whether it reads one."""
    offsets: list[int] = []
    sizes: list[int] = []
    for table in tables:
        flat = [d for pair in table or ((0, 0),) for d in pair]
        offsets += flat
        sizes += numpy_oracle.sizes_of(channels // len(tables), len(flat) // 2, group_sizes and list(group_sizes))
    index = np.arange(height * width * channels).reshape(height, width, channels)
    source, read = np.zeros_like(index), np.zeros(index.shape, bool)
    for group, h, w, from_h, from_w in numpy_oracle.moves(index.shape, offsets, sizes, mode):
        source[h, w, group] = index[from_h, from_w, group]
        read[h, w, group] = True
    return source.ravel(), read


def shift(x: torch.Tensor, options: Options, tables: tuple[Table, ...]) -> torch.Tensor:
    first = options.data_format == "channels_first"
    x = x.movedim(-3, -1) if first else x
    found = _sources(*x.shape[-3:], tables, options.group_sizes, options.mode)
    source, read = map(torch.from_numpy, found)
    out = torch.where(read, x.flatten(-3).index_select(-1, source).unflatten(-1, x.shape[-3:]), 0)
    return out.movedim(-1, -3) if first else out


def _branches(x: torch.Tensor, options: Options) -> torch.Tensor:
    """The shifted branches (..., H, W, K, C)."""
    shifted = shift(x, options, options.tables)
    return shifted.unflatten(-1, (len(options.tables), shifted.shape[-1] // len(options.tables)))


def _combine(x: torch.Tensor, weights: torch.Tensor, options: Options) -> torch.Tensor:
    return (_branches(x, options) * weights[..., None, None, :, :]).sum(-2)


def _attention(x: torch.Tensor, fc1: torch.Tensor, fc2: torch.Tensor, options: Options) -> torch.Tensor:
    branches = _branches(x, options)
    pooled = branches.sum((-4, -3, -2)) / (max(1, branches.shape[-4] * branches.shape[-3]) if options.mean else 1)
    hidden = functional.gelu(pooled @ fc1.mT)
    logits = (hidden @ fc2.mT).unflatten(-1, (len(options.tables), fc1.shape[1]))
    return _combine(x, logits.softmax(-2), options)


def _sum(x: torch.Tensor, options: Options) -> torch.Tensor:
    return _branches(x, options).sum(-2) / (len(options.tables) if options.mean else 1)


def _s2(x, fc1, fc2, expand, expand_bias, project, project_bias, options: Options) -> torch.Tensor:
    x = x.movedim(-3, -1) if options.data_format == "channels_first" else x
    inner = replace(options, data_format="channels_last")
    out = _attention(x @ expand.mT + expand_bias, fc1, fc2, inner) @ project.mT + project_bias
    return out.movedim(-1, -3) if options.data_format == "channels_first" else out


ORACLES: dict[str, Callable] = {
    "spatial_shift": lambda x, options: shift(x, options, options.tables[:1]),
    "gelu_spatial_shift": lambda x, options: shift(
        functional.gelu(x, approximate=options.approximate), options, options.tables[:1]
    ),
    "shift_branch_pool": lambda x, options: _branches(x, options).sum((-4, -3, -2)),
    "shift_branch_combine": _combine,
    "shift_split_attention": _attention,
    "ShiftSum": _sum,
    "S2": _s2,
}
LAYERS = {"SpatialShift": "spatial_shift", "GELUSpatialShift": "gelu_spatial_shift", "ShiftSplitAttention": "shift_split_attention"}
NAMES = (*ORACLES, *LAYERS)
ONE_MAP = ("spatial_shift", "gelu_spatial_shift", "SpatialShift", "GELUSpatialShift")
#: Their results are linear in every input, so that small integers give exact results.
LINEAR = ("spatial_shift", "SpatialShift", "shift_branch_pool", "shift_branch_combine")


def oracle_of(name: str, options: Options) -> Callable[..., torch.Tensor]:
    return partial(ORACLES[LAYERS.get(name, name)], options=options)


def function_of(name: str, options: Options, channels: int, hidden: int) -> Callable[..., torch.Tensor]:
    """The function or layer as a function of its input and its parameters, if any.

    Args:
        channels: of one branch.
        hidden: size of the hidden layer of the split attention.
    """
    padding = {"padding_mode": options.mode}
    one_map = {**padding, "group_sizes": options.group_sizes, "data_format": options.data_format}
    gelu = {**one_map, "approximate": options.approximate}
    if name in ("spatial_shift", "gelu_spatial_shift"):
        return partial(getattr(s2mlp_cuda, name), offsets=options.tables[0], **(one_map if name == "spatial_shift" else gelu))
    attention = {**padding, "attention_pool": "mean" if options.mean else "sum"}
    if name not in LAYERS and name not in ("ShiftSum", "S2"):
        keywords = attention if name == "shift_split_attention" else padding
        return lambda *tensors: getattr(s2mlp_cuda, name)(*tensors, options.tables, **keywords)
    layers: dict[str, Callable[[], torch.nn.Module]] = {
        "SpatialShift": lambda: s2mlp_cuda.SpatialShift(options.tables[0], **one_map),
        "GELUSpatialShift": lambda: s2mlp_cuda.GELUSpatialShift(options.tables[0], **gelu),
        "ShiftSplitAttention": lambda: s2mlp_cuda.ShiftSplitAttention(channels, options.tables, hidden, **attention),
        "ShiftSum": lambda: ShiftSum(options.tables, options.mean, **padding),
        "S2": lambda: S2(channels, options.tables, attention_channels=hidden, data_format=options.data_format, **attention),
    }
    with torch.device("meta"):
        layer = layers[name]()
    names = [each for each, _ in layer.named_parameters()]
    return lambda x, *parameters: functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))
