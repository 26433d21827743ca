"""CONTRIBUTING.md names files, targets and names that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def test_files_exist():
    paths = set(re.findall(r"`((?:[\w.]+/)*[\w.]+\.(?:h|cpp|cu|py|md|yml|cff|toml))`", TEXT))
    assert {"csrc/padding.h", "tests/attack/numpy_oracle.py", "CITATION.cff"} <= paths
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_names_of_checklists_are_in_their_files():
    checklists = TEXT.partition("## Checklists")[2].partition("## What limits")[0]
    named = re.findall(r"((?:`\w+`(?:, | and | or )?)+)(?: there)? in\s+`([\w/.]+)`", checklists)
    found = {(name, file) for names, file in named for name in re.findall(r"\w+", names) if name not in ("and", "or")}
    assert ("NUMPY_MODES", "tests/test_reference.py") in found and ("_near_offsets", "s2mlp_cuda/reference.py") in found
    assert [(name, file) for name, file in sorted(found) if name not in (ROOT / file).read_text()] == []


def test_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"\bmake ([a-z][a-z-]+)", TEXT))
    assert {"build", "lint", "machine-code"} <= targets
    assert [target for target in sorted(targets) if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []
