"""TSM (mit-han-lab/temporal-shift-module): its shift over time, side by side with ``spatial_shift``.

python examples/migrate/tsm.py
"""

import torch

from s2mlp_cuda import offsets, spatial_shift

from side_by_side import Pair, report

FRAMES = 8


# --8<-- [start:theirs]
def temporal_shift(x: torch.Tensor, divisions: int = 8) -> torch.Tensor:
    """Frames (N*T, C, H, W): C // divisions channels come from the next frame, as many from the previous one."""
    clips, fold = x.unflatten(0, (-1, FRAMES)), x.shape[1] // divisions
    out = torch.zeros_like(clips)
    out[:, :-1, :fold] = clips[:, 1:, :fold]
    out[:, 1:, fold : 2 * fold] = clips[:, :-1, fold : 2 * fold]
    out[:, :, 2 * fold :] = clips[:, :, 2 * fold :]
    return out.flatten(0, 1)


# --8<-- [end:theirs]


# --8<-- [start:ours]
def our_temporal_shift(x: torch.Tensor, divisions: int = 8) -> torch.Tensor:
    """Time is the height of the map, its width is 1, and each pixel of each channel is a channel: views, no copies."""
    frames, channels, height, width = x.shape
    pixels, fold = height * width, channels // divisions
    sizes = [size * pixels for size in offsets.partial_sizes(channels, 2, fold)]
    clips = x.reshape(frames // FRAMES, FRAMES, 1, channels * pixels)
    return spatial_shift(clips, offsets.TSM, group_sizes=sizes, padding_mode="zeros").view(x.shape)


# --8<-- [end:ours]


PAIRS = (Pair("TSM", temporal_shift, our_temporal_shift, (2 * FRAMES, 64, 28, 28)),)

if __name__ == "__main__":
    report(PAIRS)
