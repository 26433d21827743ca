"""A kill or a full disk at every file operation of a run, of an export and of ``save_pretrained``."""

import csv
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from s2mlp_cuda import hub
from s2mlp_cuda._files import remove_leftovers, write_text
from s2mlp_cuda.training import checkpoint, config, weights
from s2mlp_cuda.training.files import report_full_disk
from s2mlp_cuda.training.run import _Run, train

from file_faults import KILLED, REPORTED, full_disk, kill, statuses

pytestmark = pytest.mark.usefixtures("one_thread")
FAULTS = pytest.mark.parametrize("fault, status", [(kill, KILLED), (full_disk, REPORTED)], ids=["kill", "full disk"])
OPTIONS = [
    "--model", "s2mlp_deep", "--model-kwargs", "patch_size=8", "embed_dim=8", "depth=1", "--img-size", "16", "--workers", "0",
    "--batch-size", "4", "--epochs", "2", "--keep", "1", "--no-tensorboard", "--device", "cpu", "--resume", "auto",
]  # fmt: skip


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    numbers = numpy.random.default_rng(0)
    for split in ("train", "validation"):
        for name in ("ant", "bee"):
            (root / split / name).mkdir(parents=True)
            for number in range(2):
                pixels = numbers.integers(0, 256, (16, 16, 3), dtype=numpy.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture
def cheap_files(monkeypatch):
    """Without matplotlib, and without git in each child."""
    monkeypatch.setattr("s2mlp_cuda.training.run.draw_curves", lambda history, path, title: write_text(path, title))
    monkeypatch.setattr("s2mlp_cuda.training.run.environment", lambda: {"machine": "this"})


def arguments(data: Path, output: Path):
    return config.parse([*OPTIONS, "--data", str(data), "--output", str(output)])


def stop_after_first_epoch(data: Path, output: Path, monkeypatch) -> None:
    one_epoch = _Run._one_epoch

    def stopped(self, epoch, advance):
        if epoch:
            raise Stopped
        return one_epoch(self, epoch, advance)

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(_Run, "_one_epoch", stopped)
        train(arguments(data, output))


def state_of(folder: Path) -> frozenset:
    """The files and their contents, whatever the names and contents of temporary ones."""
    return frozenset(
        "temporary" if path.name.endswith(".tmp") else (path.relative_to(folder), path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    )


def result_of(folder: Path):
    """What a resumed run must reproduce bitwise. A run killed after its last checkpoint may keep one more than it should."""
    with open(folder / "metrics.csv") as file:
        losses = [(row["train_loss"], row["val_loss"]) for row in csv.DictReader(file)]
    newest, *older = checkpoint.list_checkpoints(folder)
    model = {name: tensor.numpy().tobytes() for name, tensor in checkpoint.load(newest)["model"].items()}
    weight_files = [(folder / name).read_bytes() for name in ("last.safetensors", "best.safetensors", "config.yaml")]
    return losses, newest.name, model, weight_files, sorted(path.name for path in folder.rglob("*") if path not in older)


@FAULTS
def test_a_run_resumes_after_a_fault_at_every_file_operation(data, tmp_path, monkeypatch, cheap_files, fault, status):
    output, stopped, states = tmp_path / "run", tmp_path / "stopped", {}
    seen = []
    all_epochs = _Run.all_epochs

    def fail_everywhere(run: _Run) -> None:
        shutil.copytree(output, stopped)
        row = run._one_epoch(run.first_epoch, lambda *_: None)  # trains once, not in each child
        run._one_epoch = lambda *_: row

        def rest() -> None:
            with report_full_disk(output):
                all_epochs(run)

        for number, name, found in statuses(rest, fault):
            assert found == (status if number else 0), (number, name)
            seen.append(name)
            state = state_of(output)
            if state not in states:
                states[state] = shutil.copytree(output, tmp_path / f"state{number}")
            shutil.rmtree(output)
            shutil.copytree(stopped, output)
        raise Stopped

    stop_after_first_epoch(data, output, monkeypatch)
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(_Run, "all_epochs", fail_everywhere)
        train(arguments(data, output))
    assert {"open", "write", "fsync", "replace", "unlink"} <= set(seen) and len(states) > 5

    shutil.rmtree(output)
    train(arguments(data, output))
    whole = result_of(output)
    for folder in states.values():
        shutil.rmtree(output)
        folder.rename(output)
        train(arguments(data, output))
        assert result_of(output) == whole, folder.name


@FAULTS
def test_an_old_export_survives_a_fault_at_every_file_operation(tmp_path, monkeypatch, fault, status):
    description = weights.Description("x", {}, 1, ["a"], 1, [0.0] * 3, [1.0] * 3, "bicubic", 1.0)
    monkeypatch.setattr(weights, "load", lambda path: (torch.nn.Flatten(), description))
    monkeypatch.setattr(weights, "_to_onnx", lambda *_: b"new")
    monkeypatch.setattr(weights, "_run_onnx", lambda *_: None)
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    seen = []
    for number, name, found in statuses(lambda: weights.export(Path("x"), "onnx", path), fault):
        assert found == (status if number else 0), (number, name)
        seen.append(name)
        replaced = number == 0 or seen.count("fsync") == 2
        assert path.read_bytes() == (b"new" if replaced else b"old"), (number, name)
        if fault is full_disk:
            assert list(tmp_path.iterdir()) == [path]
        path.write_bytes(b"old")
        remove_leftovers(tmp_path)
    assert seen[1:] == ["open", "write", "fsync", "replace", "fsync"]


@FAULTS
@pytest.mark.parametrize("change", [{"padding_mode": "zeros"}, {"embed_dim": 12}], ids=str)
def test_a_saved_model_survives_a_fault_at_every_file_operation_of_the_next(tmp_path, fault, status, change):
    """The folder always has one of the two models, never the weights of one and the configuration of the other."""
    small = {"num_classes": 2, "patch_size": 4, "embed_dim": 8, "depth": 1}
    old, new = hub.S2MLP(**small).eval(), hub.S2MLP(**{**small, **change}).eval()
    images = torch.randn(1, 3, 16, 16)
    outputs = [model(images) for model in (old, new)]
    saved, folder = tmp_path / "saved", tmp_path / "folder"
    old.save_pretrained(saved)
    shutil.copytree(saved, folder)
    seen = []
    for number, name, found in statuses(lambda: new.save_pretrained(folder), fault):
        assert found == (status if number else 0), (number, name)
        seen.append(name)
        loaded = hub.S2MLP.from_pretrained(folder)
        committed = number == 0 or seen.count("replace") > 2 or (seen.count("replace") == 2 and name != "replace")
        assert torch.equal(loaded(images), outputs[committed]), (number, name)
        if fault is full_disk and not committed:
            assert state_of(folder) == state_of(saved)
        new.save_pretrained(folder)
        assert torch.equal(hub.S2MLP.from_pretrained(folder)(images), outputs[1])
        shutil.rmtree(folder)
        shutil.copytree(saved, folder)
    assert seen.count("replace") == 4 and {"open", "write", "fsync"} <= set(seen)
