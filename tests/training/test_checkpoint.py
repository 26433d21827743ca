import errno
import os
import resource
import subprocess
import sys

import pytest
import torch

from s2mlp_cuda.training import checkpoint, files
from s2mlp_cuda.training.errors import TrainingError


@pytest.fixture
def state():
    return {"epochs_done": 3, "history": [{"loss": 0.1}], "model": {"weight": torch.randn(50, 50)}}


def test_round_trip_and_the_last_few_are_kept(tmp_path, state):
    for epoch in range(1, 6):
        checkpoint.save(tmp_path, epoch, {**state, "epochs_done": epoch}, keep=2)
    assert [path.name for path in checkpoint.list_checkpoints(tmp_path)] == ["checkpoint-0005.pt", "checkpoint-0004.pt"]
    found = checkpoint.load(checkpoint.list_checkpoints(tmp_path)[0])
    assert found["epochs_done"] == 5
    assert found["history"] == state["history"]
    assert torch.equal(found["model"]["weight"], state["model"]["weight"])


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_damaged_checkpoint_is_noticed_and_the_one_before_used(tmp_path, state, damage):
    for epoch in (1, 2):
        path = checkpoint.save(tmp_path, epoch, {**state, "epochs_done": epoch}, keep=2)
    data = bytearray(path.read_bytes())
    if damage == "flip":  # a bit in the midst of the weights
        data[len(data) // 2] ^= 1
    path.write_bytes({"flip": data, "cut": data[: len(data) // 2], "empty": b""}[damage])
    with pytest.raises(TrainingError, match="checkpoint-0002.pt is damaged"):
        checkpoint.load(path)
    told = []
    assert checkpoint.load_newest(tmp_path, told.append)["epochs_done"] == 1
    assert len(told) == 1 and "checkpoint-0002.pt is damaged" in told[0]


def test_all_damaged(tmp_path, state):
    checkpoint.save(tmp_path, 1, state, keep=1).write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="every checkpoint .* is damaged"):
        checkpoint.load_newest(tmp_path, lambda text: None)


def test_nothing_but_data_is_unpickled(tmp_path):
    class Harm:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/harm",)

    path = tmp_path / "checkpoint-0001.pt"
    torch.save({"model": Harm()}, path)
    with pytest.raises(TrainingError, match="(?i)weights.?only"):
        checkpoint.load(path)
    assert not (tmp_path / "harm").exists()


def test_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(KeyError), files.whole_file(path) as file:
        file.write(b"half of")
        raise KeyError
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]


def test_bytes_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    events = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (events.append("sync"), sync(number)))
    monkeypatch.setattr(os, "replace", lambda *names: (events.append("rename"), rename(*names)))
    files.write_text(tmp_path / "file", "text")
    assert events == ["sync", "rename", "sync"]  # the bytes, the name, the folder that has the name


def test_no_space_left(tmp_path, monkeypatch):
    def fail(number):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(TrainingError, match="No space left on device. What was saved before is intact"):
        files.write_text(tmp_path / "file", "text")
    assert os.listdir(tmp_path) == []


def test_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path):
    """A real write fails in the midst of torch.save: files of this process may not grow beyond 100 kB."""
    code = (
        "import resource, torch; from pathlib import Path\n"
        "from s2mlp_cuda.training import checkpoint\n"
        f"run = Path({str(tmp_path)!r})\n"
        "checkpoint.save(run, 1, {'model': torch.zeros(10)}, keep=1)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, {resource.RLIM_INFINITY}))\n"
        "checkpoint.save(run, 2, {'model': torch.zeros(10**6)}, keep=1)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "TrainingError: cannot write" in result.stderr, result.stderr
    assert "File too large" in result.stderr
    assert os.listdir(checkpoint.folder_of(tmp_path)) == ["checkpoint-0001.pt"]
    assert torch.equal(checkpoint.load(checkpoint.list_checkpoints(tmp_path)[0])["model"], torch.zeros(10))
