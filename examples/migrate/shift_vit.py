"""ShiftViT (microsoft/SPACH): its partial shift, side by side with ``spatial_shift``.

python examples/migrate/shift_vit.py
"""

import torch

from s2mlp_cuda import offsets, spatial_shift

from side_by_side import Pair, report


# --8<-- [start:theirs]
def partial_shift(x: torch.Tensor, divisions: int = 12) -> torch.Tensor:
    """C // divisions channels move left, as many right, up and down; the others do not move."""
    g = x.shape[1] // divisions
    out = torch.zeros_like(x)
    out[:, :g, :, :-1] = x[:, :g, :, 1:]
    out[:, g : 2 * g, :, 1:] = x[:, g : 2 * g, :, :-1]
    out[:, 2 * g : 3 * g, :-1] = x[:, 2 * g : 3 * g, 1:]
    out[:, 3 * g : 4 * g, 1:] = x[:, 3 * g : 4 * g, :-1]
    out[:, 4 * g :] = x[:, 4 * g :]
    return out


# --8<-- [end:theirs]


# --8<-- [start:ours]
def our_partial_shift(x: torch.Tensor, divisions: int = 12) -> torch.Tensor:
    channels = x.shape[1]
    sizes = offsets.partial_sizes(channels, 4, channels // divisions)  # four groups, then the channels that remain
    return spatial_shift(x, offsets.SHIFT_VIT, group_sizes=sizes, padding_mode="zeros", data_format="channels_first")


# --8<-- [end:ours]


PAIRS = (Pair("ShiftViT", partial_shift, our_partial_shift, (4, 96, 56, 56)),)

if __name__ == "__main__":
    report(PAIRS)
