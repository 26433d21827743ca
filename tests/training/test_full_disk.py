"""Training, export and ``save_pretrained`` on a full disk: a small file system, or a limit on the size of files."""

import errno
import os
import resource
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import safetensors.torch
from PIL import Image

from s2mlp_cuda import cli, hub
from s2mlp_cuda.training import checkpoint, weights
from s2mlp_cuda.training.description import Description, build

pytestmark = pytest.mark.usefixtures("one_thread")
KWARGS = {"patch_size": 8, "embed_dim": 64, "depth": 2}
OPTIONS = [
    "--model", "s2mlp_deep", "--model-kwargs", *(f"{name}={value}" for name, value in KWARGS.items()), "--img-size", "16",
    "--workers", "0", "--batch-size", "1", "--device", "cpu", "--keep", "5", "--epochs", "5", "--no-tensorboard",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(one_thread, tmp_path_factory) -> Path:
    """A file of weights, about 390 kB."""
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    description = Description("s2mlp_deep", KWARGS, 2, ["a", "b"], 16, [0.5] * 3, [0.5] * 3, "bicubic", 1.0)
    weights.save(path, build("s2mlp_deep", 2, **KWARGS).state_dict(), description)
    assert 350_000 < path.stat().st_size < 450_000
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for split in ("train", "validation"):
        (root / split / "bee").mkdir(parents=True)
        Image.fromarray(numpy.zeros((16, 16, 3), numpy.uint8)).save(root / split / "bee" / "0.png")
    return root


def in_child(prepare: Callable[[], object], tmp_path: Path, *words) -> tuple[int, str]:
    """Status (negative: a signal) and last line of the errors of a command in a forked child, which first calls ``prepare``."""
    errors = tmp_path.with_name("errors")
    child = os.fork()
    if child == 0:
        status = 99
        with open(errors, "w") as sys.stderr:
            try:
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                prepare()
                status = cli.main(list(map(str, words)))
            except BaseException:
                traceback.print_exc()
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, errors.read_text().strip().rpartition("\n")[2]


def limit(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.mark.parametrize("format", ["pt2", "onnx"])
def test_export_that_does_not_fit(trained, tmp_path, format):
    path = tmp_path / f"m.{format}"
    path.write_text("old")
    found = in_child(limit(100_000), tmp_path, "export", "--format", format, "--weights", trained, "--out", path)
    assert found == (1, f"s2mlp: {path}: File too large")
    assert path.read_text() == "old" and os.listdir(tmp_path) == [path.name]


def test_training_that_does_not_fit(data, tmp_path):
    """The weights, of 390 kB, can be written; the checkpoint, of three times as many, cannot."""
    output = tmp_path / "run"
    file = checkpoint.folder_of(output) / "checkpoint-0001.pt"
    assert in_child(limit(500_000), tmp_path, "train", "--data", data, "--output", output, *OPTIONS) == (
        1,
        f"s2mlp: cannot write {file}: File too large. Files saved before are intact: "
        "free some space, then resume with --resume auto",
    )
    assert safetensors.torch.load_file(output / "last.safetensors") and os.listdir(file.parent) == []


@pytest.mark.parametrize("size", [0, 50_000])
def test_saved_model_that_does_not_fit(tmp_path, size):
    """The weights have 105 kB. The model that was saved before is kept."""
    folder = tmp_path / "model"
    model = hub.S2MLP(**KWARGS | {"embed_dim": 16}).eval()
    hub.S2MLP(2, patch_size=4, embed_dim=8, depth=1).save_pretrained(folder)
    (folder / "README.md").unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def save() -> None:
        limit(size)()
        try:
            model.save_pretrained(folder)
        except OSError as error:
            os._exit(3 if str(error) == f"[Errno 27] File too large: '{folder}'" else 4)

    assert in_child(save, tmp_path) == (3, "")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    hub.S2MLP.from_pretrained(folder)


@pytest.fixture
def disk(tmp_path):
    """A file system of 3 MB, which root can mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_full_file_system(disk, trained, data, tmp_path):
    """Training fills it with checkpoints. Then an export does not fit either."""
    output, model = disk / "run", disk / "m.pt2"
    model.write_text("old")
    status, error = in_child(lambda: None, tmp_path, "train", "--data", data, "--output", output, *OPTIONS)
    assert status == 1 and error.startswith(f"s2mlp: cannot write {output}/"), error
    assert "No space left on device. Files saved before are intact" in error
    saved = checkpoint.list_checkpoints(output)
    assert checkpoint.load(saved[0])["epochs_done"] == len(saved) >= 1
    assert not list(disk.rglob(".*")), "temporary files"

    with open(disk / "zeros", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(disk).free - 200_000))
    found = in_child(lambda: None, tmp_path, "export", "--format", "pt2", "--weights", trained, "--out", model)
    assert found == (1, f"s2mlp: {model}: No space left on device")
    assert model.read_text() == "old" and not list(disk.rglob(".*"))


def test_saved_model_on_a_full_file_system(disk):
    """Whatever space is left: the new model is there, or the old one, and nothing else."""
    old, new = hub.S2MLP(2, patch_size=4, embed_dim=8, depth=1), hub.S2MLP(2, patch_size=4, embed_dim=64, depth=2)
    failed = 0
    for left in (0, 4096, 8192, 100_000, 400_000, 450_000, 500_000):
        folder = disk / "model"
        old.save_pretrained(folder)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with open(disk / "zeros", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - left or 1)
        try:
            new.save_pretrained(folder)
        except OSError as error:
            assert (error.errno, error.filename) == (errno.ENOSPC, str(folder))
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
            failed += 1
        else:
            assert hub.S2MLP.from_pretrained(folder).num_features == 64
        shutil.rmtree(folder)
        (disk / "zeros").unlink()
    assert 3 <= failed < 7
