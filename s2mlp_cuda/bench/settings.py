"""What must be set for times to mean something."""

import logging
import os
import warnings
from contextlib import contextmanager

import torch


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
    """Suppresses remarks of the compiler and the profiler on toolkits and GPUs that are not there."""
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
