"""The environment of a training result."""

import timm
import torch

from s2mlp_cuda._system import commit_name, machine_name
from s2mlp_cuda._version import __version__


def environment() -> dict[str, str]:
    """Machine, versions and commit."""
    return {
        "machine": machine_name(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "s2mlp_cuda": __version__,
        "commit": commit_name(),
    }
