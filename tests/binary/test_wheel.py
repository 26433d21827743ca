"""A wheel, built from the sdist, in environments without the sources and with different PyTorch versions."""

import email
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.installs

ROOT = Path(__file__).parents[2]
#: Builds without CUDA kernels; PATH includes ninja.
BUILD = {"S2MLP_CUDA": "0", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
CHECK = """
import torch, s2mlp_cuda
x = torch.randn(2, 5, 6, 8, requires_grad=True)
out = s2mlp_cuda.spatial_shift(x)
assert torch.equal(out, s2mlp_cuda.reference.spatial_shift(x))
out.sum().backward()
model = s2mlp_cuda.create_model("s2mlpv2_small_7", num_classes=10, embed_dims=(8, 16), depths=(1, 1))
model(torch.randn(2, 3, 28, 28)).sum().backward()
print(torch.__version__, s2mlp_cuda.__file__)
"""


def run(*command, cwd, **environment) -> str:
    result = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """Built from a clean copy of the sources."""
    source = tmp_path_factory.mktemp("source") / "s2mlp_cuda"
    left_out = shutil.ignore_patterns(".git", ".venv", "build", "out", "*.so", "*.egg-info", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, source, ignore=left_out)
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", cwd=source)
    (sdist,) = source.glob("dist/*.tar.gz")
    return sdist


@pytest.fixture(scope="module")
def built_in_place(sdist, tmp_path_factory) -> Path:
    """The unpacked sdist after `setup.py build_ext --inplace`, with CPU kernels only."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    run(sys.executable, "setup.py", "build_ext", "--inplace", cwd=source, **BUILD)
    return source


@pytest.fixture(scope="module")
def wheel(built_in_place) -> Path:
    """Built from the compiled files of ``built_in_place``."""
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", cwd=built_in_place, **BUILD)
    (wheel,) = built_in_place.glob("dist/*.whl")
    return wheel


def install(python: Path, *arguments) -> None:
    pip = [sys.executable, "-m", "pip", f"--python={python}", "--disable-pip-version-check", "install", "-q"]
    run(*pip, *arguments, cwd=python.parent)


def check_installed(python: Path, cwd: Path) -> str:
    """Checks that the installed wheel works; returns PyTorch's version."""
    version, file = run(python, "-c", CHECK, cwd=cwd, PYTHONPATH="").split()
    (site,) = python.parents[1].glob("lib/*/site-packages")
    assert Path(file).parent == site / "s2mlp_cuda"
    return version


def test_sdist_holds_the_tree(sdist):
    """The sdist contains the files in git, and otherwise only files that setuptools adds."""
    with tarfile.open(sdist) as archive:
        files = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    folders = (".github", "csrc", "s2mlp_cuda", "tests", "benchmarks", "docs", "examples")
    tree = {str(path.relative_to(ROOT)) for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()}
    tree = {name for name in tree if "__pycache__" not in name and not name.endswith(".so")}
    tree |= {
        "setup.py", "pyproject.toml", "requirements.txt", "Makefile", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff",
        "CONTRIBUTING.md", "SECURITY.md", "MANIFEST.in", "mkdocs.yml", ".pre-commit-config.yaml", ".ci/run",
    }  # fmt: skip
    added = {name for name in files if name.startswith("s2mlp_cuda.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    assert files - added == tree


def test_build_in_place_works_from_the_sdist(built_in_place):
    version, file = run(sys.executable, "-c", CHECK, cwd=built_in_place, PYTHONPATH=str(built_in_place)).split()
    assert Path(file).parent == built_in_place / "s2mlp_cuda"


def test_wheel_holds_the_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        files = set(archive.namelist())
        (metadata,) = (archive.read(name) for name in files if name.endswith(".dist-info/METADATA"))
    package = {name for name in files if name.startswith("s2mlp_cuda/")}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "s2mlp_cuda").rglob("*.py")}
    recipes = {str(path.relative_to(ROOT)) for path in (ROOT / "s2mlp_cuda" / "recipes").glob("*.yaml")}
    assert recipes
    binaries = {"s2mlp_cuda/_C.abi3.so", f"s2mlp_cuda/_build_info{sysconfig.get_config_var('EXT_SUFFIX')}"}
    assert package == sources | recipes | binaries | {"s2mlp_cuda/py.typed"}
    assert wheel.name.endswith("-cp310-abi3-linux_x86_64.whl")
    facts = email.message_from_bytes(metadata)
    assert facts["License-Expression"] == "Apache-2.0" and facts["Requires-Python"] == ">=3.10"
    plain = [line for line in facts.get_all("Requires-Dist") if "extra" not in line]
    assert plain == ["torch>=2.11"]
    assert any(name.endswith("/licenses/LICENSE") for name in files)


def test_wheel_without_the_sources(wheel, fresh_python, tmp_path):
    install(fresh_python, "--no-deps", wheel)
    check_installed(fresh_python, tmp_path)


@pytest.mark.parametrize("torch", ["torch==2.13.0", "torch"], ids=["2.13.0", "newest"])
def test_wheel_under_other_versions(torch, wheel, tmp_path):
    """The same wheel works. Tests derivatives and transforms, including the compiler, which change most between versions."""
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    install(python, torch, "numpy", "pytest", "setuptools")
    install(python, "--no-deps", wheel)
    version = check_installed(python, tmp_path)
    assert version.partition("+")[0] == torch.partition("==")[2] or torch == "torch"
    suite = ROOT / "tests" / "ops" / "test_raw_operators.py"
    run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not cuda", suite, cwd=tmp_path, PYTHONPATH="")
