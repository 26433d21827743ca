"""What a result was obtained with."""

import timm
import torch

import s2mlp_cuda
from s2mlp_cuda.bench.machine import commit_name, machine_name


def environment() -> dict[str, str]:
    """Machine, versions and commit."""
    return {
        "machine": machine_name(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "s2mlp_cuda": s2mlp_cuda.__version__,
        "commit": commit_name(),
    }
