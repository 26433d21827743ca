"""Tests of all named configurations."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from s2mlp_cuda import create_model, layers, list_models, models, offsets

NAMES = ["s2mlp_deep", "s2mlp_wide", "s2mlpv2_medium_7", "s2mlpv2_small_14", "s2mlpv2_small_7"]
#: Arguments that make each configuration small but keep its characteristics.
SMALL = {
    "s2mlp_deep": {"embed_dim": 16, "depth": 3, "patch_size": 4},
    "s2mlp_wide": {"embed_dim": 24, "depth": 2, "patch_size": 4},
    "s2mlpv2_medium_7": {"embed_dims": (16, 24), "depths": (1, 2), "patch_sizes": (2, 2)},
    "s2mlpv2_small_14": {"embed_dims": (16, 16), "depths": (1, 2), "patch_sizes": (4, 1)},
    "s2mlpv2_small_7": {"embed_dims": (8, 16), "depths": (2, 1), "patch_sizes": (2, 2)},
}


def small(name, **kwargs):
    return create_model(name, **{"num_classes": 10, **SMALL[name], **kwargs})


def on_meta(name, **kwargs):
    with torch.device("meta"):
        return create_model(name, **kwargs)


def parameters(module) -> int:
    return sum(p.numel() for p in module.parameters())


def multiply_adds(model) -> float:
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, 224, 224, device="meta"))
    return counter.get_total_flops() / 2


def test_list_models():
    assert list_models() == NAMES == sorted(SMALL)


def test_unknown_model():
    with pytest.raises(ValueError, match="unknown model 's3mlp'; known are s2mlp_deep, .*, s2mlpv2_small_7"):
        create_model("s3mlp")


@pytest.mark.parametrize("name, dim, depth, total", [("s2mlp_wide", 768, 12, 72.24e6), ("s2mlp_deep", 384, 36, 53.92e6)])
def test_v1_parameters(name, dim, depth, total):
    """Paper 1's count: N(c^2(2r + 2) + c(3 + r)) + p^2 c 3 + c, without head and norms: 71.43M and 53.48M."""
    model = on_meta(name)
    norms = sum(parameters(m) for m in model.modules() if isinstance(m, (torch.nn.LayerNorm, layers.Affine)))
    counted = parameters(model) - norms - parameters(model.head)
    assert counted == depth * (dim**2 * 10 + dim * 7) + 16 * 16 * 3 * dim + dim
    assert counted == pytest.approx({"s2mlp_wide": 71.43e6, "s2mlp_deep": 53.48e6}[name], rel=1e-4)
    assert parameters(model) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize(
    "name, kwargs, total",
    [
        ("s2mlpv2_small_7", {}, 25_113_448),
        ("s2mlpv2_medium_7", {}, 55_269_864),
        ("s2mlpv2_small_7", {"branches": (offsets.SS1, offsets.SS2)}, 22_342_504),
        ("s2mlpv2_small_14", {}, 29_891_176),
    ],
)
def test_v2_parameters(name, kwargs, total):
    """Counted by hand from the paper's layers. The paper gives 25M and 55M, 22M for two branches, and 30M for Small/14."""
    assert parameters(on_meta(name, **kwargs)) == total


def test_public_copies_hidden_size_does_not_reproduce_the_papers_counts():
    assert parameters(on_meta("s2mlpv2_small_7", attention_ratio=1)) == pytest.approx(31.7e6, rel=2e-3)
    assert parameters(on_meta("s2mlpv2_medium_7", attention_ratio=1)) == pytest.approx(70.0e6, rel=2e-3)


@pytest.mark.parametrize(
    "name, billions",
    [("s2mlp_wide", 14.0), ("s2mlp_deep", 10.5), ("s2mlpv2_small_7", 6.9), ("s2mlpv2_medium_7", 16.3)],
)
def test_multiply_adds(name, billions):
    assert multiply_adds(on_meta(name)) == pytest.approx(billions * 1e9, rel=0.03)


def test_multiply_adds_of_small_14_differ_from_the_paper():
    """The paper gives 5.7G, the count is 6.85G. No interpretation of the paper gives its number."""
    assert multiply_adds(on_meta("s2mlpv2_small_14")) == pytest.approx(6.85e9, rel=0.01)


def test_norms():
    deep, wide = on_meta("s2mlp_deep"), on_meta("s2mlp_wide")
    assert all(isinstance(block.norm1, layers.Affine) and isinstance(block.norm2, layers.Affine) for block in deep.blocks)
    assert all(isinstance(block.norm1, torch.nn.LayerNorm) for block in wide.blocks)
    assert isinstance(deep.patch_embed.norm, torch.nn.LayerNorm)


@pytest.mark.parametrize("name", NAMES)
def test_any_multiple_of_the_patch_size(name, device):
    model = small(name).to(device).eval()
    for height, width in [(32, 32), (16, 48), (model.stride, 3 * model.stride)]:
        images = torch.randn(2, 3, height, width, device=device)
        assert model(images).shape == (2, 10)
        features = model.forward_features(images)
        assert features.shape == (2, height // model.stride, width // model.stride, model.num_features)
        assert model.forward_head(features, pre_logits=True).shape == (2, model.num_features)


@pytest.mark.parametrize("name", NAMES)
def test_other_sizes_are_rejected(name):
    model = small(name)
    with pytest.raises(
        ValueError, match=r"the input is 30x32, but height and width must be multiples of 4, the patch size of this model in pixels"
    ):
        model(torch.randn(1, 3, 30, 32))


@pytest.mark.parametrize(
    "name, kwargs, reductions",
    [("s2mlp_wide", {"patch_size": (4, 2)}, [4, 4]), ("s2mlpv2_small_7", {"patch_sizes": [(4, 1), (1, 2)]}, [4, 4])],
)
def test_rectangular_patches(name, kwargs, reductions):
    model = small(name, **kwargs).eval()
    assert model.token_size == (4, 2) and model.stride == 4
    assert [info["reduction"] for info in model.feature_info] == reductions
    assert model.forward_features(torch.randn(2, 3, 12, 10)).shape == (2, 3, 5, model.num_features)
    with pytest.raises(ValueError, match="the input is 12x11, but height and width must be multiples of 4 and 2, the patch size"):
        model(torch.randn(1, 3, 12, 11))
    padded = small(name, dynamic_img_pad=True, **kwargs).eval()
    assert padded.forward_features(torch.randn(2, 3, 11, 9)).shape == (2, 3, 5, model.num_features)


def test_ratios_per_stage():
    model = small("s2mlpv2_small_7", mlp_ratio=(2, 4), attention_ratio=(1, 0.5))
    assert [stage[1].mlp.fc1.out_features for stage in model.stages] == [16, 64]
    assert [stage[1].s2.attention.fc1.out_features for stage in model.stages] == [8, 8]
    for name in ("mlp_ratio", "attention_ratio"):
        with pytest.raises(ValueError, match=f"{name} must be a number or have one entry per stage, 2, got 3"):
            small("s2mlpv2_small_7", **{name: (1, 2, 3)})


def test_always_embed():
    """By default, a later stage of the same resolution and width has no embedding."""
    assert isinstance(small("s2mlpv2_small_14").stages[1][0], torch.nn.Identity)
    embedding = small("s2mlpv2_small_14", always_embed=True).stages[1][0]
    assert embedding.projection.weight.shape == (16, 16, 1, 1)


@pytest.mark.parametrize("name", NAMES)
def test_any_size_with_padding(name, device):
    """Images, and the maps of later stages, are padded with zeros on the right and at the bottom."""
    model = small(name, dynamic_img_pad=True).to(device).eval()
    plain = small(name).to(device).eval()
    plain.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 30, 45, device=device)
    whole = torch.nn.functional.pad(images, (0, 3, 0, 2))
    assert torch.equal(model(whole), plain(whole))
    features = model.forward_features(images)
    assert features.shape == (2, 8, 12, model.num_features)
    if isinstance(model, models.S2MLP):
        assert torch.equal(features, plain.forward_features(whole))


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_padded_patches(data_format):
    order = (0, 1, 2, 3) if data_format == "channels_first" else (0, 2, 3, 1)
    embed = layers.PatchEmbedding(3, 8, 4, data_format=data_format, pad=True)
    x = torch.randn(2, 3, 9, 12)
    whole = torch.nn.functional.pad(x, (0, 0, 0, 3))
    assert torch.equal(embed(x.permute(order)), embed(whole.permute(order)))
    assert embed(x.permute(order)).shape == (2, 3, 3, 8)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name, device):
    model = small(name, drop_path_rate=0.0).to(device)
    model(torch.randn(2, 3, 32, 32, device=device)).square().sum().backward()
    without = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without


@pytest.mark.parametrize("name", NAMES)
def test_drop_path_is_random_in_training_and_off_in_eval(name):
    model = small(name, drop_path_rate=0.5)
    rates = [block.drop_path.rate for block in model.modules() if hasattr(block, "drop_path")]
    assert rates[0] == 0 and rates[-1] == 0.5 and rates == sorted(rates)
    images = torch.randn(16, 3, 32, 32)
    model.train()
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize("name", NAMES)
def test_head_and_input_channels(name):
    model = small(name, num_classes=0, in_chans=1)
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, model.num_features)


@pytest.mark.parametrize(
    "name, kwargs",
    [(name, {}) for name in NAMES]
    + [("s2mlpv2_small_7", {"fusion": "sum"}), ("s2mlpv2_medium_7", {"fusion": "mean"})]
    + [("s2mlpv2_small_7", {"attention_pool": "mean", "pre_norm": False})],
)
def test_fused_and_reference_models_agree(name, kwargs, device):
    """Outputs and gradients."""
    fused = small(name, **kwargs).to(device).double()
    composed = small(name, implementation="reference", **kwargs).to(device).double()
    composed.load_state_dict(fused.state_dict())
    images = torch.randn(2, 3, 16, 24, device=device, dtype=torch.float64)
    out, expected = fused(images), composed(images)
    torch.testing.assert_close(out, expected)
    out.square().sum().backward()
    expected.square().sum().backward()
    for (key, ours), (_, theirs) in zip(fused.named_parameters(), composed.named_parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=lambda text: f"{key}: {text}")


ABLATIONS = (
    [(name, {"padding_mode": "zeros"}) for name in NAMES]
    + [(name, {"norm_layer": torch.nn.RMSNorm}) for name in NAMES]
    + [(name, {"norm_layer": "affine"}) for name in NAMES if name != "s2mlp_deep"]
    + [("s2mlp_deep", {"norm_layer": "layer_norm"})]
    + [(name, {"mlp_ratio": ratio}) for name in NAMES for ratio in (1, 2.5)]
    + [("s2mlp_wide", {"offsets": table}) for letter, table in offsets.ABLATION.items() if letter != "a"]
    + [("s2mlp_wide", {"depth": 1}), ("s2mlp_wide", {"embed_dim": 40}), ("s2mlp_wide", {"patch_size": 8})]
    + [("s2mlpv2_small_7", {"fusion": fusion}) for fusion in ("sum", "mean")]
    + [("s2mlpv2_small_7", {"attention_pool": "sum"}), ("s2mlpv2_small_7", {"pre_norm": False})]
    + [("s2mlp_wide", {"pre_norm": True})]
    + [
        ("s2mlpv2_small_7", {"branches": branches})
        for branches in (
            (offsets.SS1, None),
            (offsets.SS1, offsets.SS2),
            (None,),
            (None, None, None),
            (offsets.EIGHT_WAY, offsets.VERTICAL, None, offsets.HORIZONTAL),
        )
    ]
    + [("s2mlpv2_small_7", {"attention_ratio": ratio}) for ratio in (0.125, 1, 2)]
    + [("s2mlpv2_small_7", {"attention_ratio": (0.25, 1)}), ("s2mlpv2_small_7", {"mlp_ratio": (3, 2)})]
    + [("s2mlpv2_small_14", {"always_embed": True})]
    + [("s2mlpv2_small_7", {"patch_sizes": (4, 2, 1), "embed_dims": (8, 16, 24), "depths": (1, 1, 2)})]
)


@pytest.mark.parametrize("name, kwargs", ABLATIONS)
def test_every_ablation_is_a_different_model(name, kwargs):
    """It has different weights, or different results with the same weights."""
    model, default = small(name, **kwargs).eval(), small(name).eval()
    images = torch.randn(2, 3, 32, 32)
    out = model(images)
    assert out.shape == (2, 10)
    shapes, default_shapes = ({k: v.shape for k, v in m.state_dict().items()} for m in (model, default))
    if shapes == default_shapes:
        default.load_state_dict(model.state_dict())
        assert not torch.allclose(out, default(images), rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_initialization(name):
    """Standard deviations: 0.02 of every weight, or 1 / sqrt(inputs per output), also of a new head."""
    torch.manual_seed(0)
    for init in ("trunc_normal", "fan_in"):
        model = small(name, init=init)
        model.reset_classifier(1000)
        for module in model.modules():
            if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)) and module.weight.numel() > 1000:
                expected = 0.02 if init == "trunc_normal" else module.weight[0].numel() ** -0.5
                assert module.weight.std().item() == pytest.approx(expected, rel=0.1)
                assert module.bias is None or not module.bias.any()
