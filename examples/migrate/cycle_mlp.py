"""CycleMLP (ShoufaChen/CycleMLP): CycleFC, a deformable convolution, side by side with ``spatial_shift`` and a 1x1 convolution.

python examples/migrate/cycle_mlp.py      (needs torchvision, for their version)
"""

import torch
from torch.nn import functional
from torchvision.ops import deform_conv2d

from s2mlp_cuda import offsets, spatial_shift

from side_by_side import Pair, report

CHANNELS = 64
WEIGHT = torch.randn(CHANNELS, CHANNELS, 1, 1, dtype=torch.float64) / 8
BIAS = torch.randn(CHANNELS, dtype=torch.float64)


# --8<-- [start:theirs]
def cycle_fc(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, kernel: tuple[int, int] = (1, 3)) -> torch.Tensor:
    """Channel i is read at distance (i + 1) % 3 - 1 along the width, for kernel (1, 3), or the height, for (3, 1)."""
    batch, channels, height, width = x.shape
    distances = x.new_zeros(channels, 2)
    distances[:, kernel.index(3)] = (torch.arange(channels) + 1).to(x.dtype) % 3 - 1
    return deform_conv2d(x, distances.view(1, -1, 1, 1).expand(batch, -1, height, width), weight, bias)


# --8<-- [end:theirs]


# --8<-- [start:ours]
TABLES = {(1, 3): offsets.CYCLE_3_WIDTH, (3, 1): offsets.CYCLE_3_HEIGHT}


def our_cycle_fc(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, kernel: tuple[int, int] = (1, 3)) -> torch.Tensor:
    table = offsets.interleaved(TABLES[kernel], x.shape[1])  # one group per channel
    shifted = spatial_shift(x, table, padding_mode="zeros", data_format="channels_first")
    return functional.conv2d(shifted, weight, bias)


# --8<-- [end:ours]


def pair(name: str, kernel: tuple[int, int]) -> Pair:
    """Both with the same weight and bias, in the dtype of the map."""

    def call(function):
        return lambda x: function(x, WEIGHT.to(x.dtype), BIAS.to(x.dtype), kernel)

    return Pair(name, call(cycle_fc), call(our_cycle_fc), (2, CHANNELS, 28, 28), rounding=1e-12)


PAIRS = (pair("CycleFC, kernel (1, 3)", (1, 3)), pair("CycleFC, kernel (3, 1)", (3, 1)))

if __name__ == "__main__":
    report(PAIRS)
