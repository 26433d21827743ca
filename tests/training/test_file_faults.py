"""A kill or a full disk at every file operation of a run and of an export."""

import csv
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

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
