"""``import s2mlp_cuda.timm``: the models in timm."""

import subprocess
import sys

import pytest
import timm
import timm.data
import timm.optim
import torch

import s2mlp_cuda.timm  # noqa: F401

from test_models import NAMES, SMALL


def create(name, **kwargs):
    return timm.create_model(name, **{**SMALL[name], **kwargs})


@pytest.mark.parametrize("name", NAMES)
def test_create_model(name):
    model = create(name, num_classes=10, in_chans=1, drop_rate=0.1, drop_path_rate=0.1, global_pool="avg").eval()
    expected = s2mlp_cuda.create_model(name, num_classes=10, in_chans=1, **SMALL[name]).eval()
    expected.load_state_dict(model.state_dict())
    images = torch.randn(2, 1, 32, 32)
    assert torch.equal(model(images), expected(images))
    assert model.num_classes == 10 and timm.is_model(name) and name in timm.list_models("s2mlp*")


def test_import_registers_the_models():
    code = (
        "import s2mlp_cuda, timm; print(timm.list_models('s2mlp*'));"
        "import s2mlp_cuda.timm; print(sorted(timm.list_models('s2mlp*')))"
    )
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines == ["[]", str(NAMES)]


@pytest.mark.parametrize("name", NAMES)
def test_data_configuration_and_transform(name):
    model = create(name)
    config = timm.data.resolve_model_data_config(model)
    assert config["input_size"] == (3, 224, 224) and config["interpolation"] == "bicubic" and config["crop_pct"] == 0.9
    assert config["mean"] == (0.485, 0.456, 0.406)
    transform = timm.data.create_transform(**config, is_training=False)
    from PIL import Image

    assert transform(Image.new("RGB", (300, 260))).shape == (3, 224, 224)


@pytest.mark.parametrize("name", NAMES)
def test_features_only(name):
    ours = s2mlp_cuda.create_model(name, features_only=True, out_indices=2, **SMALL[name]).eval()
    model = create(name, features_only=True, out_indices=(-2, -1)).eval()
    assert model.feature_info.channels() == [info["num_chs"] for info in ours.feature_info]
    assert model.feature_info.reduction() == [info["reduction"] for info in ours.feature_info]
    ours.model.load_state_dict(model.model.state_dict())
    images = torch.randn(2, 3, 32, 48)
    for a, b in zip(model(images), ours(images), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name, count", [("s2mlp_deep", 3), ("s2mlpv2_small_7", 2)])
def test_features_without_indices(name, count):
    """The last three blocks, as in timm's vision transformers, or both stages."""
    assert len(create(name, features_only=True).feature_info.channels()) == count


def test_there_are_no_pretrained_weights():
    with pytest.raises(RuntimeError, match="[Nn]o pretrained weights"):
        timm.create_model("s2mlpv2_small_7", pretrained=True)


def test_optimizer_with_layer_decay():
    model = create("s2mlpv2_small_7", num_classes=3)
    optimizer = timm.optim.create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.5)
    scales = [group["lr_scale"] for group in optimizer.param_groups]
    assert max(scales) == 1 and min(scales) < 0.2
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
