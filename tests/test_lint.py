"""What linters say of the sources: nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMANDS = (
    ["ruff", "check", "--no-cache"],
    ["ruff", "format", "--check", "--no-cache"],
    ["mypy", "--no-incremental"],
    ["lint-imports", "--no-cache"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_nothing_to_say(command):
    tool, *options = command
    result = subprocess.run([Path(sys.executable).parent / tool, *options], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
