"""What a result was obtained with: processor, devices, versions, commit. And the C library's allocator, which is part of it."""

import ctypes
import os
import platform
import subprocess
from pathlib import Path

import torch

from s2mlp_cuda._extension import build_facts, cpu_capability
from s2mlp_cuda._version import __version__


def cpu_name() -> str:
    """The processor's name where the system tells it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _capability_text() -> str:
    """The instruction set in force, why, and PyTorch's where it is another."""
    text, of_torch = cpu_capability(), torch.backends.cpu.get_cpu_capability()
    if variable := os.environ.get("ATEN_CPU_CAPABILITY"):
        text += f" (ATEN_CPU_CAPABILITY={variable})"
    return text if of_torch == cpu_capability() else f"{text}, PyTorch's own kernels {of_torch}"


def info_lines() -> list[tuple[str, str]]:
    """What was built and what it runs on, as (label, text)."""
    lines = [("s2mlp_cuda", __version__), *build_facts().items()]
    lines.append(("this process", f"PyTorch {torch.__version__}, Python {platform.python_version()}"))
    lines.append(("CPU", f"{cpu_name()}, {torch.get_num_threads()} threads, {_capability_text()}"))
    if not torch.cuda.is_available():
        lines.append(("GPU", "none that PyTorch can see"))
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        lines.append(
            (
                f"cuda:{index}",
                f"{properties.name}, sm_{properties.major}{properties.minor}, "
                f"{properties.total_memory / 2**30:.0f} GiB, {properties.multi_processor_count} SMs",
            )
        )
    return lines


def machine_name() -> str:
    """Processors, instruction set and threads in a line."""
    threads = torch.get_num_threads()
    name = f"{cpu_name()}, {cpu_capability()}, {threads} thread{'s' if threads > 1 else ''}"
    return f"{torch.cuda.get_device_name()}, {name}" if torch.cuda.is_available() else name


def machine_facts() -> dict:
    """pytest-benchmark's description of the machine without its host name, and what counts here besides."""
    from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info

    facts = pytest_benchmark_generate_machine_info()
    return {
        **facts,
        "node": "",
        "name": machine_name(),
        "cpu_capability": cpu_capability(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }


def commit_name(file: Path = Path(__file__)) -> str:
    """The commit of the checkout that has this file, with ``+changes`` where more than result files differs; empty without one."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=file.parent, text=True, capture_output=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)  # not a checkout of something else that this package is installed in
        changes = git("status", "--porcelain", "--", ":(top)", ":(top,exclude)benchmarks/results")
        return git("rev-parse", "HEAD") + ("+changes" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def commit_facts() -> dict:
    """pytest-benchmark's description of the commit that the working directory is at."""
    from pytest_benchmark.utils import get_commit_info

    return get_commit_info()


def keep_freed_memory() -> None:
    """Stops glibc from handing big freed blocks back to the system.

    Otherwise every fresh output is faulted in page by page, which takes longer than any of the shifts and hides what
    is measured here. Other C libraries are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_mmap_max = -1, -4
        mallopt(m_trim_threshold, -1)  # none: what is freed at the end of the heap can be more than the largest int
        mallopt(m_mmap_max, 0)


def release_freed_memory() -> None:
    """What :func:`keep_freed_memory` has kept goes back to the system, so that one case does not starve the next."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
