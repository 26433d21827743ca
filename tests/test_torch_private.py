"""Private PyTorch APIs are used in one file only, and all transforms work if any of them is missing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PRIVATE = ROOT / "s2mlp_cuda" / "_torch_private.py"
NAMES = re.findall(r'_resolve\("(.+)"\)', PRIVATE.read_text())
#: Runs pytest with one name missing.
WITHOUT = """
import pkgutil, sys
resolve_name = pkgutil.resolve_name

def resolve_others(name):
    if name == sys.argv[1]:
        raise AttributeError(name)
    return resolve_name(name)

pkgutil.resolve_name = resolve_others
import pytest
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *sys.argv[2:]]))
"""


def test_other_files_use_no_private_names():
    used = re.compile(r"torch\._(?!dynamo|inductor|ops\b|_version__|\()|_functorch|forward_ad\._|autograd\.function\._")
    for path in (ROOT / "s2mlp_cuda").rglob("*.py"):
        if path != PRIVATE:
            assert not used.findall(path.read_text()), path
    assert len(NAMES) == len(set(NAMES)) == 8


@pytest.mark.parametrize("name", NAMES)
def test_transforms_work_without(name):
    """Transforms of the functions; without the name, raw operators do not support forward mode. The compiler is not affected."""
    tests = ["tests/ops/test_spatial_shift_transforms.py", "-k", "not compile and not opcheck"]
    result = subprocess.run([sys.executable, "-c", WITHOUT, name, *tests], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:]
