"""MS-MLP (JegZheng/MS-MLP): its mix-shift, side by side with ``spatial_shift``.

python examples/migrate/ms_mlp.py
"""

import torch
from torch.nn import functional

from s2mlp_cuda import offsets, spatial_shift

from side_by_side import Pair, report

CHANNELS, DISTANCES, KERNELS = 96, (-2, -1, 0, 1, 2), (1, 1, 3, 5, 7)  # of the first stage
SIZES = offsets.chunk_sizes(CHANNELS, len(DISTANCES))  # (20, 20, 20, 20, 16)
WEIGHTS = [torch.randn(size, 1, k, k, dtype=torch.float64) for size, k in zip(SIZES, KERNELS)]


def depthwise(chunks: list[torch.Tensor]) -> torch.Tensor:
    """Regional mixing: a depthwise convolution of another size for each chunk of the channels."""
    convolved = (
        functional.conv2d(chunk, weight.to(chunk.dtype), padding=weight.shape[-1] // 2, groups=len(weight))
        for chunk, weight in zip(chunks, WEIGHTS)
    )
    return torch.cat(list(convolved), 1)


# --8<-- [start:theirs]
def rolled_chunks(x: torch.Tensor, dim: int) -> list[torch.Tensor]:
    """Each chunk of the channels, moved along dim 2 (height) or 3 (width) by another distance. A convolution of each follows."""
    return [chunk.roll(distance, dim) for chunk, distance in zip(x.chunk(len(DISTANCES), 1), DISTANCES)]


# --8<-- [end:theirs]


# --8<-- [start:ours]
TABLES = {2: offsets.AXIAL_5_HEIGHT, 3: offsets.AXIAL_5_WIDTH}


def our_chunks(x: torch.Tensor, dim: int) -> list[torch.Tensor]:
    shifted = spatial_shift(x, TABLES[dim], group_sizes=SIZES, padding_mode="circular", data_format="channels_first")
    return list(shifted.split(SIZES, 1))


# --8<-- [end:ours]


MAPS, SMALL_MAPS = (4, CHANNELS, 56, 56), (1, CHANNELS, 28, 28)
PAIRS = (
    Pair("MS-MLP, height", lambda x: torch.cat(rolled_chunks(x, 2), 1), lambda x: torch.cat(our_chunks(x, 2), 1), MAPS),
    Pair(
        "MS-MLP, width, with convolutions",
        lambda x: depthwise(rolled_chunks(x, 3)),
        lambda x: depthwise(our_chunks(x, 3)),
        SMALL_MAPS,
        1e-12,
    ),
)

if __name__ == "__main__":
    report(PAIRS)
