"""Every layout: outputs and gradients of the converted model are those of the public copy; or a sentence says why not."""

import re

import pytest
import torch
from torch import nn

from s2mlp_cuda.convert import convert
from s2mlp_cuda.layers import S2
from s2mlp_cuda.models import S2MLP, S2MLPv2

from public_copies import (
    Parts,
    S2Att,
    S2Attention,
    SplitAttention,
    Staged,
    StagedParts,
    VisionMLP,
    randomized,
    swapped,
    v1_mixer,
    v2_mixer,
    v2_parts,
)

pytestmark = pytest.mark.usefixtures("one_thread")

#: Layout, public copy.
MODELS = {
    # Twelve blocks, so that some names have indices of two digits.
    "v1": ("S2MLPv1", lambda: Staged(v1_mixer, [4], [12], [12], [2])),
    "v1, rectangular patches": ("S2MLPv1", lambda: Staged(v1_mixer, [(2, 4)], [10], [2], [3])),
    "v2": ("S2MLPv2", lambda: Staged(v2_mixer, [4, 2], [8, 12], [2, 3], [3, 3])),
    "v2, one ratio per stage": ("S2MLPv2", lambda: Staged(v2_mixer, [4, 2], [8, 12], [1, 1], [2, 4])),
    "v2, a ratio that is not exact": ("S2MLPv2", lambda: Staged(v2_mixer, [4], [49], [1], [1.04 / 49])),
    "v2, rectangular patches": ("S2MLPv2", lambda: Staged(v2_mixer, [(4, 2), (1, 2)], [8, 12], [1, 1], [2, 2])),
    "v2, a stage of the same width": ("S2MLPv2", lambda: Staged(v2_mixer, [4, 1], [8, 8], [1, 2], [2, 2])),
    "v2, widths that 4 does not divide": ("S2MLPv2", lambda: Staged(v2_mixer, [4, 2], [7, 10], [1, 1], [2, 2])),
    "vision-mlp": ("vision-mlp S2MLP", VisionMLP),
    "vision-mlp with biases": ("vision-mlp S2MLP", lambda: VisionMLP(bias=True, patch=(4, 2))),
    "parts v1": ("model_p1 S2MLPv1", lambda: Parts(v1_mixer)),
    "parts v2": ("model_p1 S2MLPv2", lambda: Parts(v2_parts, patch=4)),
    "parts v2, rectangular patches": ("model_p1 S2MLPv2", lambda: Parts(v2_parts)),
}
LAYERS = {
    "S2Attention": ("S2Attention", S2Attention),
    "split_attn": ("S2Attention", lambda channels: S2Attention(channels, attention="split_attn")),
    "SplitAtt": ("S2_MLPv2", swapped),
    "S2Att": ("S2Att", S2Att),
}


def assert_same(ours, public, shape):
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    expected = public(x)
    cotangent = torch.randn_like(expected)
    (expected_gradient,) = torch.autograd.grad(expected, x, cotangent)
    y = ours(x)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(torch.autograd.grad(y, x, cotangent)[0], expected_gradient, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_models(name):
    layout, build = MODELS[name]
    public = randomized(build())
    ours, report = convert(public.state_dict())
    assert isinstance(ours, (S2MLP, S2MLPv2)) and report.layout == layout and report.layers == {}
    assert report.renamed.keys() == public.state_dict().keys()
    assert not report.missing and not report.unexpected and not report.untouched
    assert len(report.zeros) == (12 if name == "vision-mlp" else 0)
    assert_same(ours.eval(), public, (2, 3, 16, 24))


@pytest.mark.parametrize("name", MODELS)
def test_modules(name):
    """The module itself instead of its state dict."""
    public = randomized(MODELS[name][1]())
    ours, _ = convert(public)
    assert isinstance(ours, (S2MLP, S2MLPv2)) and not ours.training
    assert_same(ours, public, (2, 3, 8, 16))


@pytest.mark.parametrize("channels", [5, 10, 16])
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, channels):
    layout, build = LAYERS[name]
    public = randomized(build(channels))
    ours, report = convert(public.state_dict())
    assert isinstance(ours, S2) and report.layout == layout and len(report.renamed) == 6
    assert_same(ours, public, (2, channels, 5, 7))
    assert_same(convert(public)[0], public, (2, channels, 5, 7))


def test_channels_last():
    """After the norm of a residual block, channels are last; the caller may say so, too."""
    public = randomized(S2Attention(8, channels_first=False))
    assert_same(convert(public.state_dict(), data_format="channels_last")[0], public, (2, 5, 7, 8))


def test_1x1_convolutions():
    """Instead of the linear layers."""
    public = randomized(S2Attention(8))
    state = {name: weight[..., None, None] if weight.dim() == 2 else weight for name, weight in public.state_dict().items()}
    assert_same(convert(state)[0], public, (2, 8, 5, 7))


def test_grayscale_and_no_head():
    public = randomized(Staged(v2_mixer, [4, 2], [8, 12], [1, 1], [2, 2], in_channels=1))
    public.mlp_head = nn.Identity()
    ours, report = convert(public.state_dict())
    assert ours.num_classes == 0 and ours.in_chans == 1 and not report.missing
    assert_same(lambda x: ours.forward_features(x).permute(0, 3, 1, 2), public, (2, 1, 16, 16))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtype_and_no_shared_memory(dtype):
    state = {key: value.to(dtype) for key, value in S2Attention(8).state_dict().items()}
    ours, _ = convert(state)
    assert all(parameter.dtype == dtype and parameter.requires_grad for parameter in ours.parameters())
    before = state["mlp2.bias"].clone()
    nn.init.ones_(ours.project.bias)
    assert torch.equal(state["mlp2.bias"], before)


@pytest.mark.parametrize("name", MODELS)
def test_every_key_is_needed(name):
    """Without any one weight there is a sentence, never a model that keeps an initial weight."""
    state = MODELS[name][1]().state_dict()
    for key in state:
        if key not in ("mlp_head.1.weight", "head.weight"):
            with pytest.raises(ValueError, match="because of missing weights: .+;|the weights lack"):
                convert({other: value for other, value in state.items() if other != key})


def test_missing():
    state = S2Attention(8).state_dict()
    del state["mlp2.bias"]
    with pytest.raises(
        ValueError,
        match="^the converted S2Attention .* missing weights: mlp2.bias; allow_missing=True lets them be random$",
    ):
        convert(state)
    ours, report = convert(state, allow_missing=True)
    assert report.missing == ["project.bias"] and ours.project.bias.shape == (8,)
    biased = VisionMLP(bias=True).state_dict()
    del biased["stages.1.channel_mlp1.3.bias"]
    with pytest.raises(ValueError, match="missing weights: stages.1.channel_mlp1.3.bias;"):
        convert(biased)


def test_unexpected():
    """Biases of the split attention, which some copies have, are unexpected: the paper has none."""
    state = S2Attention(8, bias=True).state_dict()
    names = ["split_attention.mlp1.bias", "split_attention.mlp2.bias"]
    with pytest.raises(ValueError, match=f"unexpected weights: {', '.join(names)}; allow_unexpected=True"):
        convert(state)
    _, report = convert(state, allow_unexpected=True)
    assert report.unexpected == names
    assert report.renamed["mlp1.weight"] == "expand.weight"
    lines = str(report).splitlines()
    assert lines[:2] == ["S2Attention: 6 renamed, 0 missing, 2 unexpected", "  model weights, float32"]
    assert "  mlp1.weight -> expand.weight" in lines and "  unexpected: split_attention.mlp1.bias" in lines
    staged = Staged(v2_mixer, [4], [8], [1], [2]).state_dict()
    extra = {"epoch": 3, "stages.0.1.model.0.0.fn.mlp9.weight": torch.ones(1)}
    with pytest.raises(ValueError, match=rf"unexpected weights: {', '.join(extra)};"):
        convert(staged | extra)
    assert sorted(convert(staged | extra, allow_unexpected=True)[1].unexpected) == sorted(extra)


def two_branches(channels=8):
    module = S2Attention(channels)
    module.mlp1 = nn.Linear(channels, 2 * channels)
    module.split_attention = SplitAttention(channels, k=2)
    return module


def of_another_width(channels=8):
    module = S2Attention(channels)
    module.split_attention = SplitAttention(3)
    return module


def depthwise():
    module = S2Attention(8)
    module.dw_conv1 = nn.Conv2d(8, 8, 1, groups=8)
    del module.split_attention
    return module


def uneven():
    model = Staged(v2_mixer, [4], [8], [2], [2])
    model.stages[0][1].model[1][1].fn = nn.Sequential(nn.Linear(8, 40), nn.GELU(), nn.Dropout(), nn.Linear(40, 8))
    return model


@pytest.mark.parametrize(
    "build, message",
    [
        (two_branches, "the split attention has K = 2 branches"),
        (lambda: Staged(lambda c: two_branches(c), [4], [8], [1], [2]), "the split attention has K = 2 branches"),
        (of_another_width, "the split attention has 3 channels and 9 outputs, but the first linear layer maps 8 channels to 24"),
        (lambda: S2Attention(3), "it has 3 channels, fewer than the 4 groups of the shifts"),
        (depthwise, "S2Attention with depthwise convolutions"),
        (lambda: Staged(v1_mixer, [4, 2], [8, 16], [1, 1], [2, 2]), "only an S2MLPv1 with one stage .*; this one has 2"),
        (lambda: StagedParts(v1_mixer), "overlapping, padded patches"),
        (lambda: StagedParts(v2_parts), "overlapping, padded patches"),
        (uneven, r"stages.0.1.model.1.1.fn.0.weight has shape \(40, 8\) .* shape \(16, 8\) are expected"),
        (lambda: nn.Linear(2, 2), "the keys are of no known layout .*, got weight, bias$"),
    ],
)
def test_what_cannot_be_converted(build, message):
    with pytest.raises(ValueError, match=message) as error:
        convert(build().state_dict())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "names, message",
    [
        ((r"stages\.0\.1\.model\.11\.", "stages.0.1.model.999999999."), "the model has more than [0-9]+ tensors"),
        ((r"stages\.0\.", "stages.999999999."), "only an S2MLPv1 with one stage"),
    ],
)
def test_indices_of_blocks_do_not_make_a_model_larger_than_its_weights(names, message):
    state = {re.sub(*names, name): tensor for name, tensor in MODELS["v1"][1]().state_dict().items()}
    for allowed in (False, True):
        with pytest.raises(ValueError, match=f"^cannot convert the S2MLPv1 weights.*: {message}"):
            convert(state, allow_missing=allowed, allow_unexpected=allowed)


def test_one_weight_does_not_make_a_model_larger_than_all():
    state = MODELS["v1"][1]().state_dict()
    state["stages.0.1.model.0.1.fn.0.weight"] = torch.ones(1, 20_000)  # its shape gives the number of channels
    with pytest.raises(ValueError, match="the tensors of the model have [0-9]{10,} numbers, but its weights only"):
        convert(state)


NO_EMBEDDING = r"only convolutions without overlap, padding, dilation and groups can be converted, got stages.1.0, Conv2d"


def changed(change):
    model = Staged(v2_mixer, [4, 1], [8, 8], [1, 1], [2, 2])
    change(model)
    return model


def convolution(*arguments, **options):
    def change(model):
        model.stages[1][0] = nn.Conv2d(8, 8, *arguments, **options)

    return change


def epsilon(model):
    model.stages[0][1].model[0][0].norm.eps = 1e-6


def tanh(model):
    model.stages[0][1].model[0][1].fn[1] = nn.GELU("tanh")


@pytest.mark.parametrize(
    "change, message",
    [
        (convolution(3, 1), NO_EMBEDDING),
        (convolution(2, 2, padding=1), NO_EMBEDDING),
        (convolution(2, 2, dilation=2), NO_EMBEDDING),
        (convolution(2, 2, groups=2), NO_EMBEDDING),
        (epsilon, r"only LayerNorm with eps=1e-05 can be converted, got stages.0.1.model.0.0.norm, LayerNorm"),
        (tanh, r"only exact GELU can be converted, got stages.0.1.model.0.1.fn.1, GELU"),
    ],
)
def test_what_a_module_tells_beyond_its_weights(change, message):
    with pytest.raises(ValueError, match=message):
        convert(changed(change))


def test_float32_is_ill_conditioned():
    """Where the logits of the three branches are large and close, float32 is far off in the copy, too; float64 agrees."""
    public = randomized(S2Attention(16))
    weight = public.split_attention.mlp2.weight
    with torch.no_grad():
        weight.add_(300 * torch.randn(16, 16, dtype=torch.float64).repeat(3, 1))
    ours, _ = convert(public)
    x = torch.randn(8, 16, 14, 14, dtype=torch.float64)
    exact = public(x)
    torch.testing.assert_close(ours(x), exact, rtol=0, atol=1e-8)
    for model in (public, ours):
        assert (model.float()(x.float()) - exact).abs().max() > 1e-3
