"""Modules with the names, the structure and the order of shifts of public copies, and a correct shift.

The shift is written with slices and ``torch.cat``, independently of this package.
"""

import torch
from torch import nn
from torch.nn import functional

HEIGHT_FIRST = (1, 2)
WIDTH_FIRST = (2, 1)


def moved(x, dim, backward):
    size = x.shape[dim]
    if backward:
        return torch.cat([x.narrow(dim, 1, size - 1), x.narrow(dim, size - 1, 1)], dim)
    return torch.cat([x.narrow(dim, 0, 1), x.narrow(dim, 0, size - 1)], dim)


def shift(x, axes):
    """(B, H, W, C): two quarters of the channels move along the first axis, two along the second."""
    c = x.shape[-1]
    quarters = x.tensor_split((c // 4, c // 2, 3 * c // 4), -1)
    return torch.cat([moved(part, axes[i // 2], i % 2) for i, part in enumerate(quarters)], -1)


def attend(maps, logits):
    weights = logits.unflatten(-1, (len(maps), -1)).softmax(1)
    return sum(map_ * weights[:, k, None, None] for k, map_ in enumerate(maps))


def pooled(maps):
    return sum(maps).sum((1, 2))


class Shift(nn.Module):
    def forward(self, x):
        return shift(x, HEIGHT_FIRST)


class SplitAttention(nn.Module):
    def __init__(self, channels, k=3, bias=False):
        super().__init__()
        self.mlp1 = nn.Linear(channels, channels, bias)
        self.mlp2 = nn.Linear(channels, k * channels, bias)

    def forward(self, maps):
        return attend(maps, self.mlp2(functional.gelu(self.mlp1(pooled(maps)))))


class S2Attention(nn.Module):
    """``attention`` is the name of its split attention; channels come first in collections of attention layers."""

    def __init__(self, channels, channels_first=True, bias=False, attention="split_attention", axes=(HEIGHT_FIRST, WIDTH_FIRST)):
        super().__init__()
        self.channels_first = channels_first
        self.axes = axes
        self.mlp1 = nn.Linear(channels, 3 * channels)
        self.mlp2 = nn.Linear(channels, channels)
        self.attention = attention
        setattr(self, attention, SplitAttention(channels, bias=bias))

    def forward(self, x):
        x = x.permute(0, 2, 3, 1) if self.channels_first else x
        one, two, three = self.mlp1(x).chunk(3, -1)
        maps = [shift(one, self.axes[0]), shift(two, self.axes[1]), three]
        x = self.mlp2(getattr(self, self.attention)(maps))
        return x.permute(0, 3, 1, 2) if self.channels_first else x


def swapped(channels):
    """``SplitAtt``: the first branch moves the width first."""
    return S2Attention(channels, attention="SplitAtt", axes=(WIDTH_FIRST, HEIGHT_FIRST))


class SplitAtt(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(channels, channels, False), nn.GELU(), nn.Linear(channels, 3 * channels, False))

    def forward(self, maps):
        return attend(maps, self.mlp(pooled(maps)))


class S2Att(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.fc_1 = nn.Linear(channels, 3 * channels)
        self.fc_2 = nn.Linear(channels, channels)
        self.split_att = SplitAtt(channels)

    def forward(self, x):
        one, two, three = self.fc_1(x.permute(0, 2, 3, 1)).chunk(3, -1)
        return self.fc_2(self.split_att([shift(one, HEIGHT_FIRST), shift(two, WIDTH_FIRST), three])).permute(0, 3, 1, 2)


class PreNormResidual(nn.Module):
    def __init__(self, channels, fn):
        super().__init__()
        self.fn = fn
        self.norm = nn.LayerNorm(channels)

    def forward(self, x):
        return x + self.fn(self.norm(x))


class Blocks(nn.Module):
    """Also as a plug-in for other networks, then without the MLP."""

    def __init__(self, channels, depth, mixer, ratio=None):
        super().__init__()
        self.model = nn.Sequential(*(nn.Sequential(*self.branches(channels, mixer, ratio)) for _ in range(depth)))

    @staticmethod
    def branches(channels, mixer, ratio):
        yield PreNormResidual(channels, mixer(channels))
        if ratio:
            hidden = int(channels * ratio)
            layers = [nn.Linear(channels, hidden), nn.GELU(), nn.Dropout(0), nn.Linear(hidden, channels), nn.Dropout(0)]
            yield PreNormResidual(channels, nn.Sequential(*layers))

    def forward(self, x):
        return self.model(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def v1_mixer(channels):
    return nn.Sequential(nn.Linear(channels, channels), nn.GELU(), Shift(), nn.Linear(channels, channels))


def v2_mixer(channels):
    return S2Attention(channels, channels_first=False)


class Pool(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


class Staged(nn.Module):
    """``S2MLPv1`` and ``S2MLPv2``: stages of a convolution and pre-norm residual blocks."""

    def __init__(self, mixer, patch_sizes, dims, depths, ratios, classes=5, in_channels=3):
        super().__init__()
        stages, channels = [], in_channels
        for patch, dim, depth, ratio in zip(patch_sizes, dims, depths, ratios):
            stages.append(nn.Sequential(nn.Conv2d(channels, dim, patch, patch), Blocks(dim, depth, mixer, ratio)))
            channels = dim
        self.stages = nn.Sequential(*stages)
        self.mlp_head = nn.Sequential(Pool(), nn.Linear(channels, classes))

    def forward(self, x):
        return self.mlp_head(self.stages(x))


class ChannelNorm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ChannelShift(nn.Module):
    def forward(self, x):
        return shift(x.permute(0, 2, 3, 1), HEIGHT_FIRST).permute(0, 3, 1, 2)


class PatchEmbed(nn.Module):
    def __init__(self, channels, patch):
        super().__init__()
        self.proj = nn.Conv2d(3, channels, patch, patch)

    def forward(self, x):
        return self.proj(x)


class VisionMLPBlock(nn.Module):
    def __init__(self, channels, ratio, bias):
        super().__init__()

        def convolution(inputs, outputs):
            return nn.Conv2d(inputs, outputs, 1, bias=bias)

        hidden, norm = channels * ratio, ChannelNorm
        mixer = [convolution(channels, channels), nn.GELU(), ChannelShift(), convolution(channels, channels), norm(channels)]
        self.channel_mlp1 = nn.Sequential(*mixer)
        self.channel_mlp2 = nn.Sequential(convolution(channels, hidden), nn.GELU(), convolution(hidden, channels), norm(channels))

    def forward(self, x):
        x = x + self.channel_mlp1(x)
        return x + self.channel_mlp2(x)


class VisionMLP(nn.Module):
    """``S2MLP`` of rentainhe/vision-mlp: the norm comes last."""

    def __init__(self, channels=12, depth=3, patch=4, ratio=2, bias=False):
        super().__init__()
        self.patch_emb = PatchEmbed(channels, patch)
        self.stages = nn.Sequential(*(VisionMLPBlock(channels, ratio, bias) for _ in range(depth)))
        self.mlp_head = nn.Sequential(Pool(), nn.Linear(channels, 5))

    def forward(self, x):
        return self.mlp_head(self.stages(self.patch_emb(x)))


class PartsBlock(nn.Module):
    """The block of ``model_p1`` copies, on (B, H, W, C)."""

    def __init__(self, channels, mixer, ratio=2):
        super().__init__()
        hidden = channels * ratio
        self.model_p1 = nn.Sequential(nn.LayerNorm(channels), *mixer(channels))
        self.model_p2 = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))

    def forward(self, x):
        x = x + self.model_p1(x)
        return x + self.model_p2(x)


def v2_parts(channels):
    return [v2_mixer(channels)]


class Parts(nn.Module):
    """``S2MLPv1`` and ``S2MLPv2`` with ``model_p1``: one stage."""

    def __init__(self, mixer, channels=12, depth=3, patch=(4, 2)):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, channels, patch, patch)
        self.stages = nn.Sequential(*(nn.Sequential(PartsBlock(channels, mixer)) for _ in range(depth)))
        self.head = nn.Linear(channels, 5)

    def forward(self, x):
        return self.head(self.stages(self.patch_embed(x).permute(0, 2, 3, 1)).mean((1, 2)))


class Down(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, 2, 1)

    def forward(self, x):
        return self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class StagedParts(nn.Module):
    """``S2MLPv1`` and ``S2MLPv2`` with ``model_p1``: several stages, with overlapping downsampling after each."""

    def __init__(self, mixer, dims=(8, 12, 16)):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dims[0], 4, 4)
        self.stage0 = nn.Sequential(PartsBlock(dims[0], mixer))
        self.stage1 = nn.Sequential(PartsBlock(dims[1], mixer))
        self.down_stage = nn.ModuleList(Down(*sizes) for sizes in zip(dims[:-1], dims[1:]))
        self.head = nn.Linear(dims[-1], 5)

    def forward(self, x):
        x = self.patch_embed(x).permute(0, 2, 3, 1)
        x = self.down_stage[0](self.stage0(x))
        x = self.down_stage[1](self.stage1(x))
        return self.head(x.mean((1, 2)))


class Wrapper(nn.Module):
    def __init__(self, att):
        super().__init__()
        self.att = att

    def forward(self, x):
        return x + self.att(x)


class Detector(nn.Module):
    """Somebody's network with attention layers of several kinds."""

    def __init__(self, channels=8):
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(3, channels, 3, 2, 1),
            nn.BatchNorm2d(channels),
            Wrapper(S2Attention(channels)),
            S2Att(channels),
            Blocks(channels, 2, v2_mixer),
            swapped(channels),
            nn.Conv2d(channels, 4, 1),
        )

    def forward(self, x):
        return self.model(x)


def randomized(model):
    """Weights and biases of the scale of trained ones, including those of norms, which start at one and zero."""
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            nn.init.normal_(parameter, std=0.3)
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight, mean=1, std=0.3)
    return model.double().eval()
