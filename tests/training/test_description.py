"""What the description in a weights file may name. None of these tests has a network."""

import json
import socket
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from s2mlp_cuda import _safetensors, cli
from s2mlp_cuda.training import weights
from s2mlp_cuda.training.description import Description, build, check_model, from_json
from s2mlp_cuda.training.errors import TrainingError

pytestmark = pytest.mark.usefixtures("one_thread")
OURS = Description(
    "s2mlpv2_small_7", {"patch_sizes": (4, 2), "embed_dims": [8, 16], "depths": [1, 1]}, 2, ["ant", "bee"], 32,
    [0.5] * 3, [0.5] * 3,
    "bicubic", 0.9,
)  # fmt: skip


class Reached(BaseException):
    """Not an Exception, which would be caught as an error of the model."""


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def reach(*_, **__):
        raise Reached

    monkeypatch.setattr(socket, "socket", reach)
    for name in ("load_checkpoint", "load_model_config_from_hf", "load_model_config_from_path"):
        monkeypatch.setattr(f"timm.models._factory.{name}", reach)
    monkeypatch.setattr("timm.models._builder.load_pretrained", reach)


def write(path, description, tensors=None):
    path.write_bytes(_safetensors.to_bytes(tensors or {"x": torch.ones(1)}, description))
    return path


HOSTILE = [
    ("hf-hub:someone/model", {}), ("hf_hub:someone/model", {}), ("HF-HUB:someone/model", {}), ("local-dir:/tmp", {}),
    ("timm/resnet18", {}), ("someone/model", {}), ("https://example.com/model", {}), ("/tmp/model", {}), ("../model", {}), ("", {}),
    ("resnet18", {"pretrained": True}), ("s2mlp_wide", {"pretrained": True}), ("s2mlp_wide", {"pretrained": False}),
    ("resnet18.a1_in1k", {"pretrained": True}), ("resnet18", {"pretrained_cfg": {"url": "https://example.com/x.pth"}}),
    ("resnet18", {"pretrained_cfg": "a1_in1k"}), ("resnet18", {"pretrained_cfg_overlay": {"file": "/tmp/x.pth"}}),
    ("resnet18", {"pretrained_strict": False}), ("resnet18", {"pretrained_model_args": {}}),
    ("resnet18", {"checkpoint_path": "x.pth"}),
    ("s2mlp_wide", {"checkpoint_path": "x.pth"}), ("resnet18", {"cache_dir": "/tmp"}), ("resnet18", {"scriptable": True}),
    ("resnet18", {"exportable": True}), ("resnet18", {"no_jit": True}), ("resnet18", {"features_only": True}),
    ("resnet18", {"pruned": True}), ("s2mlp_wide", {"features_only": True}), ("s2mlp_wide", {"out_indices": [0]}),
    ("s2mlp_wide", {"num_classes": 3}), ("s2mlp_wide", {"self": 1}), ("s2mlp_wide", {"name": "x"}),
    ("resnet18", {"device": "meta"}),
    ("resnet18", {"model_cfg": {}}), ("resnet18", {"kwargs_filter": ["x"]}), ("mlp_mixer", {"pretrained": True}),
    ("s2mlp_wide", {"colour": None}), ("s2mlp_wide", {"a\nb": 1}),
]  # fmt: skip


@pytest.mark.parametrize("model, kwargs", HOSTILE, ids=str)
def test_file_that_names_more_than_a_model_and_its_arguments(tmp_path, model, kwargs):
    fields = {**OURS.to_json(), "model": model, "model_kwargs": kwargs}
    path = write(tmp_path / "x.safetensors", fields)
    with pytest.raises(TrainingError, match=f"^{path}: cannot build {model}") as error:
        weights.load(path)
    assert "\n" not in str(error.value) and ("registered model" in str(error.value) or "only arguments of" in str(error.value))


def test_every_command_refuses_it(tmp_path, capsys):
    path = write(tmp_path / "x.safetensors", {**OURS.to_json(), "model": "hf-hub:someone/model"})
    for words in (["predict", "x.png"], ["eval", "--data", "x"], ["explain", "x.png"], ["export", "--format", "pt2"]):
        assert cli.main([*words, "--weights", str(path)]) == 1
        expected = f"s2mlp: {path}: cannot build hf-hub:someone/model: it is not a registered model of s2mlp_cuda or timm\n"
        assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    "field, value",
    [
        ("model", 1), ("model", None), ("model", "a\nb"), ("model_kwargs", "abc"), ("model_kwargs", [["pretrained", True]]),
        ("num_classes", 0), ("mean", [10**400] * 3), ("crop_pct", 10**400),
        ("num_classes", 2.0), ("num_classes", True), ("num_classes", 1), ("class_names", "ant"), ("class_names", [1, 2]),
        ("img_size", -1),
        ("img_size", [32, 32]), ("mean", 0.5), ("mean", [0.5]), ("mean", [0.5, 0.5, "x"]), ("mean", [float("nan")] * 3),
        ("std", [0, 1, 1]),
        ("std", [True] * 3), ("interpolation", "x"), ("interpolation", ["bicubic"]), ("crop_pct", 0), ("crop_pct", 2), ("more", 1),
    ],
)  # fmt: skip
def test_fields_are_checked(tmp_path, field, value):
    path = write(tmp_path / "x.safetensors", {**OURS.to_json(), field: value})
    with pytest.raises(TrainingError, match=f"^the description of the model in {path} is not one of s2mlp train") as error:
        weights.load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("field", ["model_kwargs", "img_size"])
@pytest.mark.parametrize("depth", [50, 800, 950, 100_000])
def test_deeply_nested_values(tmp_path, field, depth):
    path = tmp_path / "x.safetensors"
    value = f'{{"offsets": {"[" * depth + "]" * depth}}}'
    text = json.dumps({**OURS.to_json(), field: "VALUE"}).replace('"VALUE"', value)
    save_file({"x": torch.ones(1)}, path, {"s2mlp_cuda": text})
    with pytest.raises(TrainingError) as error:
        weights.load(path)
    assert len(str(error.value)) < 300 + len(str(path)) and "\n" not in str(error.value)


def test_missing_field():
    fields = OURS.to_json()
    del fields["mean"]
    with pytest.raises(ValueError, match="missing or unknown: mean"):
        from_json(fields)


@pytest.mark.parametrize(
    "name, kwargs",
    [
        ("s2mlp_wide", {"offsets": [[0, 1], [1, 0]], "norm_layer": "affine", "depth": 2}),
        ("s2mlpv2_small_7", {"branches": [[[0, 1]], None], "mlp_ratio": [1, 2.5], "always_embed": True, "img_size": None}),
        ("resnet18", {"drop_path_rate": 0.1, "in_chans": 3}), ("resnet18.a1_in1k", {}),
        ("vit_tiny_patch16_224", {"img_size": [32, 32]}),
        ("deit_tiny_distilled_patch16_224", {"embed_dim": 24, "depth": 2}), ("convnext_atto", {"depths": [1, 1, 1, 1]}),
        ("mlp_mixer", {"patch_size": 8, "embed_dim": 16}), ("resmlp", {"num_blocks": 2}), ("gmlp", {}),
    ],
    ids=str,
)  # fmt: skip
def test_models_and_their_plain_arguments_are_allowed(name, kwargs):
    state = torch.get_rng_state()
    check_model(name, kwargs)
    assert torch.equal(torch.get_rng_state(), state)  # checking takes no random numbers from training


@pytest.mark.parametrize("value", [print, {1, 2}, b"x", 1j, [print], {"a": {1}}, {1: 2}, float("inf"), torch.ones(1)], ids=str)
def test_arguments_that_json_cannot_express_are_refused_before_training(value):
    with pytest.raises(TrainingError, match="cannot build s2mlp_wide: offsets must be None, a number, a string, or a list or dict"):
        build("s2mlp_wide", 2, offsets=value)


def test_arguments_for_initial_weights_are_not_described(tmp_path, monkeypatch):
    """Training may start from pretrained weights; using the result must not fetch them again."""
    description = replace(
        OURS, model_kwargs={**OURS.model_kwargs, "pretrained": True, "cache_dir": "/tmp", "checkpoint_path": "x.pth"}
    )
    with pytest.raises(Reached):
        build(description.model, 2, **description.model_kwargs)
    path = tmp_path / "x.safetensors"
    weights.save(path, build(OURS.model, 2, **OURS.model_kwargs).state_dict(), description)
    assert weights.load(path)[1].model_kwargs == {"patch_sizes": [4, 2], "embed_dims": [8, 16], "depths": [1, 1]}


def test_flipped_bits_of_trained_weights_are_reported(tmp_path, capsys):
    path = tmp_path / "x.safetensors"
    model = build(OURS.model, 2, **OURS.model_kwargs)
    weights.save(path, model.state_dict(), OURS)
    content = path.read_bytes()
    weights.load(path)
    for changed in (content[:-1] + bytes([content[-1] ^ 1]), content.replace(b"ant", b"anu")):
        path.write_bytes(changed)
        assert cli.main(["predict", "x.png", "--weights", str(path)]) == 1
        assert (
            capsys.readouterr().err == f"s2mlp: {path} is damaged: its checksum does not match its weights and their description\n"
        )
        with pytest.raises(TrainingError, match="is damaged: its checksum"):
            weights.load_into(model, path, [])
    save_file(model.state_dict(), path, {"s2mlp_cuda": json.dumps(OURS.to_json())})  # as earlier versions wrote it
    assert weights.load(path)[1].class_names == ["ant", "bee"]
