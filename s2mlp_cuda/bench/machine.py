"""The machine a benchmark runs on: what it is, and what must be set for times to mean something."""

import ctypes
import logging
import os
import subprocess
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch

from s2mlp_cuda._extension import cpu_capability
from s2mlp_cuda.cli import cpu_name


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


def limit_libraries() -> None:
    """``ATEN_CPU_CAPABILITY=avx2`` limits PyTorch's kernels, Inductor and this package; oneDNN and MKL have variables of their
    own, which they read when they are first used."""
    if torch.backends.cpu.get_cpu_capability() == "AVX2":
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
        os.environ.setdefault("MKL_ENABLE_INSTRUCTIONS", "AVX2")


def set_up_compiler() -> None:
    """Compiled code has its number of threads and its vector width built in, and the compiler's cache hands out what was built
    for others unless it is told. And after so many shapes and modes of one function it runs the rest uncompiled: here it says
    so instead.
    """
    import torch._dynamo.config
    import torch._inductor.config

    torch._inductor.config.cpp.threads = torch.get_num_threads()
    torch._inductor.config.cpp.simdlen = {"AVX512": 512, "AVX2": 256}.get(torch.backends.cpu.get_cpu_capability())
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.fail_on_recompile_limit_hit = True


def silence_remarks() -> None:
    """Remarks of the compiler and the profiler on toolkits and GPUs that are not there are no news here."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "2")
    warnings.filterwarnings("ignore", module="torch._(dynamo|inductor|functorch)")


@contextmanager
def exact_convolutions():
    """On a GPU, float32 convolutions round their inputs to TF32 by default, and then a one-hot one is no shift."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
