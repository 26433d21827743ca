"""Only one training at a time writes to a folder."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys

import pytest

from s2mlp_cuda import cli
from s2mlp_cuda.training.errors import TrainingError
from s2mlp_cuda.training.lock import locked


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of tmp_path / "run", and has a child that outlives it, as a data loading process may."""
    code = (
        "import os, sys, time; from pathlib import Path; from s2mlp_cuda.training.lock import locked\n"
        "with locked(Path(sys.argv[1]), print):\n"
        "    child = os.fork()\n"
        "    if child: print(child, flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    yield process
    process.kill()
    process.wait()
    os.kill(child, signal.SIGKILL)


def test_a_second_training_is_refused_until_the_first_is_killed(holder, tmp_path, capsys):
    run = tmp_path / "run"
    expected = (
        f"s2mlp: another training is writing to {run} (process {holder.pid} on {socket.gethostname()}): "
        "wait until it ends, or choose another output folder\n"
    )
    for resume in ([], ["--resume", "auto"]):
        words = ["train", "--data", str(tmp_path), "--output", str(run), "--device", "cpu", *resume]
        assert cli.main(words) == 1
        assert capsys.readouterr().err == expected
    assert os.listdir(run) == [".s2mlp.lock"]
    holder.kill()
    holder.wait()
    with locked(run, pytest.fail):  # though a child of the killed process lives on
        assert (run / ".s2mlp.lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
    assert os.listdir(run) == []


def test_lock_within_a_process_and_through_links(tmp_path):
    (tmp_path / "link").symlink_to("run")
    with locked(tmp_path / "run", pytest.fail):
        for name in ("run", "link"):
            with pytest.raises(TrainingError, match=f"another training .*process {os.getpid()} on"), locked(tmp_path / name, print):
                pytest.fail("locked twice")
    with locked(tmp_path / "run", pytest.fail):
        (tmp_path / "run" / "result").touch()
    assert os.listdir(tmp_path / "run") == ["result"]


def test_folders_are_removed_if_nothing_is_written(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path / "a" / "b", pytest.fail):
        raise KeyError
    assert os.listdir(tmp_path) == []


def test_lock_file_that_its_owner_removes_meanwhile(tmp_path, monkeypatch):
    """The second process has opened the file that the first one removes: it locks a new one, not the removed one."""
    flock, removed = fcntl.flock, []

    def late(descriptor, operation):
        if not removed:
            removed.append((tmp_path / ".s2mlp.lock").unlink())
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(tmp_path, pytest.fail):
        assert removed and (tmp_path / ".s2mlp.lock").read_text().startswith("process ")


def test_file_system_without_locks(tmp_path, monkeypatch):
    def fail(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", fail)
    warnings = []
    with locked(tmp_path, warnings.append):
        assert warnings == [f"{tmp_path} cannot be locked (No locks available): do not start another training in it"]
    assert os.listdir(tmp_path) == []


def test_folder_that_cannot_be_locked(tmp_path):
    (tmp_path / ".s2mlp.lock").mkdir()
    with pytest.raises(TrainingError, match="cannot lock the folder .*: Is a directory"), locked(tmp_path, print):
        pytest.fail("locked")
