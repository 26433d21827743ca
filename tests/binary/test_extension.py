"""Error messages if the compiled extension is missing, damaged or too new for the installed PyTorch."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import s2mlp_cuda
from s2mlp_cuda import _extension

PACKAGE = Path(s2mlp_cuda.__file__).parent


def import_from(folder: Path) -> str:
    """Imports the package in ``folder`` in a new process; returns the last line of stderr."""
    # An editable install would provide the files that the folder lacks.
    code = "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in str(f)]; import s2mlp_cuda"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    return result.stderr.splitlines()[-1]


@pytest.fixture
def package_without_binary(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "s2mlp_cuda", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return tmp_path


def test_missing_binary(package_without_binary):
    assert import_from(package_without_binary) == (
        "ImportError: The compiled extension s2mlp_cuda._C is missing: it has not been built for this environment. "
        "Run `pip install --no-build-isolation -e .` (or `python setup.py build_ext --inplace`) in the s2mlp_cuda "
        "source folder."
    )


def test_binary_that_cannot_load(package_without_binary):
    (package_without_binary / "s2mlp_cuda" / "_C.abi3.so").write_bytes(b"not a library")
    message = import_from(package_without_binary)
    assert message.startswith(
        f"ImportError: The compiled extension s2mlp_cuda._C exists, but PyTorch {torch.__version__} cannot load it: "
    )
    assert message.endswith(
        "To rebuild it, delete the `build` folder and s2mlp_cuda/_C*.so, then run `pip install --no-build-isolation "
        "-e .` (or `python setup.py build_ext --inplace`) in the s2mlp_cuda source folder."
    )


def test_old_torch(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.10.1+cu128")
    with pytest.raises(
        ImportError,
        match=r"s2mlp_cuda needs PyTorch 2.11 or newer, but this environment has 2.10.1\+cu128. Upgrade it with "
        r"`pip install 'torch>=2.11'`",
    ):
        _extension.load()


def test_build_facts():
    facts = _extension.build_facts()
    assert facts["compatible with"] == "PyTorch 2.11 and newer (stable ABI)"
    assert set(facts) == {"built with", "compatible with", "CUDA kernels"}


def test_build_facts_of_another_python(monkeypatch):
    monkeypatch.setitem(sys.modules, "s2mlp_cuda._build_info", None)
    assert _extension.build_facts()["build"].startswith("not known (")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="not an x86-64 processor")
@pytest.mark.parametrize("variable", [None, "avx2", "default"])
def test_instruction_set_is_that_of_pytorch(variable):
    code = (
        "import torch; from s2mlp_cuda._extension import cpu_capability; "
        "print(cpu_capability(), torch.backends.cpu.get_cpu_capability())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ATEN_CPU_CAPABILITY"}
    if variable:
        environment["ATEN_CPU_CAPABILITY"] = variable
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    ours, of_torch = result.stdout.split()
    assert ours == of_torch
    assert variable != "default" or ours == "DEFAULT"
