"""Processes that end while operators run. Each ends within a minute: see exiting.py."""

import json
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


def test_exit_under_daemon_threads_is_that_of_torch(ends):
    """Before Python 3.14, PyTorch aborts when a daemon thread returns from an operator after the end of the interpreter."""
    status, output = ends["daemon threads"]
    status_of_torch, output_of_torch = ends["daemon threads, torch"]
    assert status == 0 or status == status_of_torch, output
    assert set(output.splitlines()) <= set(output_of_torch.splitlines())
