"""The error that ends a command under torchrun: one sentence, once."""

import os
import re
import subprocess
import sys
from datetime import timedelta

import pytest
from torch.distributed import TCPStore

from s2mlp_cuda import cli
from s2mlp_cuda.training import reports
from s2mlp_cuda.training.errors import TrainingError

RANKS = 2


@pytest.fixture
def torchrun(monkeypatch):
    """The store and the environment that torchrun gives to its processes."""
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    environment = {
        "TORCHELASTIC_USE_AGENT_STORE": "True", "WORLD_SIZE": str(RANKS),
        "MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port),
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(reports, "_PATIENCE", timedelta(seconds=0.2))
    return store


def in_children(function) -> list[tuple[int, str]]:
    """The exit status and the standard error of ``function(rank)`` in a process for each rank."""
    running = []
    for rank in range(RANKS):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            status = 99
            try:
                sys.stderr = open(writer, "w")
                status = function(rank)
                sys.stderr.flush()
            finally:
                os._exit(status)
        os.close(writer)
        running.append((child, reader))
    results = []
    for child, reader in running:
        with open(reader) as file:
            text = file.read()
        results.append((os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text))
    return results


def command_that_raises(monkeypatch, errors):
    """A function that runs a command which raises ``errors[rank]``."""

    def run(rank: int) -> int:
        def fail(_):
            raise errors[rank]

        monkeypatch.setattr(cli, "info", fail)
        return cli.main(["info"])

    return run


def test_an_error_of_all_processes_is_printed_once(torchrun, monkeypatch):
    error = TrainingError("no folder")
    results = in_children(command_that_raises(monkeypatch, [error, error]))
    assert [status for status, _ in results] == [1, 1]
    assert sorted(text for _, text in results) == ["", "s2mlp: no folder\n"]


@pytest.mark.parametrize("first", range(RANKS))
def test_an_error_of_one_process_ends_the_others_without_a_traceback(torchrun, monkeypatch, first):
    errors: list[Exception] = [RuntimeError("Connection closed by peer")] * RANKS
    errors[first] = TrainingError("no folder")
    monkeypatch.setattr(reports, "_PATIENCE", timedelta(seconds=10))
    results = in_children(command_that_raises(monkeypatch, errors))
    assert [status for status, _ in results] == [1, 1]
    assert [text for _, text in results] == ["s2mlp: no folder\n" if rank == first else "" for rank in range(RANKS)]


def test_an_interrupt_is_printed_once(monkeypatch, capsys):
    for rank in range(RANKS):
        monkeypatch.setenv("RANK", str(rank))
        assert command_that_raises(monkeypatch, [KeyboardInterrupt] * RANKS)(rank) == 130
    assert capsys.readouterr().err == "s2mlp: stopped\n"


def test_an_error_that_nobody_reports_is_raised(torchrun, monkeypatch):
    with pytest.raises(RuntimeError, match="a bug"):
        command_that_raises(monkeypatch, [RuntimeError("a bug")])(0)


def test_torchrun_that_has_ended(torchrun, monkeypatch, capsys):
    monkeypatch.setenv("MASTER_PORT", "1")
    reports.report("s2mlp: no folder")
    assert capsys.readouterr().err == "s2mlp: no folder\n"


def test_wrong_option_under_torchrun():
    """From start to end. What follows the sentence is torchrun's own."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "s2mlp_cuda", "train"]
    done = subprocess.run([*command, "--datta", "x"], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert (
        len(re.findall(r"^s2mlp: unrecognized arguments: --datta x; see \S+ -m s2mlp_cuda train --help$", done.stderr, re.M)) == 1
    )
    assert done.stderr.count("Traceback") == 1 and "ChildFailedError" in done.stderr
