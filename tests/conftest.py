import os
import re
import shutil
import sysconfig
import venv
from pathlib import Path

import pytest
import torch

from s2mlp_cuda._extension import build_facts


def require_device(name: str) -> torch.device:
    """Skips a CUDA test by name where there is no GPU, and only there; S2MLP_REQUIRE_GPU=1 makes that a failure."""
    if name == "cuda" and not torch.cuda.is_available():
        assert os.environ.get("S2MLP_REQUIRE_GPU") != "1", "S2MLP_REQUIRE_GPU=1, but PyTorch sees no GPU"
        pytest.skip("no GPU")
    return torch.device(name)


def allocations(work) -> list[int]:
    """The bytes of every allocation of CPU tensor memory that ``work`` makes."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True) as profile:
        work()
    return [event.self_cpu_memory_usage for event in profile.events() if event.self_cpu_memory_usage > 0]


@pytest.fixture(params=["cpu", "cuda"])
def device(request) -> torch.device:
    return require_device(request.param)


@pytest.fixture(scope="module")
def one_thread():
    """Small models in processes side by side are many times faster with a thread each."""
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
    """The Python of a virtual environment that sees the packages of this one, s2mlp_cuda left out."""
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
