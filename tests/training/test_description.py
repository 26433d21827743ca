"""What the description in a weights file may name. None of these tests has a network."""

import json
import re
import resource
import socket
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

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


@contextmanager
def memory_limit(more):
    """Lets the address space of this process grow by ``more`` bytes at most."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


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
    ("s2mlp_wide", {"color": None}), ("s2mlp_wide", {"a\nb": 1}),
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
        expected = (
            f"s2mlp: {path}: cannot build hf-hub:someone/model: it is not a registered model of s2mlp_cuda or timm; a model of "
            "your own is known only to the program that registers it, see help(s2mlp_cuda.models.register_models)\n"
        )
        assert capsys.readouterr().err == expected


@pytest.mark.parametrize("name, close", [("s2mlpv2_smal_7", "s2mlpv2_small_7"), ("resmlp12_224", "resmlp_12_224")])
def test_a_name_with_a_typo(name, close):
    with pytest.raises(TrainingError, match=rf"^cannot build {name}: it is not .* or timm \(did you mean {close}\?\); a model of"):
        check_model(name, {})


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


@pytest.mark.parametrize(
    "model, kwargs",
    [
        ("s2mlp_deep", {"depth": 10**9}), ("s2mlp_deep", {"depth": 10**9, "drop_path_rate": 0.1}),
        ("s2mlp_deep", {"depth": 10**30}),
        ("s2mlp_deep", {"embed_dim": 10**7}), ("s2mlp_deep", {"embed_dim": 6000, "depth": 3}), ("s2mlp_deep", {"in_chans": 10**9}),
        ("s2mlp_deep", {"patch_size": 10**6}), ("s2mlp_deep", {"patch_size": 10**9}), ("s2mlp_deep", {"mlp_ratio": 1e9}),
        ("s2mlp_deep", {"offsets": [[0, 1]] * 20_000}), ("s2mlpv2_small_7", {"depths": [10**9, 1]}),
        ("s2mlpv2_small_7", {"depths": [1, 10**9], "drop_path_rate": 0.1}), ("s2mlpv2_small_7", {"embed_dims": [8, 10**7]}),
        ("s2mlpv2_small_7", {"branches": [None] * 10_000}), ("s2mlpv2_small_7", {"branches": [[[0, 1]] * 20_000], "fusion": "sum"}),
        ("s2mlpv2_small_7", {"branches": [[[0, 1]] * 20_000]}),
        ("s2mlpv2_small_7", {"patch_sizes": [10**5, 1]}), ("s2mlpv2_small_7", {"attention_ratio": 1e12}),
        ("s2mlpv2_small_7", {"patch_sizes": [1] * 3000, "embed_dims": [4] * 3000, "depths": [1] * 3000}),
        ("vit_tiny_patch16_224", {"depth": 10**9}), ("vit_tiny_patch16_224", {"depth": 10**9, "drop_path_rate": 0.1}),
        ("vit_tiny_patch16_224", {"depth": 8000}), ("vit_tiny_patch16_224", {"embed_dim": 8190}),
        ("convnext_atto", {"depths": [1, 1, 10**9, 1]}), ("resnet18", {"layers": [10**9] * 4}),
        ("mlp_mixer", {"num_blocks": 10**9}),
        ("mlp_mixer", {"patch_size": 8000}), ("gmlp", {"img_size": [10**6, 10**6]}),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_model_that_is_much_larger_than_the_weights_is_not_built(tmp_path, monkeypatch, model, kwargs):
    """Blocks and tensors of the model are neither built nor allocated: the address space has room for 1 GB more."""
    path = write(tmp_path / "x.safetensors", {**OURS.to_json(), "model": model, "model_kwargs": kwargs})
    monkeypatch.setattr("s2mlp_cuda.training.weights.build_described", lambda _: pytest.fail("the model was built"))
    start = time.process_time()
    with memory_limit(2**30), pytest.raises(TrainingError, match=f"^{path}: cannot build {model} with ") as error:
        weights.load(path)
    assert time.process_time() - start < 5
    assert "\n" not in str(error.value) and len(str(error.value)) < 1300 + len(str(path))
    assert re.search(
        "numbers, but its weights only|tensors, but its weights only|more than 8192, the most|cannot split|overflow",
        str(error.value),
    )


@pytest.mark.parametrize("num_classes", [10**9, 10**30])
def test_number_of_classes_that_the_weights_do_not_have(tmp_path, num_classes):
    path = write(tmp_path / "x.safetensors", {**OURS.to_json(), "num_classes": num_classes})
    with memory_limit(2**30), pytest.raises(TrainingError, match=f"^{path}: cannot build s2mlpv2_small_7") as error:
        weights.load(path)
    assert "frame #" not in str(error.value)


@pytest.mark.parametrize("img_size, crop_pct", [(10**9, 0.9), (8193, 1), (32, 1e-9), (7373, 0.9)])
def test_images_are_not_resized_without_limit(tmp_path, img_size, crop_pct):
    path = write(tmp_path / "x.safetensors", {**OURS.to_json(), "img_size": img_size, "crop_pct": crop_pct})
    with pytest.raises(TrainingError, match=r"\(img_size must be at most 8192 times crop_pct, got "):
        weights.load(path)
    assert from_json({**OURS.to_json(), "img_size": 8192, "crop_pct": 1}).img_size == 8192


def test_model_of_other_sizes_than_the_weights_is_not_built(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    weights.save(path, build(OURS.model, 2, **OURS.model_kwargs).state_dict(), replace(OURS, num_classes=3))
    monkeypatch.setattr("s2mlp_cuda.training.weights.build_described", lambda _: pytest.fail("the model was built"))
    with pytest.raises(TrainingError, match=f"^{path} has weights of a different model: head.bias, head.weight$"):
        weights.load(path)


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


def test_registered_model_that_cannot_be_built(monkeypatch):
    """Such as a model of a user that does not take the arguments that timm passes on."""

    def fail(name, **kwargs):
        raise TypeError("unexpected keyword argument 'pretrained_cfg'")

    monkeypatch.setattr("timm.is_model", lambda name: True)
    monkeypatch.setattr("timm.create_model", fail)
    with pytest.raises(TrainingError, match="^cannot build mine with {}: unexpected keyword argument 'pretrained_cfg'$"):
        build("mine", 2)
