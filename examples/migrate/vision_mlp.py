"""S2-MLP of rentainhe/vision-mlp: its shift indexes (B, C, H, W) maps as if they were (B, H, W, C).

python examples/migrate/vision_mlp.py
"""

import torch

from s2mlp_cuda import offsets, spatial_shift

from in_place import shift_first_dimension_first
from side_by_side import Pair, report


# --8<-- [start:theirs]
def their_shift(x: torch.Tensor) -> torch.Tensor:
    """The function for (B, H, W, C) maps, called with a (B, C, H, W) map: it moves channels and rows, in groups of columns."""
    return shift_first_dimension_first(x)


# --8<-- [end:theirs]


# --8<-- [start:literal]
def literal_shift(x: torch.Tensor) -> torch.Tensor:
    """What their indices say, without the overlap: dimension 1 is the channels, dimension 2 the height, groups are columns."""
    return spatial_shift(x, offsets.SS1)


# --8<-- [end:literal]


# --8<-- [start:ours]
def our_shift(x: torch.Tensor) -> torch.Tensor:
    """What is meant: rows, then columns, in groups of channels."""
    return spatial_shift(x, offsets.SS1, data_format="channels_first")


# --8<-- [end:ours]


PAIRS = (Pair("their shift, and what its indices say", their_shift, literal_shift, (4, 192, 28, 28), wrong_values=True),)


def main() -> None:
    report(PAIRS)
    x = torch.randn(2, 8, 6, 7)
    kept = (literal_shift(x) == our_shift(x)).float().mean()
    print(f"What its indices say and what is meant agree in {kept:.0%} of the values: weights need fine-tuning.")
    moved_last = spatial_shift(x.permute(0, 2, 3, 1), offsets.SS1).permute(0, 3, 1, 2)
    assert torch.equal(our_shift(x), moved_last)
    print("What is meant equals the shift of the same map with its channels last.")


if __name__ == "__main__":
    main()
