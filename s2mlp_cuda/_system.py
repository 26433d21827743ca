"""Describes the environment of a result: processor, devices, versions, commit. Also configures the C library's allocator."""

import ctypes
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from s2mlp_cuda._extension import build_facts, build_info, cpu_capability
from s2mlp_cuda._version import __version__


def cpu_name() -> str:
    """The processor's model name if the system reports it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _threads_text() -> str:
    threads = torch.get_num_threads()
    return f"{threads} thread{'s' if threads > 1 else ''}"


def _capability_text() -> str:
    """The active instruction set, ``ATEN_CPU_CAPABILITY`` if set, and PyTorch's instruction set if it differs."""
    text, torch_capability = cpu_capability(), torch.backends.cpu.get_cpu_capability()
    if variable := os.environ.get("ATEN_CPU_CAPABILITY"):
        text += f" (ATEN_CPU_CAPABILITY={variable})"
    return text if torch_capability == cpu_capability() else f"{text}, PyTorch's own kernels {torch_capability}"


def info_lines() -> list[tuple[str, str]]:
    """The build and the devices, as (label, text)."""
    facts = info()
    lines = [("s2mlp_cuda", facts["s2mlp_cuda"]), *build_facts().items()]
    lines.append(("running with", f"PyTorch {facts['torch']}, Python {facts['python']}"))
    lines.append(("CPU", f"{facts['cpu']['name']}, {_threads_text()}, {_capability_text()}"))
    if not torch.cuda.is_available():
        lines.append(("GPU", "none that PyTorch can see"))
    for index, gpu in enumerate(facts["gpus"]):
        memory = f"{gpu['memory_bytes'] / 2**30:.0f} GiB"
        capability = gpu["capability"].replace(".", "")
        lines.append((f"cuda:{index}", f"{gpu['name']}, sm_{capability}, {memory}, {gpu['multiprocessors']} SMs"))
    return lines


def info() -> dict[str, Any]:
    """The build and the devices, as ``s2mlp info --json`` prints them."""
    try:
        build = build_info()
    except ImportError:
        build = None
    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {
        "s2mlp_cuda": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "build": build,
        "cpu": {
            "name": cpu_name(),
            "threads": torch.get_num_threads(),
            "capability": cpu_capability(),
            "torch_capability": torch.backends.cpu.get_cpu_capability(),
        },
        "gpus": [
            {
                "name": gpu.name,
                "capability": f"{gpu.major}.{gpu.minor}",
                "memory_bytes": gpu.total_memory,
                "multiprocessors": gpu.multi_processor_count,
            }
            for gpu in gpus
        ],
    }


def machine_name() -> str:
    """Processors, instruction set and thread count on one line."""
    name = f"{cpu_name()}, {cpu_capability()}, {_threads_text()}"
    return f"{torch.cuda.get_device_name()}, {name}" if torch.cuda.is_available() else name


def machine_facts() -> dict:
    """pytest-benchmark's machine info without the host name, plus instruction set and PyTorch and CUDA versions."""
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
    """The commit of the checkout that contains this file, or an empty string. ``+changes`` marks uncommitted changes.

    Changes to result files do not count.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=file.parent, text=True, capture_output=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)  # fails if the package is installed inside another project's checkout
        changes = git("status", "--porcelain", "--", ":(top)", ":(top,exclude)benchmarks/results")
        return git("rev-parse", "HEAD") + ("+changes" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def commit_facts() -> dict:
    """pytest-benchmark's commit info of the working directory."""
    from pytest_benchmark.utils import get_commit_info

    return get_commit_info()


def available_memory() -> int:
    """Bytes that can be allocated without swapping, by the kernel's estimate."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def keep_freed_memory() -> None:
    """Keeps glibc from returning large freed blocks to the system.

    Otherwise each new output causes page faults, which take longer than any of the shifts and hide the differences between
    them. Does nothing with other C libraries.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_mmap_max = -1, -4
        mallopt(m_trim_threshold, -1)  # disables trimming; any int threshold could be exceeded by the free top of the heap
        mallopt(m_mmap_max, 0)


def release_freed_memory() -> None:
    """Returns the memory kept by :func:`keep_freed_memory` to the system, so that it is available to the next case."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
