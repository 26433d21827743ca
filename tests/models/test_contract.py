"""timm's model interface, with and without timm."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

import s2mlp_cuda
from s2mlp_cuda import create_model
from s2mlp_cuda.models import FeaturePyramid

from test_models import NAMES, SMALL, on_meta, small

IMAGES = (2, 3, 32, 48)
#: Channels and reduction of all feature maps of the small models.
MAPS = {
    "s2mlp_deep": [(16, 4)] * 3,
    "s2mlp_wide": [(24, 4)] * 2,
    "s2mlpv2_medium_7": [(16, 2), (24, 4)],
    "s2mlpv2_small_14": [(16, 4), (16, 4)],
    "s2mlpv2_small_7": [(8, 2), (16, 4)],
}


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def model(name):
    return small(name).eval()


def shapes(name, indices):
    return [(2, c, 32 // r, 48 // r) for c, r in (MAPS[name][i] for i in indices)]


def test_intermediates(name, model):
    images = torch.randn(IMAGES)
    last, maps = model.forward_intermediates(images)
    count = len(MAPS[name])
    assert [m.shape for m in maps] == shapes(name, range(count))
    assert torch.equal(last, model.forward_features(images))
    assert torch.equal(model.forward_head(last), model(images))
    plain = model.forward_intermediates(images, output_fmt="NHWC", intermediates_only=True)
    assert all(torch.equal(a.permute(0, 2, 3, 1), b) for a, b in zip(maps, plain, strict=True))
    assert torch.equal(model.norm(plain[-1]), last)
    (normed,) = model.forward_intermediates(images, 1, norm=True, output_fmt="NHWC", intermediates_only=True)
    assert torch.equal(normed, last)
    for indices, taken in ((1, [count - 1]), ([0], [0]), ([-1, 0], [0, count - 1]), (2, [count - 2, count - 1])):
        found = model.forward_intermediates(images, indices, intermediates_only=True)
        assert len(found) == len(taken) and all(torch.equal(a, maps[i]) for a, i in zip(found, taken))


def test_feature_maps_are_the_outputs_of_their_modules(name, model):
    seen = []
    for info in model.feature_info:
        model.get_submodule(info["module"]).register_forward_hook(lambda module, args, out: seen.append(out))
    maps = model.forward_intermediates(torch.randn(IMAGES), output_fmt="NHWC", intermediates_only=True)
    assert all(a is b for a, b in zip(seen, maps, strict=True))


def test_stop_early_skips_later_levels(model):
    calls = []
    model.levels[-1].register_forward_hook(lambda *_: calls.append(1))
    images = torch.randn(IMAGES)
    last, maps = model.forward_intermediates(images, [0], stop_early=True, output_fmt="NHWC")
    assert not calls and torch.equal(last, maps[0])
    model.forward_intermediates(images, [0])
    assert calls


def test_wrong_indices_and_formats(name, model):
    count = len(MAPS[name])
    for indices in ([count], [-count - 1], [], 0, count + 1):
        with pytest.raises(ValueError, match=f"the model has {count} feature maps, 0 to {count - 1}, got indices"):
            model.forward_intermediates(torch.randn(IMAGES), indices)
    with pytest.raises(ValueError, match="output_fmt must be one of 'NCHW', 'NHWC', got 'NLC'"):
        model.forward_intermediates(torch.randn(IMAGES), output_fmt="NLC")
    with pytest.raises(ValueError, match="the input is 30x32"):
        model.forward_intermediates(torch.randn(1, 3, 30, 32))


def test_features_only(name):
    pyramid = create_model(name, features_only=True, **SMALL[name]).eval()
    assert isinstance(pyramid, FeaturePyramid)
    assert [(info["num_chs"], info["reduction"]) for info in pyramid.feature_info] == MAPS[name]
    images = torch.randn(IMAGES)
    assert [m.shape for m in pyramid(images)] == shapes(name, range(len(MAPS[name])))
    first = create_model(name, features_only=True, out_indices=[0], **SMALL[name]).eval()
    assert not any(key.startswith(("model.head", "model.stages.1.", "model.blocks.1.")) for key in first.state_dict())
    first.load_state_dict(pyramid.state_dict(), strict=False)
    assert torch.equal(first(images)[0], pyramid(images)[0])
    sum(m.mean() for m in first.train()(images)).backward()
    assert all(p.grad is not None for p in first.parameters())


def test_features_of_the_real_v2_for_dense_prediction():
    """512 = 73 * 7 + 1 and 384 = 54 * 7 + 6, so both sides are padded."""
    pyramid = create_model("s2mlpv2_small_7", features_only=True, dynamic_img_pad=True).eval()
    with torch.no_grad():
        fine, coarse = pyramid(torch.randn(1, 3, 512, 384))
    assert fine.shape == (1, 192, 74, 55) and coarse.shape == (1, 384, 37, 28)


def test_classifier(name, model):
    images = torch.randn(IMAGES)
    assert model.get_classifier() is model.head and model.num_classes == 10
    pooled = model.forward_head(model.forward_features(images), pre_logits=True)
    assert pooled.shape == (2, model.num_features) == (2, model.head_hidden_size)
    model.double().reset_classifier(7)
    assert model(images.double()).shape == (2, 7) and model.num_classes == 7
    assert not model.head.training and model.head.weight.std() < 0.03 and not model.head.bias.any()
    model.float().reset_classifier(0)
    torch.testing.assert_close(model(images), pooled)
    model.reset_classifier(5, "")
    height, width = (size // model.stride for size in images.shape[2:])
    assert model(images).shape == (2, height, width, 5)
    with pytest.raises(ValueError, match="global_pool must be one of 'avg', '', 'max', .*, got 'median'"):
        model.reset_classifier(5, "median")
    assert model.global_pool == "" and model(images).shape == (2, height, width, 5)
    with pytest.raises(ValueError, match="global_pool must be one of"):
        small(name, global_pool="median")
    assert small(name, global_pool="", num_classes=0)(images).shape == (2, height, width, model.num_features)


POOLS = {
    "avg": lambda x: x.mean((1, 2)),
    "max": lambda x: x.amax((1, 2)),
    "avgmax": lambda x: (x.mean((1, 2)) + x.amax((1, 2))) / 2,
    "catavgmax": lambda x: torch.cat([x.mean((1, 2)), x.amax((1, 2))], -1),
}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("prefix", ["", "fast"])
def test_pooling(name, pool, prefix):
    """At construction and by ``reset_classifier``, with a head of the width of the pooled features."""
    pytest.importorskip("timm")
    model = small(name, global_pool=prefix + pool, num_classes=5).eval()
    images = torch.randn(IMAGES)
    features = model.forward_features(images)
    pooled = model.forward_head(features, pre_logits=True)
    torch.testing.assert_close(pooled, POOLS[pool](features))
    assert model.head_hidden_size == pooled.shape[-1] == model.num_features * (2 if pool == "catavgmax" else 1)
    assert torch.equal(model(images), model.head(pooled)) and model(images).shape == (2, 5)
    other = small(name, num_classes=5).eval()
    other.load_state_dict(model.state_dict(), strict=False) if pool != "catavgmax" else other.reset_classifier(0)
    other.reset_classifier(0, prefix + pool)
    assert other.head_hidden_size == model.head_hidden_size
    if pool != "catavgmax":
        assert torch.equal(other(images), pooled)
    other.reset_classifier(7)
    assert other(images).shape == (2, 7)
    other.reset_classifier(7, "avg")
    assert other(images).shape == (2, 7) and other.head_hidden_size == other.num_features


def test_image_size_is_checked_and_changes_no_parameter(name):
    model = small(name, img_size=(64, 32))
    stride = model.stride
    assert model.default_cfg["input_size"] == (3, 64, 32) and model.default_cfg["pool_size"] == (64 // stride, 32 // stride)
    assert small(name, img_size=64).default_cfg["input_size"] == (3, 64, 64)
    assert {key: value.shape for key, value in model.state_dict().items()} == {
        key: value.shape for key, value in small(name).state_dict().items()
    }
    assert model(torch.randn(1, 3, 32, 96)).shape == (1, 10)
    with pytest.raises(ValueError, match="img_size must be a multiple of 4, .*, unless dynamic_img_pad=True, got 30x30"):
        small(name, img_size=30)
    padded = small(name, img_size=(30, 33), dynamic_img_pad=True)
    assert padded.default_cfg["pool_size"] == padded.forward_features(torch.randn(1, 3, 30, 33)).shape[1:3] == (8, 9)
    for wrong in (0, -4, (4,), (4, 4, 4), "64", 32.0, (4, 4.0)):
        with pytest.raises(ValueError, match="img_size must be one or two positive integers, got"):
            small(name, img_size=wrong)


def test_head_dropout_is_off_in_eval(name):
    model = small(name, drop_rate=0.5)
    assert model.head_drop.p == 0.5
    images = torch.randn(IMAGES)
    assert not torch.equal(model.train()(images), model(images))
    assert torch.equal(model.eval()(images), model(images))


def test_gradient_checkpointing_changes_memory_not_results(name):
    """Including stochastic depth: the recomputation uses the same random numbers."""
    model = small(name, drop_path_rate=0.3).train()
    images = torch.randn(4, 3, 32, 32)

    def gradients(enable):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        torch.manual_seed(1)
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.nbytes) or t, lambda t: t):
            loss = model(images).square().sum()
        loss.backward()
        return sum(saved), [p.grad.clone() for p in model.parameters()]

    (plain, expected), (less, found) = gradients(False), gradients(True)
    assert less < plain / 2
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b)


def test_parameter_groups_are_ordered_by_depth(name, model):
    timm_groups = pytest.importorskip("timm.models").group_parameters
    layers = timm_groups(model, model.group_matcher(), reverse=True)
    depth = [layers[key] for key, _ in model.named_parameters()]
    assert depth[0] == 0 and depth == sorted(depth) and set(depth) == set(range(max(depth) + 1))
    blocks = sum(1 for module in model.modules() if hasattr(module, "drop_path"))
    assert max(depth) >= blocks
    coarse = timm_groups(model, model.group_matcher(coarse=True), reverse=True)
    assert max(coarse.values()) <= max(depth)
    assert model.no_weight_decay() == set()


def test_norms_and_biases_have_no_weight_decay(model):
    factory = pytest.importorskip("timm.optim").param_groups_weight_decay
    without, decayed = factory(model, 0.05, no_weight_decay_list=model.no_weight_decay())
    assert without["weight_decay"] == 0 and all(p.ndim == 1 for p in without["params"])
    assert all(p.ndim > 1 for p in decayed["params"])


def test_default_configuration(name):
    model = on_meta(name, in_chans=4, num_classes=9)
    cfg = model.default_cfg
    assert cfg["min_input_size"] == (4, model.stride, model.stride) and model.output_fmt == "NHWC"
    assert cfg["pool_size"] == model.forward_features(torch.empty(1, 4, 224, 224, device="meta")).shape[1:3]
    assert cfg["input_size"] == (4, 224, 224) and cfg["num_classes"] == 9 and cfg["interpolation"] == "bicubic"
    assert cfg["mean"] == (0.485, 0.456, 0.406) and cfg["std"] == (0.229, 0.224, 0.225)
    model = on_meta(name)
    assert isinstance(model.get_submodule(cfg["first_conv"]), nn.Conv2d)
    assert model.get_submodule(cfg["classifier"]) is model.get_classifier()


def test_without_timm_and_huggingface_hub_models_still_build():
    code = (
        "import sys; sys.modules.update(timm=None, huggingface_hub=None, onnx=None);"
        "import torch, s2mlp_cuda;"
        "print(s2mlp_cuda.create_model('s2mlpv2_small_7', features_only=True)(torch.randn(1, 3, 28, 28))[1].shape)\n"
        "try: s2mlp_cuda.create_model('s2mlpv2_small_7', global_pool='max')\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    reason = "timm is not installed: pip install 's2mlp_cuda[timm]'"
    assert result.stdout.splitlines() == ["torch.Size([1, 384, 2, 2])", reason], result.stderr


def test_deepcopy_and_pickle(name, model):
    images = torch.randn(IMAGES)
    out = model(images)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(images), out)
        assert str(other) == str(model)


def test_public_names():
    assert set(s2mlp_cuda.models.__all__) == {
        "FeaturePyramid",
        "S2MLP",
        "S2MLPv2",
        "create_model",
        "list_models",
        "register_models",
    }
