"""What a result was obtained with."""

import subprocess
from pathlib import Path

import timm
import torch

import s2mlp_cuda
from s2mlp_cuda.bench.machine import machine_name


def commit() -> str:
    """The commit of the checkout that this package runs from, with ``-dirty`` where it was changed; empty without a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def environment() -> dict[str, str]:
    """Machine, versions and commit."""
    return {
        "machine": machine_name(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "s2mlp_cuda": s2mlp_cuda.__version__,
        "commit": commit(),
    }
