import os

# Before PyTorch is imported: tests in parallel processes, and the processes that they start, use one thread each. Tests of threads
# set their number.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import re
import shutil
import sysconfig
import venv
from pathlib import Path

import pytest
import torch

from s2mlp_cuda._extension import build_facts


def require_device(name: str) -> torch.device:
    """Skips CUDA tests if there is no GPU, or fails them if S2MLP_REQUIRE_GPU=1."""
    if name == "cuda" and not torch.cuda.is_available():
        assert os.environ.get("S2MLP_REQUIRE_GPU") != "1", "S2MLP_REQUIRE_GPU=1, but PyTorch finds no GPU"
        pytest.skip("no GPU")
    return torch.device(name)


def allocations(function) -> list[int]:
    """The sizes in bytes of all CPU tensor allocations during a call of ``function``."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True) as profile:
        function()
    return [event.self_cpu_memory_usage for event in profile.events() if event.self_cpu_memory_usage > 0]


@pytest.fixture(params=["cpu", "cuda"])
def device(request) -> torch.device:
    return require_device(request.param)


@pytest.fixture(scope="module")
def one_thread():
    """Runs with one thread, which is much faster for small models in parallel processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def sm_90():
    """Skips where the binary has no machine code for sm_90, or cannot be read."""
    if not re.search(r"\b9\.0(?!\+)", build_facts().get("CUDA kernels", "")):
        pytest.skip("no machine code for sm_90 in this build")
    if shutil.which("c++filt") is None:
        pytest.skip("no c++filt")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def fresh_python(tmp_path_factory) -> Path:
    """The Python of a virtual environment with the packages of this one, except s2mlp_cuda."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False)
    packages = tmp_path_factory.mktemp("packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "s2mlp" not in entry.name:
            (packages / entry.name).symlink_to(entry)
    (site,) = folder.glob("lib/*/site-packages")
    (site / "parent.pth").write_text(str(packages))
    return folder / "bin" / "python"


def pytest_terminal_summary(terminalreporter):
    reasons = [report.longrepr[2] for report in terminalreporter.stats.get("skipped", [])]
    for reason in sorted(set(reasons)):
        terminalreporter.write_line(f"{reason} ({reasons.count(reason)})")
