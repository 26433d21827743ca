"""The four slice assignments that public PyTorch code of S2-MLP has, from the pseudo-code of the papers.

Each slice is assigned to an overlapping slice of the same tensor. NumPy reads the right-hand side first. PyTorch does not: the
first row or column of the map is smeared over all others.
"""

import torch


# --8<-- [start:assign]
def shift_first_dimension_first(x: torch.Tensor) -> torch.Tensor:
    """``spatial_shift1``, and the shift of V1: dimension 1 forward and backward, then dimension 2. Writes to x."""
    quarter, half, three = x.shape[-1] // 4, x.shape[-1] // 2, x.shape[-1] * 3 // 4
    x[:, 1:, :, :quarter] = x[:, :-1, :, :quarter]
    x[:, :-1, :, quarter:half] = x[:, 1:, :, quarter:half]
    x[:, :, 1:, half:three] = x[:, :, :-1, half:three]
    x[:, :, :-1, three:] = x[:, :, 1:, three:]
    return x


# --8<-- [end:assign]


def shift_second_dimension_first(x: torch.Tensor) -> torch.Tensor:
    """``spatial_shift2``: dimension 2 forward and backward, then dimension 1. Writes to x."""
    return shift_first_dimension_first(x.transpose(1, 2)).transpose(1, 2)
