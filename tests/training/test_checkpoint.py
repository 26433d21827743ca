import os
import pickle
import resource
import subprocess
import sys
import zipfile

import numpy
import pytest
import torch

from s2mlp_cuda.training import checkpoint
from s2mlp_cuda.training.errors import TrainingError


@pytest.fixture
def state():
    return {"epochs_done": 3, "history": [{"loss": 0.1}], "model": {"weight": torch.randn(50, 50)}}


def test_round_trip_and_number_of_checkpoints(tmp_path, state):
    for epoch in range(1, 6):
        checkpoint.save(tmp_path, epoch, {**state, "epochs_done": epoch}, keep=2)
    assert [path.name for path in checkpoint.list_checkpoints(tmp_path)] == ["checkpoint-0005.pt", "checkpoint-0004.pt"]
    found = checkpoint.load(checkpoint.list_checkpoints(tmp_path)[0])
    assert found["epochs_done"] == 5
    assert found["history"] == state["history"]
    assert torch.equal(found["model"]["weight"], state["model"]["weight"])


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_damaged_checkpoint_is_detected_and_the_previous_one_used(tmp_path, state, damage):
    for epoch in (1, 2):
        path = checkpoint.save(tmp_path, epoch, {**state, "epochs_done": epoch}, keep=2)
    data = bytearray(path.read_bytes())
    if damage == "flip":  # a bit in the middle of the weights
        data[len(data) // 2] ^= 1
    path.write_bytes({"flip": data, "cut": data[: len(data) // 2], "empty": b""}[damage])
    with pytest.raises(TrainingError, match="checkpoint-0002.pt is damaged"):
        checkpoint.load(path)
    reports = []
    assert checkpoint.load_newest(tmp_path, reports.append)["epochs_done"] == 1
    assert len(reports) == 1 and "checkpoint-0002.pt is damaged" in reports[0]


def test_all_damaged(tmp_path, state):
    checkpoint.save(tmp_path, 1, state, keep=1).write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="all checkpoints .* are damaged"):
        checkpoint.load_newest(tmp_path, lambda text: None)


def test_only_data_is_unpickled(tmp_path):
    class Harm:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/harm",)

    path = tmp_path / "checkpoint-0001.pt"
    torch.save({"model": Harm()}, path)
    with pytest.raises(TrainingError, match="(?i)weights.?only"):
        checkpoint.load(path)
    assert not (tmp_path / "harm").exists()


def script(path):
    torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.ones(1)), str(path))


def archive(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"junk")
        file.writestr("archive/version", "3")


@pytest.mark.parametrize(
    "write",
    [
        script,
        archive,
        lambda path: torch.export.save(torch.export.export(torch.nn.ReLU(), (torch.ones(1),)), path),
        lambda path: numpy.savez(path.open("wb"), a=numpy.ones(2)),
        lambda path: path.write_bytes(pickle.dumps({"a": 1})),
        lambda path: torch.save({"a": numpy.ones(2)}, path),
    ],
    ids=["TorchScript", "archive", "pt2", "npz", "pickle", "NumPy array"],
)
def test_files_of_others_are_refused(tmp_path, write):
    path = tmp_path / "other.pt"
    write(path)
    with pytest.raises(TrainingError, match=f"^{path} is (damaged or )?not a checkpoint of s2mlp train") as error:
        checkpoint.load(path)
    assert "\n" not in str(error.value)


def test_checkpoint_that_does_not_fit_keeps_the_previous_one(tmp_path):
    """A real write fails in the middle of torch.save, because the file size of the process is limited to 100 kB."""
    code = (
        "import resource, torch; from pathlib import Path\n"
        "from s2mlp_cuda.training import checkpoint\n"
        f"run = Path({str(tmp_path)!r})\n"
        "checkpoint.save(run, 1, {'model': torch.zeros(10)}, keep=1)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, {resource.RLIM_INFINITY}))\n"
        "checkpoint.save(run, 2, {'model': torch.zeros(10**6)}, keep=1)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    message = f"OSError: [Errno 27] File too large: '{checkpoint.folder_of(tmp_path)}/checkpoint-0002.pt'\n"
    assert result.stderr.endswith(message), result.stderr
    assert os.listdir(checkpoint.folder_of(tmp_path)) == ["checkpoint-0001.pt"]
    assert torch.equal(checkpoint.load(checkpoint.list_checkpoints(tmp_path)[0])["model"], torch.zeros(10))
