"""Settings that make timings comparable."""

import logging
import os
import warnings
from contextlib import contextmanager

import torch


def limit_libraries() -> None:
    """Limits oneDNN and MKL to AVX2 if PyTorch is. ``ATEN_CPU_CAPABILITY=avx2`` limits PyTorch's kernels, Inductor and this
    package, but not oneDNN and MKL, which read their own variables on first use."""
    if torch.backends.cpu.get_cpu_capability() == "AVX2":
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
        os.environ.setdefault("MKL_ENABLE_INSTRUCTIONS", "AVX2")


def set_up_compiler() -> None:
    """Sets the compiler's thread count and vector width, and makes exceeding the recompile limit an error.

    Both are constants in compiled code. If they are not set, the compiler's cache returns code for other values. Beyond the
    recompile limit, a function would silently run in eager mode.
    """
    import torch._dynamo.config
    import torch._inductor.config

    torch._inductor.config.cpp.threads = torch.get_num_threads()
    torch._inductor.config.cpp.simdlen = {"AVX512": 512, "AVX2": 256}.get(torch.backends.cpu.get_cpu_capability())
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.fail_on_recompile_limit_hit = True


def suppress_warnings() -> None:
    """Suppresses warnings of the compiler and the profiler about missing toolkits and GPUs."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "2")
    warnings.filterwarnings("ignore", module="torch._(dynamo|inductor|functorch)")


@contextmanager
def exact_convolutions():
    """Disables TF32 for convolutions. By default, float32 convolutions on a GPU round their inputs to TF32, so a one-hot
    convolution would not be a shift."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
