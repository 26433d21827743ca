"""The description of the environment in result files."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import torch

from s2mlp_cuda import _system
from s2mlp_cuda._system import commit_name


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A module in a git checkout with one commit."""
    module = tmp_path / "package" / "module.py"
    results = tmp_path / "benchmarks" / "results" / "result.json"
    for path in (module, results):
        path.parent.mkdir(parents=True)
        path.write_text("1")
    author = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return module


def test_commit_is_named(checkout):
    assert re.fullmatch("[0-9a-f]{40}", commit_name(checkout))


def test_changes_are_marked_except_in_results(checkout):
    root, before = checkout.parent.parent, commit_name(checkout)
    (root / "benchmarks" / "results" / "result.json").write_text("2")
    (root / "benchmarks" / "results" / "new.json").write_text("2")
    assert commit_name(checkout) == before
    (root / "package" / "new.py").write_text("2")
    assert commit_name(checkout) == before + "+changes"


def test_package_installed_inside_another_checkout_has_no_commit(checkout, tmp_path):
    (tmp_path / ".gitignore").write_text("environment/")
    installed = tmp_path / "environment" / "module.py"
    installed.parent.mkdir()
    installed.write_text("1")
    assert commit_name(installed) == ""


def test_the_instruction_set_is_named(monkeypatch):
    monkeypatch.setattr(_system, "cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(_system, "cpu_name", lambda: "AMD EPYC")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert _system.machine_name() == "AMD EPYC, AVX2, 2 threads"
    assert _system.machine_facts()["cpu_capability"] == "AVX2"


def test_available_memory_is_in_bytes():
    free, total = (os.sysconf(name) * os.sysconf("SC_PAGE_SIZE") for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"))
    assert free / 2 < _system.available_memory() <= total
