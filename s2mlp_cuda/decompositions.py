"""Decompositions of the operators into PyTorch's own, for exporters that do not support custom operators, such as ONNX.

Shifts are gathers with computed indices, so one graph works for all sizes. Results match the kernels: exactly for shifts, within
rounding for sums.
"""

from collections.abc import Callable

import torch
from torch.nn import functional

from s2mlp_cuda._arguments import even_group_sizes
from s2mlp_cuda.ops._differentiable import ONNX_DECOMPOSITIONS
from s2mlp_cuda.ops.shift_branches import accumulator_dtype

_OPS = torch.ops.s2mlp_cuda


def _shift_axis(x: torch.Tensor, offset: int, dim: int, padding_mode: str) -> torch.Tensor:
    if offset == 0:
        return x
    size = x.shape[dim]
    source = torch.arange(size, device=x.device) - offset
    if padding_mode == "circular":
        return x.index_select(dim, source.remainder(torch.full_like(source, size)))
    if padding_mode == "reflect":
        period = (torch.full_like(source, size) * 2 - 2).clamp(min=1)
        phase = source.remainder(period)
        return x.index_select(dim, torch.minimum(phase, period - phase))
    moved = x.index_select(dim, source.clamp(0, size - 1))
    if padding_mode == "replicate":
        return moved
    inside = ((source >= 0) & (source < size)).view([-1 if d == dim % x.dim() else 1 for d in range(x.dim())])
    return torch.where(inside, moved, torch.zeros((), dtype=x.dtype, device=x.device))


def spatial_shift(x, offsets, group_sizes=None, padding_mode="replicate", data_format="channels_last"):
    channel_dim, height_dim = (-1, -3) if data_format == "channels_last" else (-3, -2)
    if group_sizes is None:
        group_sizes = even_group_sizes(x.shape[channel_dim], len(offsets) // 2)
    parts = x.split(group_sizes, channel_dim)
    return torch.cat(
        [
            _shift_axis(_shift_axis(part, dh, height_dim, padding_mode), dw, height_dim + 1, padding_mode)
            for part, dh, dw in zip(parts, offsets[::2], offsets[1::2])
        ],
        channel_dim,
    )


def gelu_spatial_shift(x, offsets, group_sizes=None, approximate="none", padding_mode="replicate", data_format="channels_last"):
    return spatial_shift(functional.gelu(x, approximate=approximate), offsets, group_sizes, padding_mode, data_format)


def _shifted_branches(x, branches, offsets, group_sizes, padding_mode):
    """(..., H, W, K, C), in the accumulator dtype."""
    shifted = spatial_shift(x, offsets, group_sizes, padding_mode)
    return shifted.unflatten(-1, (branches, x.shape[-1] // branches)).to(accumulator_dtype(x.dtype))


def shift_branch_pool(x, branches, offsets, group_sizes, padding_mode="replicate"):
    return _shifted_branches(x, branches, offsets, group_sizes, padding_mode).sum((-4, -3, -2))


def shift_branch_combine(x, weights, offsets, group_sizes, padding_mode="replicate"):
    shifted = _shifted_branches(x, weights.shape[-2], offsets, group_sizes, padding_mode)
    return (shifted * weights[..., None, None, :, :]).sum(-2).to(x.dtype)


#: Decomposition table for ``ExportedProgram.run_decompositions``: forward operators only. ``torch.onnx.export`` of a module uses it
#: by itself.
TABLE: dict[torch._ops.OpOverload, Callable] = {
    _OPS.spatial_shift.default: spatial_shift,
    _OPS.gelu_spatial_shift.default: gelu_spatial_shift,
    _OPS.shift_branch_pool.default: shift_branch_pool,
    _OPS.shift_branch_combine.default: shift_branch_combine,
}
ONNX_DECOMPOSITIONS.update(TABLE)
