"""setup.py: installation, error messages, and the dependencies of the binary."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools
import torch

import s2mlp_cuda

ROOT = Path(__file__).parents[2]
SOURCES = ("csrc", "s2mlp_cuda", "setup.py", "pyproject.toml", "README.md")


def run(*command, **environment) -> subprocess.CompletedProcess:
    cwd = environment.pop("cwd", ROOT)
    return subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True)


@pytest.mark.installs
def test_develop(fresh_python, tmp_path):
    """With CPU kernels only, as on a machine without nvcc. `make install` covers `pip install -e .`, and test_wheel.py covers
    `build_ext --inplace`."""
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # for ninja
    result = run(fresh_python, "setup.py", "develop", cwd=tmp_path, S2MLP_CUDA="0", PATH=path)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    check = (
        "import torch, s2mlp_cuda; from s2mlp_cuda._extension import build_facts;"
        "x = torch.randn(2, 5, 6, 8);"
        "assert torch.equal(s2mlp_cuda.spatial_shift(x), s2mlp_cuda.reference.spatial_shift(x));"
        "print(s2mlp_cuda.__file__, build_facts()['CUDA kernels'])"
    )
    result = run(fresh_python, "-c", check, cwd=tmp_path.parent, PYTHONPATH="")
    assert result.stdout.split(" ", 1) == [str(tmp_path / "s2mlp_cuda" / "__init__.py"), "not compiled in\n"], result.stderr


def test_setup_without_torch_says_what_to_run(tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    result = run(sys.executable, "setup.py", "build_ext", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert result.stderr.strip() == (
        "s2mlp_cuda is built against PyTorch, which is not installed in this environment: run "
        "`pip install 'torch>=2.11' 'setuptools>=77,<82' ninja pybind11`, then "
        "`pip install --no-build-isolation -e .`"
    )


@pytest.mark.parametrize(
    "environment, text",
    [
        ({"S2MLP_CUDA": "yes"}, "S2MLP_CUDA must be 0 (no CUDA kernels) or 1 (CUDA kernels), got 'yes'"),
        (
            {"S2MLP_CUDA": "1", "PATH": "/nowhere", "CUDA_HOME": "", "CUDA_PATH": ""},
            "S2MLP_CUDA=1, but no CUDA toolkit was found: put nvcc on PATH or set CUDA_HOME",
        ),
        (
            {"CUDA_HOME": "/nowhere"},
            "no nvcc in /nowhere/bin: point CUDA_HOME at a CUDA toolkit, or set S2MLP_CUDA=0 to build without it",
        ),
    ],
)
def test_errors(environment, text):
    result = run(sys.executable, "setup.py", "build_ext", **environment)
    assert result.returncode == 1 and result.stderr.strip().splitlines()[-1] == text


@pytest.fixture
def setup_py(monkeypatch) -> dict:
    """What setup.py defines. It builds nothing."""
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")
    monkeypatch.setenv("S2MLP_CUDA", "0")
    return runpy.run_path(str(ROOT / "setup.py"))


TOOLKIT_11_8 = {(3, 5), (5, 0), (6, 0), (7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0)}
TOOLKIT_13_0 = {(7, 5), (8, 0), (8, 6), (8, 7), (8, 8), (8, 9), (9, 0), (10, 0), (10, 3), (11, 0), (12, 0), (12, 1)}


@pytest.mark.parametrize(
    "toolkit, visible, targets",
    [
        (TOOLKIT_11_8, set(), "7.5;8.0;9.0+PTX"),
        (TOOLKIT_13_0, set(), "7.5;8.0;9.0;10.0;12.0+PTX"),
        (TOOLKIT_13_0, {(8, 6)}, "8.6+PTX"),
        (TOOLKIT_13_0, {(9, 0), (12, 0), (8, 9)}, "8.9;9.0;12.0+PTX"),
        (TOOLKIT_11_8, {(12, 0)}, "9.0+PTX"),
        (TOOLKIT_13_0, {(7, 0), (9, 0)}, "9.0+PTX"),
        (TOOLKIT_13_0, {(7, 0)}, "7.5;8.0;9.0;10.0;12.0+PTX"),
    ],
    ids=["older toolkit", "newer toolkit", "one GPU", "several", "a newer GPU", "an older GPU", "only an older GPU"],
)
def test_default_targets(setup_py, toolkit, visible, targets):
    assert setup_py["default_arch_list"](toolkit, visible) == targets


def test_build_without_cuda_has_operators_that_say_so(setup_py):
    kernels, _ = setup_py["extensions"]()
    assert [source for source in kernels.sources if "/cuda/" in source] == ["csrc/cuda/without_kernels.cpp"]


def test_capabilities_of_the_toolkit(setup_py, tmp_path):
    (tmp_path / "bin").mkdir()
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.write_text("#!/bin/sh\ntest $1 = --list-gpu-arch && printf 'compute_75\\ncompute_90\\ncompute_120\\n'")
    nvcc.chmod(0o755)
    assert setup_py["toolkit_capabilities"](tmp_path) == {(7, 5), (9, 0), (12, 0)}


def test_visible_gpus_of_pytorch(setup_py, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: [(9, 0), (7, 5), (9, 0)][gpu])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert setup_py["visible_capabilities"]() == {(7, 5), (9, 0)}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert setup_py["visible_capabilities"]() == set()


def test_visible_gpus_beside_a_cpu_build_of_pytorch(setup_py, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert setup_py["visible_capabilities"]() == set()
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\ntest $1 = --query-gpu=compute_cap && printf '8.6\\n12.0\\n8.6\\n'")
    smi.chmod(0o755)
    assert setup_py["visible_capabilities"]() == {(8, 6), (12, 0)}
    smi.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'; exit 9")
    assert setup_py["visible_capabilities"]() == set()


def test_binary_uses_only_the_stable_abi_of_torch():
    """The binary needs no C++ symbol of PyTorch. These change between versions, the C functions do not."""
    binary = next(Path(s2mlp_cuda.__file__).parent.glob("_C.abi3.so"))
    symbols = run("nm", "-D", "--undefined-only", binary).stdout
    assert "aoti_torch_call_dispatcher" in symbols or "torch_call_dispatcher" in symbols
    assert not re.findall(r"\b_Z\w*(?:2at|3c10|5torch)\w*", symbols)
    assert binary.stat().st_size < 8_000_000
    needed = set(re.findall(r"NEEDED.*\[(.+)\]", run("readelf", "-d", binary).stdout))
    assert not needed & {"libtorch_python.so", "libtorch_cuda.so", "libc10_cuda.so", "libcudart.so.13"}
