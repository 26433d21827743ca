"""S2Attention of xmu-xiaoma666/External-Attention-pytorch: its shifts, and its weights, side by side with this package.

python examples/migrate/external_attention.py
"""

import torch
from torch import nn

from s2mlp_cuda import offsets, reference, spatial_shift
from s2mlp_cuda.convert import convert

from in_place import shift_first_dimension_first, shift_second_dimension_first
from side_by_side import Pair, check, report


# --8<-- [start:ours]
def spatial_shift1(x: torch.Tensor) -> torch.Tensor:
    return spatial_shift(x, offsets.SS1)


def spatial_shift2(x: torch.Tensor) -> torch.Tensor:
    return spatial_shift(x, offsets.SS2)


# --8<-- [end:ours]


# --8<-- [start:theirs]
class SplitAttention(nn.Module):
    """Has the names of their layers; the hidden size is the number of channels, four times the one in this package."""

    def __init__(self, channels: int):
        super().__init__()
        self.mlp1 = nn.Linear(channels, channels, bias=False)
        self.mlp2 = nn.Linear(channels, 3 * channels, bias=False)

    def forward(self, branches: torch.Tensor) -> torch.Tensor:  # (B, 3, H, W, C)
        logits = self.mlp2(nn.functional.gelu(self.mlp1(branches.sum((1, 2, 3)))))
        return (logits.unflatten(1, (3, -1)).softmax(1)[:, :, None, None] * branches).sum(1)


class S2Attention(nn.Module):
    """(B, C, H, W) to the same shape."""

    def __init__(self, channels: int, shift1=shift_first_dimension_first, shift2=shift_second_dimension_first):
        super().__init__()
        self.shift1, self.shift2 = shift1, shift2
        self.mlp1 = nn.Linear(channels, 3 * channels)
        self.mlp2 = nn.Linear(channels, channels)
        self.split_attention = SplitAttention(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, two, three = self.mlp1(x.permute(0, 2, 3, 1)).chunk(3, -1)
        branches = torch.stack([self.shift1(one.clone()), self.shift2(two.clone()), three], 1)
        return self.mlp2(self.split_attention(branches)).permute(0, 3, 1, 2)


# --8<-- [end:theirs]


def meant(table):
    """Their function as it is meant, made of slices and torch.cat."""
    return lambda x: reference.spatial_shift(x, table)


PAIRS = (
    Pair("spatial_shift1", shift_first_dimension_first, spatial_shift1, (4, 28, 28, 192), wrong_values=True),
    Pair("spatial_shift2", shift_second_dimension_first, spatial_shift2, (4, 28, 28, 192), wrong_values=True),
)


def main() -> None:
    report(PAIRS)
    torch.manual_seed(0)
    as_meant = S2Attention(32, meant(offsets.SS1), meant(offsets.SS2)).double()
    # --8<-- [start:convert]
    layer, converted = convert(as_meant.state_dict())  # an s2mlp_cuda.layers.S2, and a report of every key
    # --8<-- [end:convert]
    print(f"{converted.layout}: {len(converted.renamed)} weights converted, {len(converted.missing)} missing")
    check(Pair("S2Attention with correct slices, and the converted layer", as_meant, layer, (2, 32, 7, 9), rounding=1e-9))
    old = nn.Sequential(nn.Conv2d(3, 32, 4, 4), as_meant, nn.Conv2d(32, 5, 1)).double()
    torch.save({"model": old.state_dict(), "epoch": 12}, "old.pth")
    # --8<-- [start:network]
    old.load_state_dict(torch.load("old.pth")["model"])
    network, converted = convert(old)  # a copy of the network, with S2 in place of every S2Attention
    print(converted)
    # --8<-- [end:network]
    check(Pair("The network with correct slices, and the converted network", old, network, (2, 3, 28, 36), rounding=1e-9))


if __name__ == "__main__":
    main()
