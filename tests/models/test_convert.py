"""Models with the names and structure of public copies and a correct shift, compared with the output of ``convert``."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from s2mlp_cuda import offsets, reference
from s2mlp_cuda.convert import convert
from s2mlp_cuda.layers import S2


class SplitAttention(nn.Module):
    def __init__(self, channels, bias=False):
        super().__init__()
        self.mlp1 = nn.Linear(channels, channels, bias)
        self.mlp2 = nn.Linear(channels, 3 * channels, bias)

    def forward(self, maps):  # (B, 3, H, W, C)
        logits = self.mlp2(functional.gelu(self.mlp1(maps.sum((1, 2, 3)))))
        weights = logits.unflatten(-1, (3, -1)).softmax(1)
        return (maps * weights[:, :, None, None]).sum(1)


class S2Attention(nn.Module):
    """``channels_first`` as in collections of attention layers, else as in the whole models."""

    def __init__(self, channels, channels_first=True, bias=False):
        super().__init__()
        self.channels_first = channels_first
        self.mlp1 = nn.Linear(channels, 3 * channels)
        self.mlp2 = nn.Linear(channels, channels)
        self.split_attention = SplitAttention(channels, bias)

    def forward(self, x):
        x = x.permute(0, 2, 3, 1) if self.channels_first else x
        one, two, three = self.mlp1(x).chunk(3, -1)
        maps = [reference.spatial_shift(one, offsets.SS1), reference.spatial_shift(two, offsets.SS2), three]
        x = self.mlp2(self.split_attention(torch.stack(maps, 1)))
        return x.permute(0, 3, 1, 2) if self.channels_first else x


class Shift(nn.Module):
    def forward(self, x):
        return reference.spatial_shift(x, offsets.SS1)


class Residual(nn.Module):
    def __init__(self, channels, fn):
        super().__init__()
        self.fn = fn
        self.norm = nn.LayerNorm(channels)

    def forward(self, x):
        return x + self.fn(self.norm(x))


class Blocks(nn.Module):
    def __init__(self, channels, depth, ratio, mixer):
        super().__init__()
        self.model = nn.Sequential(
            *(
                nn.Sequential(Residual(channels, mixer(channels)), Residual(channels, self.mlp(channels, ratio)))
                for _ in range(depth)
            )
        )

    @staticmethod
    def mlp(channels, ratio):
        hidden = channels * ratio
        return nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Dropout(0), nn.Linear(hidden, channels), nn.Dropout(0))

    def forward(self, x):
        return self.model(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def v1_mixer(channels):
    return nn.Sequential(nn.Linear(channels, channels), nn.GELU(), Shift(), nn.Linear(channels, channels))


def v2_mixer(channels):
    return S2Attention(channels, channels_first=False)


class Pool(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


class Model(nn.Module):
    def __init__(self, mixer, patch_sizes, dims, depths, ratio, classes=5, in_channels=3):
        super().__init__()
        stages, channels = [], in_channels
        for patch, dim, depth in zip(patch_sizes, dims, depths):
            stages.append(nn.Sequential(nn.Conv2d(channels, dim, patch, patch), Blocks(dim, depth, ratio, mixer)))
            channels = dim
        self.stages = nn.Sequential(*stages)
        self.mlp_head = nn.Sequential(Pool(), nn.Linear(channels, classes))

    def forward(self, x):
        return self.mlp_head(self.stages(x))


def v1():
    return Model(v1_mixer, (4,), (16,), (12,), 4)  # twelve blocks, so that some names have two-digit indices


def v2():
    return Model(v2_mixer, (4, 2), (8, 16), (2, 3), 3, in_channels=1)


def noisy(model):
    """Moves weights and biases, including those of norms, far from their initial values."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.double().eval()


def test_s2_attention():
    public = noisy(S2Attention(12))
    ours, report = convert(public.state_dict())
    assert isinstance(ours, S2) and report.layout == "S2Attention" and len(report.renamed) == 6
    assert not report.missing and not report.unexpected
    x = torch.randn(2, 12, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(ours.double()(x), public(x))


@pytest.mark.parametrize("build, images", [(v1, (2, 3, 16, 24)), (v2, (2, 1, 16, 24))])
def test_whole_models(build, images):
    public = noisy(build())
    ours, report = convert({"model": {f"module.{key}": value for key, value in public.state_dict().items()}})
    assert not report.missing and not report.unexpected and len(report.renamed) == len(public.state_dict())
    x = torch.randn(images, dtype=torch.float64)
    torch.testing.assert_close(ours.double().eval()(x), public(x))


def test_report_names_missing_and_unexpected_keys():
    """Biases of the split attention, which some copies have, are unexpected: the paper has none."""
    state = S2Attention(8, bias=True).state_dict()
    del state["mlp2.bias"]
    model, report = convert(state)
    assert report.missing == ["project.bias"]
    assert report.unexpected == ["split_attention.mlp1.bias", "split_attention.mlp2.bias"]
    assert report.renamed["mlp1.weight"] == "expand.weight"
    lines = str(report).splitlines()
    assert lines[0] == "S2Attention: 5 renamed, 1 missing, 2 unexpected"
    assert "  mlp1.weight -> expand.weight" in lines and "  missing: project.bias" in lines
    assert "  unexpected: split_attention.mlp1.bias" in lines
    extra = v2().state_dict() | {"stages.0.1.model.0.0.fn.mlp9.weight": torch.ones(1), "epoch": torch.ones(1)}
    assert convert(extra)[1].unexpected == ["epoch", "stages.0.1.model.0.0.fn.mlp9.weight"]


def test_no_head():
    state = {key: value for key, value in v1().state_dict().items() if "head" not in key}
    model, report = convert(state)
    assert model.num_classes == 0 and not report.missing


def test_errors():
    with pytest.raises(ValueError, match="the keys are of no known layout .*, got a, b"):
        convert({"a": torch.ones(1), "b": torch.ones(1)})
    with pytest.raises(ValueError, match="only an S2MLPv1 with one stage can be converted, this one has 2"):
        convert(Model(v1_mixer, (4, 2), (8, 16), (1, 1), 2).state_dict())
