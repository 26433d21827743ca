"""Saving to and loading from folders with the layout of the Hugging Face Hub."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("huggingface_hub")

from s2mlp_cuda import hub, models, offsets  # noqa: E402

from test_models import NAMES, SMALL  # noqa: E402


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
    model.push_to_hub("someone/s2mlp")
    assert sent.pop("repo_id") == "someone/s2mlp"
    assert set(sent) == {"README.md", "config.json", "model.safetensors"}
    assert b"2108.01072" in sent["README.md"] and b"license: apache-2.0" in sent["README.md"]
    for name, content in sent.items():
        (tmp_path / name).write_bytes(content)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(hub.S2MLPv2.from_pretrained(tmp_path).eval()(images), model(images))
