"""Saving to and loading from folders with the layout of the Hugging Face Hub."""

import copy
import json
import pickle
import random
import socket
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

pytest.importorskip("huggingface_hub")

from s2mlp_cuda import hub, models, offsets  # noqa: E402
from s2mlp_cuda.layers import FUSIONS  # noqa: E402
from s2mlp_cuda.ops import PADDING_MODES  # noqa: E402

from test_models import NAMES, SMALL  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
V1 = {"num_classes": 3, "patch_size": 4, "embed_dim": 8, "depth": 1}
V2 = {"num_classes": 3, "patch_sizes": (2, 2), "embed_dims": (4, 8), "depths": (1, 1)}


@pytest.mark.parametrize("name", NAMES)
def test_round_trip(name, tmp_path):
    model = hub.create_model(name, num_classes=10, **SMALL[name]).eval()
    assert isinstance(model, models.S2MLP if name.startswith("s2mlp_") else models.S2MLPv2)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"config.json", "model.safetensors"}
    assert json.loads((tmp_path / "config.json").read_text())["num_classes"] == 10
    loaded = type(model).from_pretrained(tmp_path).eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(images), model(images))
    assert str(loaded) == str(model)


def test_arguments_are_saved(tmp_path):
    branches = (offsets.EIGHT_WAY, None)
    model = hub.create_model(
        "s2mlpv2_small_7", branches=branches, fusion="mean", padding_mode="zeros", norm_layer="affine", **SMALL["s2mlpv2_small_7"]
    )
    model.save_pretrained(tmp_path)
    loaded = hub.S2MLPv2.from_pretrained(tmp_path)
    assert str(loaded) == str(model) and loaded.stages[0][1].s2.sum.branches == model.stages[0][1].s2.sum.branches


def test_models_without_hub_methods_load_the_weights(tmp_path):
    from safetensors.torch import load_file

    hub.create_model("s2mlp_wide", **SMALL["s2mlp_wide"]).save_pretrained(tmp_path)
    plain = models.create_model("s2mlp_wide", **SMALL["s2mlp_wide"])
    plain.load_state_dict(load_file(tmp_path / "model.safetensors"))


def test_push(tmp_path, monkeypatch):
    """Checks the files that would be uploaded, with a mock of the Hub."""
    from huggingface_hub import HfApi

    sent = {}

    def upload_folder(self, *, folder_path, repo_id, **kwargs):
        sent.update({path.name: path.read_bytes() for path in Path(folder_path).iterdir()}, repo_id=repo_id)

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **kwargs: SimpleNamespace(repo_id=repo_id))
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    model = hub.create_model("s2mlpv2_small_7", num_classes=10, **SMALL["s2mlpv2_small_7"]).eval()
    model.save_pretrained(tmp_path / "saved", repo_id="someone/s2mlp", push_to_hub=True)
    assert sent.pop("repo_id") == "someone/s2mlp" and set(sent) == {path.name for path in (tmp_path / "saved").iterdir()}
    sent.clear()
    model.push_to_hub("someone/s2mlp")
    assert sent.pop("repo_id") == "someone/s2mlp"
    assert set(sent) == {"README.md", "config.json", "model.safetensors"}
    assert b"2108.01072" in sent["README.md"] and b"license: apache-2.0" in sent["README.md"]
    for name, content in sent.items():
        (tmp_path / name).write_bytes(content)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(hub.S2MLPv2.from_pretrained(tmp_path).eval()(images), model(images))


def folder_of(model, path):
    """Saves the model to a folder."""
    model.save_pretrained(path)
    return path


def assert_same(loaded, model):
    images = torch.randn(2, model.in_chans, 16, 16, dtype=next(model.parameters()).dtype)
    assert torch.equal(loaded(images), model.eval()(images))
    assert not loaded.training


def as_any_type(choose, table):
    """A shift table as one of the types that the layers take."""
    return choose.choice(
        [
            lambda: table,
            lambda: list(map(list, table)),
            lambda: numpy.array(table),
            lambda: list(numpy.array(table, numpy.int8)),
            lambda: torch.tensor(table),
            lambda: [tuple(map(torch.tensor, pair)) for pair in table],
            lambda: tuple((numpy.int64(dh), numpy.uint8(dw) if dw >= 0 else numpy.int16(dw)) for dh, dw in table),
        ]
    )()


def any_table(choose):
    if choose.random() < 0.1:
        return [range(1, 3), range(0, -2, -1)]
    return as_any_type(choose, choose.choice([offsets.V1, offsets.EIGHT_WAY, ((3, -2),), ((0, 1), (2, 0), (-9, 4))]))


def any_number(choose, *values):
    return choose.choice([int, float, numpy.float64, numpy.float32])(choose.choice(values))


def any_size(choose, *sides):
    """A side, or (height, width)."""
    side = lambda: choose.choice([int, numpy.int64])(choose.choice(sides))  # noqa: E731
    return choose.choice([side, lambda: (side(), side()), lambda: [side(), side()]])()


def random_model(choose):
    """A model with random valid arguments, of any type that the constructors take."""
    common = {
        "num_classes": lambda: choose.choice([0, 1, 5, numpy.int64(7)]),
        "in_chans": lambda: choose.choice([1, 3, numpy.int32(4)]),
        "padding_mode": lambda: choose.choice([*PADDING_MODES, numpy.str_("zeros")]),
        "norm_layer": lambda: choose.choice(["layer_norm", "affine"]),
        "drop_path_rate": lambda: choose.choice([0.0, 0.1, numpy.float64(0.3), numpy.float32(0.2)]),
        "drop_rate": lambda: choose.choice([0, 0.1, numpy.float32(0.2)]),
        "global_pool": lambda: choose.choice(["avg", "", "max", "avgmax", "catavgmax", "fast", "fastcatavgmax"]),
        "dynamic_img_pad": lambda: choose.choice([True, False, numpy.True_]),
        "implementation": lambda: choose.choice(["fused", "composed", "reference"]),
        "img_size": lambda: choose.choice([None, 32, (16, 64), [64, 32]]),
        "pre_norm": lambda: choose.choice([True, False, numpy.False_]),
        "init": lambda: choose.choice(["trunc_normal", "fan_in"]),
    }
    flat = {
        "patch_size": lambda: any_size(choose, 2, 4, 8),
        "mlp_ratio": lambda: any_number(choose, 1, 2, 2.6),
        "offsets": lambda: any_table(choose),
        "embed_norm": lambda: choose.choice([True, False]),
    }
    stages = choose.choice([1, 2, 3])
    pyramid = {
        "patch_sizes": lambda: choose.choice([tuple, list])(any_size(choose, 1, 2) for _ in range(stages)),
        "mlp_ratio": lambda: choose.choice([any_number(choose, 1, 2.6), [any_number(choose, 1, 2) for _ in range(stages)]]),
        "branches": lambda: [choose.choice([None, any_table(choose)]) for _ in range(choose.choice([1, 2, 3, 4]))],
        "fusion": lambda: choose.choice(FUSIONS),
        "attention_ratio": lambda: choose.choice([0.25, numpy.float64(1), [0.5] * stages]),
        "final_norm": lambda: choose.choice([True, False]),
        "always_embed": lambda: choose.choice([True, False]),
        "attention_pool": lambda: choose.choice(["sum", "mean"]),
    }
    is_flat = choose.random() < 0.5
    options = common | (flat if is_flat else pyramid)
    arguments = {name: make() for name, make in options.items() if choose.random() < 0.4}
    if is_flat:
        default = {"embed_dim": choose.choice([12, numpy.int64(9)]), "depth": choose.choice([1, 2]), "patch_size": 4}
        return hub.S2MLP(**{**default, **arguments})
    dims = [choose.choice([12, 9, numpy.int64(10)]) for _ in range(stages)]
    default = {"embed_dims": choose.choice([tuple, list])(dims), "depths": [1] * stages, "patch_sizes": [2] * stages}
    return hub.S2MLPv2(**{**default, **arguments})


def test_models_with_random_arguments(tmp_path):
    """All are saved, and compute the same when loaded: after a new head, in other dtypes and with changed weights, too."""
    choose = random.Random(0)
    for number in range(60):
        model = random_model(choose)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter))
        if choose.random() < 0.4:
            model.reset_classifier(choose.choice([0, 4, numpy.int64(6)]), choose.choice([None, "", "avg", "max", "catavgmax"]))
        if choose.random() < 0.3:
            model.to(choose.choice([torch.float64, torch.bfloat16]))
        if choose.random() < 0.3:
            model.set_grad_checkpointing()
        assert_same(type(model).from_pretrained(folder_of(model, tmp_path / str(number))), model)


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def test_config_has_plain_values(tmp_path):
    table = numpy.array(offsets.V1)
    model = hub.S2MLP(numpy.int64(4), 1, (2, 4), 8, 1, offsets=table, mlp_ratio=numpy.float64(2.5), pre_norm=numpy.True_)
    table[:] = 0  # the model has the values of its construction
    config = config_of(folder_of(model, tmp_path / "flat"))
    assert (config["num_classes"], config["patch_size"], config["mlp_ratio"], config["pre_norm"]) == (4, [2, 4], 2.5, True)
    assert config["offsets"] == [list(pair) for pair in offsets.V1] and config["padding_mode"] == "replicate"
    branches = ([(numpy.int64(2), torch.tensor(-1))], None, torch.tensor(offsets.SS1))
    loaded = hub.S2MLPv2.from_pretrained(folder_of(hub.S2MLPv2(branches=branches, **V2), tmp_path / "pyramid"))
    assert loaded.stages[0][1].s2.attention.branches == (((2, -1),), None, offsets.SS1)


@pytest.mark.parametrize(
    "arguments, kind",
    [
        ({"norm_layer": nn.LayerNorm}, "norm_layer is of type type"),
        ({"norm_layer": lambda channels: nn.LayerNorm(channels, eps=0.1)}, "norm_layer is of type function"),
        ({"offsets": iter(offsets.V1)}, "offsets is of type tuple_iterator"),
        ({"offsets": {pair: 1 for pair in offsets.V1}}, "offsets is of type dict"),
        ({"mlp_ratio": Fraction(5, 2)}, "mlp_ratio is of type Fraction"),
    ],
)
def test_arguments_that_json_cannot_express(tmp_path, arguments, kind):
    model = hub.S2MLP(**V1, **arguments)
    for save in (lambda: model.save_pretrained(tmp_path / "x"), lambda: model.push_to_hub("someone/s2mlp")):
        with pytest.raises(TypeError, match=f"^cannot save a model whose {kind}: arguments must be None, finite numbers, strings"):
            save()
    assert not list(tmp_path.iterdir())


CHANGES = {
    "head": lambda model: setattr(model, "head", nn.Linear(8, 3, bias=False)),
    "head_drop": lambda model: setattr(model.head_drop, "p", 0.5),
    "pool": lambda model: setattr(model, "pool", nn.Identity()),
    "blocks.0.norm1": lambda model: setattr(model.blocks[0], "norm1", nn.LayerNorm(8, eps=0.1)),
    "blocks.0.shift": lambda model: setattr(model.blocks[0].shift, "offsets", offsets.EIGHT_WAY),
    "blocks.0": lambda model: setattr(model.blocks[0], "pre_norm", True),
    "blocks.0.drop_path": lambda model: setattr(model.blocks[0].drop_path, "rate", 0.5),
    "S2MLP": lambda model: setattr(model, "dynamic_img_pad", True),
    "blocks.1": lambda model: model.blocks.append(copy.deepcopy(model.blocks[0])),
    "blocks.0.mlp.act": lambda model: setattr(model.blocks[0].mlp, "act", nn.ReLU()),
    "blocks.0.fc1.weight_mask": lambda model: prune.l1_unstructured(model.blocks[0].fc1, "weight", 0.5),
    "blocks.0.fc1.parametrizations": lambda model: nn.utils.parametrizations.weight_norm(model.blocks[0].fc1),
    "extra": lambda model: setattr(model, "extra", nn.Linear(1, 1)),
}


@pytest.mark.parametrize("changed", CHANGES)
def test_models_that_were_changed_cannot_be_saved(tmp_path, changed):
    model = hub.S2MLP(**V1)
    CHANGES[changed](model)
    with pytest.raises(ValueError, match="^cannot save a model that was changed after it was built") as error:
        model.save_pretrained(tmp_path / "x")
    assert changed in str(error.value) and not list(tmp_path.iterdir())


def test_pruned_levels_cannot_be_saved(tmp_path):
    model = hub.S2MLPv2(**V2)
    model.prune_intermediate_layers([0])
    with pytest.raises(ValueError, match="changed after it was built"):
        model.save_pretrained(tmp_path)


def test_a_failed_save_keeps_what_was_saved_before(tmp_path):
    model = hub.S2MLP(**V1)
    folder = folder_of(model, tmp_path)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(TypeError, match="norm_layer"):
        hub.S2MLP(**V1, norm_layer=nn.LayerNorm).save_pretrained(folder)
    with pytest.raises(ValueError, match="config must be None or the arguments of this model"):
        model.save_pretrained(folder, config={})
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_new_head(tmp_path):
    model = hub.S2MLPv2(**V2)
    model.reset_classifier(7, "catavgmax")
    folder = folder_of(model, tmp_path)
    assert (config_of(folder)["num_classes"], config_of(folder)["global_pool"]) == (7, "catavgmax")
    assert_same(hub.S2MLPv2.from_pretrained(folder), model)


def test_copies_and_loaded_models_are_saved_alike(tmp_path):
    model = hub.S2MLP(**V1, offsets=numpy.array(offsets.EIGHT_WAY))
    loaded = hub.S2MLP.from_pretrained(folder_of(model, tmp_path / "0"))
    for number, other in enumerate([copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded], 1):
        assert config_of(folder_of(other, tmp_path / str(number))) == config_of(tmp_path / "0")


class Subclass(hub.S2MLP):
    def __init__(self, width, *args, **kwargs):
        super().__init__(*args, embed_dim=width, **kwargs)


def test_subclasses(tmp_path):
    model = Subclass(8, depth=1, num_classes=3, offsets=numpy.array(offsets.EIGHT_WAY))
    model.reset_classifier(4)
    assert_same(Subclass.from_pretrained(folder_of(model, tmp_path / "x")), model)
    assert set(config_of(tmp_path / "x")) == {"width", "depth", "num_classes", "offsets"}
    assert config_of(folder_of(copy.deepcopy(model), tmp_path / "copy")) == config_of(tmp_path / "x")
    with pytest.raises(TypeError, match="cannot save a model whose args"):
        Subclass(8, 3).save_pretrained(tmp_path / "y")


def test_shared_weights(tmp_path):
    model = hub.S2MLP(**{**V1, "depth": 2})
    model.blocks[1].fc1.weight = model.blocks[0].fc1.weight
    assert_same(hub.S2MLP.from_pretrained(folder_of(model, tmp_path)), model)


def test_saving_takes_no_random_numbers(tmp_path):
    model, state = hub.S2MLP(**V1), torch.get_rng_state()
    model.save_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "config, message",
    [
        ({"pretrained": True}, "is not the configuration of S2MLP, which has no arguments pretrained"),
        ({"self": 1}, "which has no arguments self"),
        ({"checkpoint_path": "x", "pretrained_cfg": {"url": "x"}}, "no arguments checkpoint_path, pretrained_cfg"),
        ({"model": "hf-hub:someone/model"}, "no arguments model"),
        ({"patch_sizes": [2, 2]}, "no arguments patch_sizes"),
        ({"norm_layer": "hf-hub:someone/model"}, "cannot build S2MLP with the arguments in .*norm_layer must be one of"),
        ({"norm_layer": {"url": "https://example.com"}}, "cannot build S2MLP"),
        ({"depth": "many"}, "cannot build S2MLP"),
        ({"offsets": [[0.5, 0]]}, "cannot build S2MLP"),
        ({"embed_dim": None}, "cannot build S2MLP"),
        ([], "must have a JSON object with the arguments of S2MLP, got list"),
        ("text", "must have a JSON object with the arguments of S2MLP, got str"),
    ],
)
def test_config_may_name_the_arguments_of_the_constructor_alone(tmp_path, monkeypatch, config, message):
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("a connection"))
    folder = folder_of(hub.S2MLP(**V1), tmp_path)
    content = {**config_of(folder), **config} if isinstance(config, dict) else config
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        hub.S2MLP.from_pretrained(folder)
    assert "\n" not in str(error.value) and str(folder / "config.json") in str(error.value)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    "config",
    [
        {"depth": 10**9}, {"depth": 10**9, "drop_path_rate": 0.1}, {"embed_dim": 10**7}, {"num_classes": 10**9},
        {"mlp_ratio": 1e10},
        {"num_classes": 10**30}, {"patch_size": 10**6}, {"patch_size": 10**10}, {"in_chans": 10**8}, {"offsets": [[0, 1]] * 20_000},
    ],
    ids=lambda config: str(config)[:40],
)  # fmt: skip
def test_config_of_a_model_that_is_much_larger_than_the_weights(tmp_path, monkeypatch, config, strict):
    folder = folder_of(hub.S2MLP(**V1), tmp_path)
    (folder / "config.json").write_text(json.dumps({**config_of(folder), **config}))
    with pytest.raises(ValueError, match=f"^cannot build S2MLP with the arguments in {folder}/config.json ") as error:
        hub.S2MLP.from_pretrained(folder, strict=strict)
    assert "\n" not in str(error.value) and "frame #" not in str(error.value)


def test_weights_of_other_shapes_are_errors_before_the_model_is_built(tmp_path, monkeypatch):
    folder, built = folder_of(hub.S2MLP(**V1), tmp_path), []
    (folder / "config.json").write_text(json.dumps({**config_of(folder), "num_classes": 4}))
    monkeypatch.setattr(hub.S2MLP, "init_weights", lambda model: built.append(model.head.weight.device.type))
    for strict in (True, False):
        with pytest.raises(ValueError, match="model.safetensors has weights of a different model: head.bias, head.weight$"):
            hub.S2MLP.from_pretrained(folder, strict=strict)
    assert built == ["meta"] * 2
    hub.S2MLP.from_pretrained(folder, num_classes=3)
    assert built == ["meta"] * 3 + ["cpu"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_config_that_is_no_json(tmp_path, content):
    (folder_of(hub.S2MLP(**V1), tmp_path) / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match="config.json is not JSON"):
        hub.S2MLP.from_pretrained(tmp_path)


def test_missing_files(tmp_path):
    for name in ("model.safetensors", "config.json"):
        (folder_of(hub.S2MLP(**V1), tmp_path) / name).unlink()
        with pytest.raises(FileNotFoundError, match=name):
            hub.S2MLP.from_pretrained(tmp_path)


def test_weights_of_another_model_and_damaged_weights(tmp_path):
    from safetensors.torch import load_file, save_file

    path = folder_of(hub.S2MLP(**V1), tmp_path) / "model.safetensors"
    content, tensors = path.read_bytes(), load_file(path)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=f"^{path} is damaged: its checksum does not match its weights and their description$"):
        hub.S2MLP.from_pretrained(tmp_path)
    save_file(tensors, path, {"format": "pt"})  # as earlier versions wrote it
    hub.S2MLP.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has weights of a different model: head.bias, head.weight$"):
        hub.S2MLP.from_pretrained(tmp_path, num_classes=4)
    del tensors["head.weight"]
    save_file(tensors, path)
    with pytest.raises(ValueError, match=f"^{path} has weights of a different model: head.weight$"):
        hub.S2MLP.from_pretrained(tmp_path)
    assert torch.equal(hub.S2MLP.from_pretrained(tmp_path, strict=False).norm(tensors["head.bias"]), tensors["head.bias"])


def test_config_of_an_earlier_version_is_loaded(tmp_path):
    """It has the arguments of that time; those that were added since have their defaults."""
    model = hub.S2MLPv2(**V2, branches=(offsets.SS1, None))
    config = config_of(folder_of(model, tmp_path))
    for name in ("img_size", "always_embed", "dynamic_img_pad", "implementation"):
        del config[name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert_same(hub.S2MLPv2.from_pretrained(tmp_path, drop_path_rate=0.0), model)


def test_download(tmp_path, monkeypatch):
    """Both files come from the same revision of the repository."""
    folder, calls = folder_of(hub.S2MLP(**V1), tmp_path), []

    def download(repo_id, filename, **options):
        calls.append((repo_id, filename, options["revision"], options["local_files_only"]))
        return str(folder / filename)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    hub.S2MLP.from_pretrained("someone/s2mlp", revision="v1", local_files_only=True)
    assert calls == [("someone/s2mlp", name, "v1", True) for name in ("config.json", "model.safetensors")]
