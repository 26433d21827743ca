"""Hire-MLP (PyTorch code in liuruiyang98/Jittor-MLP): its cross-region shifts, side by side with ``spatial_shift``.

python examples/migrate/hire_mlp.py
"""

import torch

from s2mlp_cuda import spatial_shift

from side_by_side import Pair, report

STEP = 2


# --8<-- [start:theirs]
def cross_region(x: torch.Tensor, dim: int, step: int = STEP) -> torch.Tensor:
    """Moves the whole map (B, C, H, W) along dim 2 in the height branch, 3 in the width branch; -step moves it back."""
    return torch.roll(x, step, dim)


# --8<-- [end:theirs]


# --8<-- [start:ours]
def our_cross_region(x: torch.Tensor, dim: int, step: int = STEP) -> torch.Tensor:
    table = ((step, 0),) if dim == 2 else ((0, step),)  # one group: all channels
    return spatial_shift(x, table, padding_mode="circular", data_format="channels_first")


# --8<-- [end:ours]


def there_and_back(x: torch.Tensor) -> torch.Tensor:
    return our_cross_region(our_cross_region(x, 2), 2, -STEP)


PAIRS = (
    Pair("Hire-MLP, height", lambda x: cross_region(x, 2), lambda x: our_cross_region(x, 2), (4, 64, 56, 56)),
    Pair("Hire-MLP, width", lambda x: cross_region(x, 3), lambda x: our_cross_region(x, 3), (4, 64, 56, 56)),
)

if __name__ == "__main__":
    report(PAIRS)
    x = torch.randn(2, 64, 9, 7)
    assert torch.equal(there_and_back(x), x)
    print("Moved by 2 and by -2, the map is what it was.")
