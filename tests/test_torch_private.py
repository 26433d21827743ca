"""Private names of PyTorch: in one file, and every transform works without any of them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PRIVATE = ROOT / "s2mlp_cuda" / "_torch_private.py"
NAMES = re.findall(r'_find\("(.+)"\)', PRIVATE.read_text())
#: Runs pytest where a name cannot be found.
WITHOUT = """
import pkgutil, sys
find = pkgutil.resolve_name

def find_others(name):
    if name == sys.argv[1]:
        raise AttributeError(name)
    return find(name)

pkgutil.resolve_name = find_others
import pytest
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *sys.argv[2:]]))
"""


def test_other_files_have_none():
    used = re.compile(r"torch\._(?!dynamo|inductor|ops\b|_version__|\()|_functorch|forward_ad\._|autograd\.function\._")
    for path in (ROOT / "s2mlp_cuda").rglob("*.py"):
        if path != PRIVATE:
            assert not used.findall(path.read_text()), path
    assert len(NAMES) == len(set(NAMES)) == 6


@pytest.mark.parametrize("name", NAMES)
def test_transforms_work_without(name):
    """Of the functions; raw operators know no forward mode then. What compilers see does not depend on it."""
    tests = ["tests/ops/test_spatial_shift_transforms.py", "-k", "not compile and not opcheck"]
    result = subprocess.run([sys.executable, "-c", WITHOUT, name, *tests], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:]
