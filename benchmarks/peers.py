"""The V1 shift, every way that people write it, on maps of either data format. All are checked against the reference."""

from collections.abc import Callable
from functools import partial

import torch

from s2mlp_cuda import reference, spatial_shift
from s2mlp_cuda.demo.timing import OURS, clone_and_assign
from s2mlp_cuda.offsets import V1

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


def peers(data_format: str) -> dict[str, Shift]:
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
