"""``import s2mlp_cuda.timm``: the models in timm, with the checks that timm makes of its own models."""

import subprocess
import sys

import pytest
import timm
import timm.data
import timm.layers
import timm.optim
import timm.utils.onnx
import torch

import s2mlp_cuda.timm  # noqa: F401

from test_models import NAMES, SMALL

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def create(name, **kwargs):
    return timm.create_model(name, **{**SMALL[name], **kwargs})


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


def test_data_configuration_and_transform(name):
    model = create(name)
    config = timm.data.resolve_model_data_config(model)
    assert config["input_size"] == (3, 224, 224) and config["interpolation"] == "bicubic" and config["crop_pct"] == 0.9
    assert config["mean"] == (0.485, 0.456, 0.406)
    transform = timm.data.create_transform(**config, is_training=False)
    from PIL import Image

    assert transform(Image.new("RGB", (300, 260))).shape == (3, 224, 224)


def test_features_only(name):
    ours = s2mlp_cuda.create_model(name, features_only=True, out_indices=2, **SMALL[name]).eval()
    model = create(name, features_only=True, out_indices=(-2, -1)).eval()
    assert model.feature_info.channels() == [info["num_chs"] for info in ours.feature_info]
    assert model.feature_info.reduction() == [info["reduction"] for info in ours.feature_info]
    ours.model.load_state_dict(model.model.state_dict())
    images = torch.randn(2, 3, 32, 48)
    for a, b in zip(model(images), ours(images), strict=True):
        assert torch.equal(a, b)


def test_features_without_indices(name):
    """The last three blocks, as in timm's vision transformers, or as many blocks or stages as there are."""
    assert len(create(name, features_only=True).feature_info.channels()) == {"s2mlp_deep": 3}.get(name, 2)


def feature_maps(name, feature_cls, **kwargs):
    """Checks the labels of the feature extractor against its feature maps; returns both."""
    model = create(name, features_only=True, feature_cls=feature_cls, **kwargs).eval()
    maps = model(torch.randn(2, 3, 32, 48))
    channel_dim, height_dim = (3, 1) if model.output_fmt == "NHWC" else (1, 2)
    labels = zip(model.feature_info.channels(), model.feature_info.reduction(), maps, strict=True)
    for channels, reduction, found in labels:
        assert found.shape[0] == 2 and found.shape[channel_dim] == channels
        assert found.shape[height_dim : height_dim + 2] == (32 // reduction, 48 // reduction)
    return model, maps


@pytest.mark.parametrize("indices", [{}, {"out_indices": (0, 1)}, {"out_indices": (-1,)}, {"out_indices": 2}])
def test_feature_maps_by_hooks(name, indices):
    """The same as those of the default extractor, in the format of the model."""
    hooked, maps = feature_maps(name, "hook", **indices)
    getter, _ = feature_maps(name, "getter", **indices)
    assert (hooked.output_fmt, getter.output_fmt) == ("NHWC", "NCHW")
    getter.model.load_state_dict(hooked.body.state_dict(), strict=False)
    images = torch.randn(1, 3, 32, 32)
    for a, b in zip(hooked(images), getter(images), strict=True):
        assert torch.equal(a.permute(0, 3, 1, 2), b)


def input_size(model):
    """The smallest input that the configuration allows."""
    return model.default_cfg["min_input_size"]


def test_backward_reaches_all_parameters(name):
    model = create(name, num_classes=42).train()
    for size in (input_size(model), (3, 32, 32)):
        model.zero_grad()
        out = model(torch.randn(2, *size))
        out.mean().backward()
        assert out.shape == (2, 42) and not out.isnan().any()
        assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("patches", [{}, {"patch": 8}])
def test_default_configuration(name, patches):
    """Format, pooled size, names of the first convolution and the classifier; with other patch sizes, too."""
    if patches:
        patches = {"patch_size": 8} if name.startswith("s2mlp_") else {"patch_sizes": (8, 2)}
    model = create(name, num_classes=6, **patches).eval()
    cfg, height_dim, channel_dim = model.default_cfg, 1, 3
    assert model.output_fmt == "NHWC" and cfg is model.pretrained_cfg
    size = cfg["input_size"]
    features = model.forward_features(torch.randn(1, *size))
    assert features.shape[height_dim : height_dim + 2] == cfg["pool_size"] and features.shape[channel_dim] == model.num_features
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (1, model.head_hidden_size)
    names = model.state_dict().keys()
    assert {f"{cfg['classifier']}.weight", f"{cfg['first_conv']}.weight"} <= names
    images = torch.randn(1, *input_size(model))
    model.reset_classifier(0)
    assert model.num_classes == 0 and model(images).shape == (1, model.head_hidden_size)
    model.reset_classifier(0, "")
    assert model(images).shape == (1, 1, 1, model.num_features)
    bare = create(name, num_classes=0, global_pool="", **patches).eval()
    bare.load_state_dict(model.state_dict())
    assert torch.equal(bare(images), model(images))


def test_intermediates(name):
    model = create(name).eval()
    images = torch.randn(2, 3, 32, 32)
    final, maps = model.forward_intermediates(images, output_fmt="NHWC")
    assert [found.shape[-1] for found in maps] == [info["num_chs"] for info in model.feature_info]
    assert torch.equal(final, model.forward_features(images))
    assert torch.equal(model.forward_head(final), model(images))


@pytest.mark.parametrize("pool", ["max", "avgmax", "catavgmax", "fastcatavgmax"])
def test_poolings_of_timm(name, pool):
    model = create(name, num_classes=5, global_pool=pool).eval()
    images = torch.randn(2, 3, 32, 32)
    assert model(images).shape == (2, 5) and model.global_pool == pool
    expected = timm.layers.SelectAdaptivePool2d(pool_type=pool, flatten=True)(model.forward_features(images).permute(0, 3, 1, 2))
    torch.testing.assert_close(model.forward_head(model.forward_features(images), pre_logits=True), expected)


def test_image_size(name):
    """It fits any size, and a size that does not fit is rejected."""
    model = create(name, img_size=64)
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 1000)
    with pytest.raises(ValueError, match="img_size must be a multiple of 4, .*, got 30x62"):
        create(name, img_size=(30, 62))
    assert create(name, img_size=(30, 62), dynamic_img_pad=True)(torch.randn(1, 3, 30, 62)).shape == (1, 1000)


def test_weights_file_with_other_classes_and_channels(name, tmp_path):
    """``pretrained_cfg`` with a file: timm adapts the first convolution and drops the head."""
    model = create(name)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    cfg = {**model.pretrained_cfg, "file": str(tmp_path / "weights.pth")}
    same = create(name, pretrained=True, pretrained_cfg=cfg)
    assert all(torch.equal(a, b) for a, b in zip(same.parameters(), model.parameters(), strict=True))
    other = create(name, pretrained=True, pretrained_cfg=cfg, num_classes=5, in_chans=1)
    assert other(torch.randn(1, 1, 32, 32)).shape == (1, 5)
    block = [key for key in model.state_dict() if key.endswith("mlp.fc1.weight")][0]
    assert torch.equal(other.state_dict()[block], model.state_dict()[block])


def test_gradient_checkpointing(name):
    model = create(name, num_classes=4).train()
    images = torch.randn(2, 3, 32, 32)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(images).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b)


def test_onnx_export(tmp_path):
    """timm's ``onnx_export``, for any batch and image size."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model, path = create("s2mlpv2_small_7", num_classes=4, depths=(1, 1)).eval(), tmp_path / "model.onnx"
    timm.utils.onnx.onnx_export(
        model, str(path), batch_size=2, input_size=(3, 32, 32), use_dynamo=True, dynamic_size=True, check_forward=True
    )
    runtime = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for shape in ((2, 3, 32, 32), (1, 3, 48, 16)):
        images = torch.randn(shape)
        (found,) = runtime.run(None, {"input0": images.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(found), model(images), rtol=1e-4, atol=1e-5)


def test_torchscript_is_refused(name):
    with timm.layers.set_scriptable(True):
        model = create(name)
    with pytest.raises(NotImplementedError, match="s2mlp_cuda does not support torch.jit.script"):
        torch.jit.script(model)


@pytest.mark.parametrize("theirs", ["vit_tiny_patch16_224", "mixer_s32_224"])
def test_a_new_head_keeps_the_configuration(name, theirs):
    """It is that of the model as it was built, as in timm."""
    for model in (create(name, num_classes=10), timm.create_model(theirs, num_classes=10)):
        built = dict(model.pretrained_cfg)
        model.reset_classifier(7)
        assert model.num_classes == 7
        assert model.pretrained_cfg == model.default_cfg == built


def test_there_are_no_pretrained_weights():
    with pytest.raises(RuntimeError, match="[Nn]o pretrained weights"):
        timm.create_model("s2mlpv2_small_7", pretrained=True)


def test_optimizer_with_layer_decay():
    model = create("s2mlpv2_small_7", num_classes=3)
    optimizer = timm.optim.create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.5)
    scales = [group["lr_scale"] for group in optimizer.param_groups]
    assert max(scales) == 1 and min(scales) < 0.2
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
