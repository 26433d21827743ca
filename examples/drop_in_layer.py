"""Use the spatial shift as a layer: in a network of your own, in both memory layouts, and as the token mixer of a ConvNet.

python examples/drop_in_layer.py
"""

import torch
from torch import nn

from s2mlp_cuda import GELUSpatialShift, SpatialShift, offsets
from s2mlp_cuda.layers import S2


# --8<-- [start:channels_last]
def channels_last_mixer(channels: int) -> nn.Module:
    """(B, H, W, C) to the same shape, as in S2-MLP: the shift has no parameters; the linear layers around it mix channels."""
    return nn.Sequential(
        nn.Linear(channels, channels),
        GELUSpatialShift(offsets.V1),  # GELU and the shift in one pass; the same as nn.GELU(), SpatialShift(offsets.V1)
        nn.Linear(channels, channels),
    )


# --8<-- [end:channels_last]


# --8<-- [start:channels_first]
class ConvBlock(nn.Module):
    """A residual block on (B, C, H, W) maps, whose 3x3 depthwise convolution can be exchanged."""

    def __init__(self, channels: int, mixer: nn.Module):
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.mixer = mixer
        self.pointwise = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.pointwise(self.mixer(self.norm(x)))


def mixers(channels: int) -> dict[str, nn.Module]:
    return {
        "depthwise convolution": nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
        "spatial shift": SpatialShift(offsets.V1, data_format="channels_first"),
        "S2-MLPv2's split attention": S2(channels, data_format="channels_first"),
    }


# --8<-- [end:channels_first]


def main() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(2, 14, 14, 32)
    mixer = channels_last_mixer(32)
    print(mixer)
    print("channels last: ", tuple(tokens.shape), "to", tuple(mixer(tokens).shape))

    x = torch.randn(2, 32, 14, 14, requires_grad=True)
    for name, layer in mixers(32).items():
        block = ConvBlock(32, layer)
        y = block(x)
        (gradient,) = torch.autograd.grad(y.square().sum(), x)
        parameters = sum(p.numel() for p in layer.parameters())
        assert gradient.shape == x.shape and gradient.isfinite().all()
        print(f"channels first: {tuple(x.shape)} to {tuple(y.shape)}, {name}: {parameters} parameters")

    one_group = torch.arange(5.0).view(1, 1, 5, 1).requires_grad_()  # one image, one row of five tokens, one channel
    y = SpatialShift(offsets.RIGHT)(one_group)
    y.sum().backward()
    print("input:    ", one_group.flatten().tolist())
    print("output:   ", y.flatten().tolist(), "moved right by one; the border keeps its value")
    print("gradient: ", one_group.grad.flatten().tolist(), "of the sum: the first token is read twice, the last one never")


if __name__ == "__main__":
    main()
