"""The operators of this package and every other way that people write them. All are checked against a judge."""

from collections.abc import Callable
from functools import partial

import torch

from torch.nn import functional

from s2mlp_cuda import gelu_spatial_shift, reference, shift_split_attention, spatial_shift
from s2mlp_cuda.demo.timing import OURS, clone_and_assign
from s2mlp_cuda.offsets import SS1, SS2, V1

Shift = Callable[[torch.Tensor], torch.Tensor]


def gather(x: torch.Tensor, data_format: str) -> torch.Tensor:
    """``index_select`` of clamped rows and columns per group, then ``cat``."""
    channel_dim = -1 if data_format == "channels_last" else -3
    height_dim = -3 if data_format == "channels_last" else -2
    height, width = x.shape[height_dim], x.shape[height_dim + 1]
    parts = []
    for (dh, dw), part in zip(V1, x.chunk(4, channel_dim)):
        dim, size, offset = (height_dim, height, dh) if dh else (height_dim + 1, width, dw)
        index = (torch.arange(size, device=x.device) - offset).clamp(0, size - 1)
        parts.append(part.index_select(dim % x.dim(), index))
    return torch.cat(parts, channel_dim)


def shift_peers(data_format: str) -> dict[str, Shift]:
    """Name: V1 shift of maps in one data format; ours first. torchvision's is left out where it is not installed."""
    shifts = {
        OURS: partial(spatial_shift, data_format=data_format),
        "slices, cloned and assigned": partial(clone_and_assign, data_format=data_format),
        "slices + cat": partial(reference.spatial_shift, data_format=data_format),
        "padded roll": partial(reference.spatial_shift_roll, data_format=data_format),
        "one-hot depthwise conv2d": partial(reference.spatial_shift_conv2d, data_format=data_format),
        "deform_conv2d": partial(reference.spatial_shift_deform_conv2d, data_format=data_format),
        "index_select + cat": partial(gather, data_format=data_format),
        "torch.compile(slices + cat)": torch.compile(
            partial(reference.spatial_shift, data_format=data_format), dynamic=False
        ),
    }
    try:
        import torchvision  # noqa: F401
    except ImportError:
        del shifts["deform_conv2d"]
    return shifts


FUSED_GELU = "s2mlp_cuda.gelu_spatial_shift"
#: What the fused operator is held against; it does not shift, so it is not compared with the judge.
GELU_ALONE = "F.gelu alone"


def gelu_peers(data_format: str) -> dict[str, Shift]:
    """Name: GELU, then V1's shift, of maps in one data format; ours first."""

    def gelu_then(shift: Shift) -> Shift:
        return lambda x: shift(functional.gelu(x))

    shift = partial(reference.spatial_shift, data_format=data_format)
    select = partial(gather, data_format=data_format)
    return {
        FUSED_GELU: partial(gelu_spatial_shift, data_format=data_format),
        GELU_ALONE: functional.gelu,
        "F.gelu, s2mlp_cuda.spatial_shift": gelu_then(partial(spatial_shift, data_format=data_format)),
        "F.gelu, slices + cat": gelu_then(shift),
        "torch.compile(F.gelu, slices + cat)": torch.compile(gelu_then(shift), dynamic=False),
        "torch.compile(F.gelu, index_select + cat)": torch.compile(gelu_then(select), dynamic=False),
    }


BRANCHES = (SS1, SS2, None)
FUSED_ATTENTION = "s2mlp_cuda.shift_split_attention"


def split_attention(x, fc1_weight, fc2_weight, shift) -> torch.Tensor:
    """As public code has it: shifted branches stacked, summed, weighted and summed again. ``shift(map, table)``."""
    maps = [part if table is None else shift(part, table) for part, table in zip(x.chunk(3, -1), BRANCHES)]
    stack = torch.stack(maps, 1)
    hidden = functional.gelu(functional.linear(stack.sum((1, 2, 3)), fc1_weight))
    weights = functional.linear(hidden, fc2_weight).unflatten(-1, (3, -1)).softmax(1)
    return (stack * weights[:, :, None, None]).sum(1)


def select_shift(x: torch.Tensor, table) -> torch.Tensor:
    """Clamped rows and columns of each group by ``index_select``."""
    parts = []
    for (dh, dw), part in zip(table, x.chunk(len(table), -1)):
        dim, offset = (-3, dh) if dh else (-2, dw)
        index = (torch.arange(x.shape[dim], device=x.device) - offset).clamp(0, x.shape[dim] - 1)
        parts.append(part.index_select(dim, index))
    return torch.cat(parts, -1)


def assign_shift(x: torch.Tensor, table) -> torch.Tensor:
    """One-token shifts by slices of clones, assigned: the safe form of what public code does."""
    out = x.clone()
    size = x.shape[-1] // len(table)
    for group, (dh, dw) in enumerate(table):
        view = out[..., group * size : (group + 1) * size].movedim(-3 if dh else -2, 0)
        if dh + dw > 0:
            view[1:] = view[:-1].clone()
        else:
            view[:-1] = view[1:].clone()
    return out


def split_attention_peers(data_format: str) -> dict[str, Callable]:
    """Name: split attention of (x, fc1_weight, fc2_weight); ours first."""
    slices = partial(split_attention, shift=reference.spatial_shift)
    return {
        FUSED_ATTENTION: partial(shift_split_attention, branch_offsets=BRANCHES),
        "stack, s2mlp_cuda.spatial_shift": partial(split_attention, shift=spatial_shift),
        "stack, slices, cloned and assigned": partial(split_attention, shift=assign_shift),
        "stack, slices + cat": slices,
        "torch.compile(stack, slices + cat)": torch.compile(lambda *inputs: slices(*inputs), dynamic=False),
        "torch.compile(stack, index_select + cat)": torch.compile(
            lambda *inputs: split_attention(*inputs, shift=select_shift), dynamic=False
        ),
    }
