"""S2-MLP and S2-MLPv2 of liuruiyang98/Jittor-MLP (PyTorch code): the shift of V1, and the weights of both models.

python examples/migrate/jittor_mlp.py
"""

import torch
from torch import nn

from s2mlp_cuda import offsets, spatial_shift
from s2mlp_cuda.convert import convert

from external_attention import S2Attention
from in_place import shift_first_dimension_first
from side_by_side import Pair, check, report


# --8<-- [start:ours]
def shift_of_v1(x: torch.Tensor) -> torch.Tensor:
    """Their maps are (B, H, W, C), so their first dimension is the height: this is SS1. The paper's table, V1, is width first."""
    return spatial_shift(x, offsets.SS1)


def shift1_of_v2(x: torch.Tensor) -> torch.Tensor:
    return spatial_shift(x, offsets.SS1)


def shift2_of_v2(x: torch.Tensor) -> torch.Tensor:
    return spatial_shift(x, offsets.SS2)


# --8<-- [end:ours]


class PreNormResidual(nn.Module):
    def __init__(self, channels: int, fn: nn.Module):
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(channels), fn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.fn(self.norm(x))


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


class ChannelsLastAttention(S2Attention):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def v1_mixer(channels: int) -> nn.Module:
    return nn.Sequential(nn.Linear(channels, channels), nn.GELU(), Function(shift_of_v1), nn.Linear(channels, channels))


def v2_mixer(channels: int) -> nn.Module:
    return ChannelsLastAttention(channels, shift1_of_v2, shift2_of_v2)


class Blocks(nn.Module):
    """One stage's blocks, with the names of their layers: ``model.<block>.<0 or 1>.fn``."""

    def __init__(self, channels: int, depth: int, mixer):
        super().__init__()

        def mlp() -> nn.Module:
            dropout = nn.Dropout(0.0)
            return nn.Sequential(nn.Linear(channels, 3 * channels), nn.GELU(), dropout, nn.Linear(3 * channels, channels), dropout)

        blocks = ([PreNormResidual(channels, mixer(channels)), PreNormResidual(channels, mlp())] for _ in range(depth))
        self.model = nn.Sequential(*(nn.Sequential(*block) for block in blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Network(nn.Module):
    """``S2MLPv1`` and ``S2MLPv2``, small, with the names of their layers and with the functions above as shifts."""

    def __init__(self, mixer, patch_sizes=(4, 2), dims=(16, 32), depths=(2, 1), classes: int = 5):
        super().__init__()
        sizes = zip((3, *dims), dims, patch_sizes, depths)
        self.stages = nn.Sequential(*(nn.Sequential(nn.Conv2d(a, b, p, p), Blocks(b, depth, mixer)) for a, b, p, depth in sizes))
        self.mlp_head = nn.Sequential(Function(lambda x: x.mean((2, 3))), nn.Linear(dims[-1], classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mlp_head(self.stages(x))


PAIRS = (Pair("the shift of V1", shift_first_dimension_first, shift_of_v1, (4, 28, 28, 192), wrong_values=True),)


def main() -> None:
    report(PAIRS)
    torch.manual_seed(0)
    for name, network in (("S2MLPv1, one stage", Network(v1_mixer, (4,), (16,), (3,))), ("S2MLPv2", Network(v2_mixer))):
        network = network.double()
        # --8<-- [start:convert]
        model, converted = convert(network.state_dict())  # also the path of a checkpoint
        # --8<-- [end:convert]
        print(f"{name}: {len(converted.renamed)} weights converted to {type(model).__name__}")
        check(Pair(f"{name} with the functions replaced, and the converted model", network, model, (2, 3, 32, 24), rounding=1e-9))


if __name__ == "__main__":
    main()
