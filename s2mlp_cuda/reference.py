"""Four reference implementations of the spatial shift in plain PyTorch: slow and simple, to test the compiled operator against.

All take the arguments of :func:`s2mlp_cuda.spatial_shift`, return the same values and raise the same errors. None uses the compiled
operator. Public write-ups of S2-MLP name the last three as alternatives to slicing. These three take floating-point maps only. They
multiply by zeros, so a NaN or an infinity spreads to its neighbors.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary

from s2mlp_cuda._arguments import check_count, check_floating, check_groups, check_map, check_padding_mode, pairs_of
from s2mlp_cuda.offsets import V1, OffsetTable

_PAD_MODES = {"replicate": "replicate", "zeros": "constant", "circular": "circular", "reflect": "reflect"}


def group_borders(channels: int, offsets: Sequence[Sequence[int]], group_sizes: Sequence[int] | None = None) -> list[int]:
    """The first channel of each group, then the number of channels: floor(g*C/G) for g = 0 .. G, unless sizes are given.

    Raises:
        TypeError: ``channels``, an offset or a group size is not an integer.
        ValueError: no offsets, more groups than channels, or group sizes that do not match the offsets or the channels.
    """
    return _borders(check_count("channels", channels, least=0), len(pairs_of(offsets)), group_sizes)


def _borders(channels: int, groups: int, group_sizes: Sequence[int] | None, data_format: str | None = None) -> list[int]:
    sizes = check_groups(groups, group_sizes, channels, data_format)
    if sizes is None:
        return [g * channels // groups for g in range(groups + 1)]
    return [sum(sizes[:g]) for g in range(groups + 1)]


def _checked(x, offsets, group_sizes, padding_mode: str, data_format: str) -> tuple[OffsetTable, list[int]]:
    """Checks the arguments of a shift as the operator does; returns the offsets as pairs of ints, and the borders of the groups."""
    channels = check_map(x, data_format)
    check_padding_mode(padding_mode)
    pairs = pairs_of(offsets)
    return pairs, _borders(channels, len(pairs), group_sizes, data_format)


def _reduce_reflected(offset: int, size: int) -> int:
    """An equivalent offset smaller than the axis, for reflect padding, which has a period of 2 * (size - 1) positions."""
    if size == 1:
        return 0
    return (offset + size - 2) % (2 * size - 2) - (size - 2)


def _shift_axis(x: torch.Tensor, offset: int, dim: int, padding_mode: str) -> torch.Tensor:
    """Shift one axis by ``offset`` toward higher indices, with slices and ``torch.cat``."""
    size = x.shape[dim]
    if size == 0 or offset == 0:
        return x
    if padding_mode == "circular":
        start = -offset % size
        return torch.cat([x.narrow(dim, start, size - start), x.narrow(dim, 0, start)], dim)
    if padding_mode == "reflect":
        offset = _reduce_reflected(offset, size)
        distance = abs(offset)
        mirrored = x.narrow(dim, 1 if offset > 0 else size - 1 - distance, distance).flip(dim)
        moved = x.narrow(dim, max(0, -offset), size - distance)
        return torch.cat([mirrored, moved] if offset > 0 else [moved, mirrored], dim)
    distance = min(abs(offset), size)
    border = x.narrow(dim, 0 if offset > 0 else size - 1, 1)
    if padding_mode == "zeros":
        border = torch.zeros_like(border)
    filled = border.expand([distance if d == dim % x.dim() else n for d, n in enumerate(x.shape)])
    if offset > 0:
        return torch.cat([filled, x.narrow(dim, 0, size - distance)], dim)
    return torch.cat([x.narrow(dim, distance, size - distance), filled], dim)


def spatial_shift(
    x: torch.Tensor,
    offsets: Sequence[Sequence[int]] = V1,
    *,
    group_sizes: Sequence[int] | None = None,
    padding_mode: str = "replicate",
    data_format: str = "channels_last",
) -> torch.Tensor:
    """Slices and ``torch.cat``: the tests' reference. Any number of leading dimensions; differentiable.

    Raises:
        TypeError, ValueError: as :func:`s2mlp_cuda.spatial_shift`.
    """
    if has_torch_function_unary(x):
        options = {"group_sizes": group_sizes, "padding_mode": padding_mode, "data_format": data_format}
        return handle_torch_function(spatial_shift, (x,), x, offsets, **options)
    pairs, borders = _checked(x, offsets, group_sizes, padding_mode, data_format)
    channel_dim = -1 if data_format == "channels_last" else -3
    height_dim = -3 if data_format == "channels_last" else -2
    parts = []
    for (dh, dw), begin, end in zip(pairs, borders, borders[1:]):
        part = x.narrow(channel_dim, begin, end - begin)
        part = _shift_axis(part, dh, height_dim, padding_mode)
        parts.append(_shift_axis(part, dw, height_dim + 1, padding_mode))
    return torch.cat(parts, channel_dim)


def _channels_first_map(x: torch.Tensor, data_format: str) -> torch.Tensor:
    """``x`` as (N, C, H, W)."""
    if data_format == "channels_last":
        x = x.movedim(-1, -3)
    return x.reshape(-1, *x.shape[-3:])


def _restore(out: torch.Tensor, x: torch.Tensor, data_format: str) -> torch.Tensor:
    """(N, C, H, W) back to the shape of ``x``."""
    if data_format == "channels_last":
        out = out.movedim(-3, -1)
    return out.reshape(x.shape)


def _near_offsets(offsets: Sequence, height: int, width: int, padding_mode: str) -> list[tuple[int, int]]:
    """Equivalent offsets no larger than the map, so that padding by the largest of them is sufficient."""

    def near(offset: int, size: int) -> int:
        if padding_mode == "circular":
            return (offset + size // 2) % size - size // 2
        if padding_mode == "reflect":
            return _reduce_reflected(offset, size)
        return max(-size, min(size, offset))

    return [(near(dh, height), near(dw, width)) for dh, dw in offsets]


def _on_padded_map(shift: Callable[..., torch.Tensor], x, offsets, group_sizes, padding_mode, data_format) -> torch.Tensor:
    """Checks the arguments, pads the map on both sides of each axis by the largest offset along it, and shifts it.

    Args:
        shift: a function of the padded map (N, C, H + 2 * rows, W + 2 * columns), the offsets, the borders of the groups, ``rows``
            and ``columns``. Returns (N, C, H, W).
    """
    pairs, borders = _checked(x, offsets, group_sizes, padding_mode, data_format)
    check_floating(x, "x")
    if not x.numel():
        return x.clone()
    maps = _channels_first_map(x, data_format)
    height, width = maps.shape[2:]
    near = _near_offsets(pairs, height, width, padding_mode)
    rows, columns = (max(map(abs, distances)) for distances in zip(*near))
    padded = F.pad(maps, [columns, columns, rows, rows], mode=_PAD_MODES[padding_mode])
    return _restore(shift(padded, near, borders, rows, columns), x, data_format)


def _crop(x: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    return x[:, :, rows : x.shape[2] - rows, columns : x.shape[3] - columns]


def _roll(padded, offsets, borders, rows, columns):
    parts = zip(offsets, borders, borders[1:])
    rolled = torch.cat([torch.roll(padded[:, begin:end], shifts=pair, dims=(2, 3)) for pair, begin, end in parts], dim=1)
    return _crop(rolled, rows, columns)


def spatial_shift_roll(
    x: torch.Tensor,
    offsets: Sequence[Sequence[int]] = V1,
    *,
    group_sizes: Sequence[int] | None = None,
    padding_mode: str = "replicate",
    data_format: str = "channels_last",
) -> torch.Tensor:
    """``torch.roll`` of each group of a padded map, then a crop.

    Raises:
        TypeError, ValueError: as :func:`s2mlp_cuda.spatial_shift`; TypeError if ``x`` is not of a floating-point dtype.
    """
    return _on_padded_map(_roll, x, offsets, group_sizes, padding_mode, data_format)


def _conv2d(padded, offsets, borders, rows, columns):
    weight = padded.new_zeros(borders[-1], 1, 2 * rows + 1, 2 * columns + 1)
    for (dh, dw), begin, end in zip(offsets, borders, borders[1:]):
        weight[begin:end, 0, rows - dh, columns - dw] = 1
    return F.conv2d(padded, weight, groups=len(weight))


def spatial_shift_conv2d(
    x: torch.Tensor,
    offsets: Sequence[Sequence[int]] = V1,
    *,
    group_sizes: Sequence[int] | None = None,
    padding_mode: str = "replicate",
    data_format: str = "channels_last",
) -> torch.Tensor:
    """Depthwise ``conv2d`` of a padded map with one-hot kernels.

    Raises:
        TypeError, ValueError: as :func:`s2mlp_cuda.spatial_shift`; TypeError if ``x`` is not of a floating-point dtype.
    """
    return _on_padded_map(_conv2d, x, offsets, group_sizes, padding_mode, data_format)


def _deform_conv2d(padded, offsets, borders, rows, columns):
    try:
        from torchvision.ops import deform_conv2d
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("spatial_shift_deform_conv2d needs torchvision: pip install torchvision") from error

    channels = borders[-1]
    sampling = padded.new_zeros(channels, 2, 1, 1)
    for (dh, dw), begin, end in zip(offsets, borders, borders[1:]):
        sampling[begin:end, 0] = -dh
        sampling[begin:end, 1] = -dw
    sampling = sampling.reshape(1, 2 * channels, 1, 1).expand(len(padded), -1, *padded.shape[2:])
    weight = torch.eye(channels, dtype=padded.dtype, device=padded.device)[:, :, None, None]
    return _crop(deform_conv2d(padded, sampling.contiguous(), weight), rows, columns)


def spatial_shift_deform_conv2d(
    x: torch.Tensor,
    offsets: Sequence[Sequence[int]] = V1,
    *,
    group_sizes: Sequence[int] | None = None,
    padding_mode: str = "replicate",
    data_format: str = "channels_last",
) -> torch.Tensor:
    """torchvision's ``deform_conv2d`` of a padded map, with integer sampling offsets and identity weights.

    Raises:
        TypeError, ValueError: as :func:`s2mlp_cuda.spatial_shift`; TypeError if ``x`` is not of a floating-point dtype.
        ModuleNotFoundError: torchvision is not installed.
    """
    return _on_padded_map(_deform_conv2d, x, offsets, group_sizes, padding_mode, data_format)


#: The four implementations by name.
IMPLEMENTATIONS = {
    "slices + cat": spatial_shift,
    "padded roll": spatial_shift_roll,
    "one-hot depthwise conv2d": spatial_shift_conv2d,
    "deform_conv2d": spatial_shift_deform_conv2d,
}
