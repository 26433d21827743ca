"""Training and export on a disk that is full: a file system of a few hundred kilobytes, or a limit on the size of files."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from s2mlp_cuda.training import weights

pytestmark = pytest.mark.usefixtures("one_thread")
KWARGS = {"patch_size": 8, "embed_dim": 64, "depth": 2}
MODEL = ["--model", "s2mlp_deep", "--model-kwargs", *(f"{name}={value}" for name, value in KWARGS.items())]
TRAIN = [
    "train", *MODEL, "--dataset", "digits", "--img-size", "16", "--workers", "0", "--batch-size", "256", "--epochs", "2",
    "--device", "cpu",
]  # fmt: skip
EXPORT = ["export", "--format", "pt2", "--weights"]


@pytest.fixture(scope="module")
def trained(one_thread, tmp_path_factory) -> Path:
    """A file of untrained weights, about 350 kB."""
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    model = weights.build("s2mlp_deep", 2, **KWARGS)
    description = weights.Description("s2mlp_deep", KWARGS, 2, ["a", "b"], 16, [0.5] * 3, [0.5] * 3, "bicubic", 1.0)
    weights.save(path, model.state_dict(), description)
    assert 200_000 < path.stat().st_size < 500_000
    return path


def run(words: list, before: str = "", shell: str = "exec") -> subprocess.CompletedProcess:
    code = f"{before}\nimport sys, torch; torch.set_num_threads(1); from s2mlp_cuda.cli import main; sys.exit(main())"
    script = f'ulimit -c 0; {shell} "$@"'
    command = ["sh", "-c", script, "sh", sys.executable, "-W", "ignore", "-c", code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)
