"""Processes that end while operators run. Each ends within a minute: see exiting.py."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from exiting import SCENARIOS


@pytest.fixture(scope="module")
def ends() -> dict[str, tuple[int, str]]:
    script = Path(__file__).with_name("exiting.py")
    result = subprocess.run([sys.executable, script, *SCENARIOS], capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


@pytest.mark.parametrize("scenario", ["threads of a pool", "persistent workers"])
def test_clean_exit(ends, scenario):
    assert ends[scenario] == [0, ""]


@pytest.mark.parametrize("scenario", ["daemon threads", "daemon threads, torch"])
def test_exit_under_daemon_threads(ends, scenario):
    """When a daemon thread returns from an operator after the end of the interpreter, Python ends the thread, and the C++ runtime
    aborts: with PyTorch's own operators, too. Each thread that does may say so."""
    status, output = ends[scenario]
    assert status in (0, -signal.SIGABRT), output
    assert set(output.splitlines()) <= {"terminate called without an active exception"}
