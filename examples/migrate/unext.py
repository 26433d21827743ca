"""UNeXt (jeya-maria-jose/UNeXt-pytorch): the two shifts of its tokenized MLP, side by side with ``spatial_shift``.

python examples/migrate/unext.py
"""

import torch
from torch.nn import functional

from s2mlp_cuda import offsets, spatial_shift

from side_by_side import Pair, report

HEIGHT, WIDTH = 32, 32


# --8<-- [start:theirs]
def token_shift(x: torch.Tensor, dim: int) -> torch.Tensor:
    """Tokens (B, H*W, C): to (B, C, H, W), pad, roll chunks of the channels along dim 2 or 3, crop, and back to tokens."""
    maps = x.transpose(1, 2).unflatten(2, (HEIGHT, WIDTH)).contiguous()
    chunks = functional.pad(maps, (2, 2, 2, 2)).chunk(5, 1)
    rolled = torch.cat([chunk.roll(distance, dim) for chunk, distance in zip(chunks, (-2, -1, 0, 1, 2))], 1)
    return rolled.narrow(2, 2, HEIGHT).narrow(3, 2, WIDTH).flatten(2).contiguous().transpose(1, 2)


# --8<-- [end:theirs]


# --8<-- [start:ours]
TABLES = {2: offsets.AXIAL_5_HEIGHT, 3: offsets.AXIAL_5_WIDTH}


def our_token_shift(x: torch.Tensor, dim: int) -> torch.Tensor:
    """Tokens in row-major order are a channels-last map: no transposition is needed."""
    maps, sizes = x.unflatten(1, (HEIGHT, WIDTH)), offsets.chunk_sizes(x.shape[2], 5)
    return spatial_shift(maps, TABLES[dim], group_sizes=sizes, padding_mode="zeros").flatten(1, 2)


# --8<-- [end:ours]


PAIRS = (
    Pair("UNeXt, height", lambda x: token_shift(x, 2), lambda x: our_token_shift(x, 2), (4, HEIGHT * WIDTH, 128)),
    Pair("UNeXt, width", lambda x: token_shift(x, 3), lambda x: our_token_shift(x, 3), (4, HEIGHT * WIDTH, 128)),
)

if __name__ == "__main__":
    report(PAIRS)
