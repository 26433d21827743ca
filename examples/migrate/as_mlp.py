"""AS-MLP (svip-lab/AS-MLP): its axial shifts, side by side with ``spatial_shift``.

python examples/migrate/as_mlp.py
"""

import torch
from torch.nn import functional

from s2mlp_cuda import offsets, spatial_shift

from side_by_side import Pair, report


# --8<-- [start:theirs]
def axial_shift(x: torch.Tensor, dim: int, shift_size: int = 5) -> torch.Tensor:
    """Pads all sides, rolls each chunk of the channels by another distance, and crops; dim is 2 (height) or 3 (width)."""
    pad, (height, width) = shift_size // 2, x.shape[2:]
    chunks = functional.pad(x, (pad, pad, pad, pad)).chunk(shift_size, 1)
    rolled = torch.cat([chunk.roll(distance, dim) for chunk, distance in zip(chunks, range(-pad, pad + 1))], 1)
    return rolled.narrow(2, pad, height).narrow(3, pad, width)


# --8<-- [end:theirs]


# --8<-- [start:ours]
TABLES = {2: offsets.AXIAL_5_HEIGHT, 3: offsets.AXIAL_5_WIDTH}  # shift size 5; for 7: tuple((d, 0) for d in range(-3, 4))


def our_axial_shift(x: torch.Tensor, dim: int) -> torch.Tensor:
    sizes = offsets.chunk_sizes(x.shape[1], 5)  # rounded up, as torch.chunk rounds
    return spatial_shift(x, TABLES[dim], group_sizes=sizes, padding_mode="zeros", data_format="channels_first")


# --8<-- [end:ours]


PAIRS = (
    Pair("AS-MLP, height", lambda x: axial_shift(x, 2), lambda x: our_axial_shift(x, 2), (4, 96, 56, 56)),
    Pair("AS-MLP, width", lambda x: axial_shift(x, 3), lambda x: our_axial_shift(x, 3), (4, 96, 56, 56)),
)

if __name__ == "__main__":
    report(PAIRS)
