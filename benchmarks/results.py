"""Result files: JSON that names the machine, the PyTorch version and the commit it was made with."""

import json
import subprocess
from datetime import date
from pathlib import Path

import torch

from s2mlp_cuda.bench.machine import machine_name

FOLDER = Path(__file__).parent / "results"


def _commit() -> str:
    """The commit, marked ``+changes`` when anything but result files differs from it; "unknown" outside of git."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=FOLDER, text=True, capture_output=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", "../..", ":!.") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def document(result: dict) -> dict:
    """The result with what it was made on."""
    return {
        **result,
        "machine": machine_name(),
        "torch": torch.__version__,
        "commit": _commit(),
        "date": date.today().isoformat(),
    }


def write_json(path: Path, result: dict) -> None:
    path.write_text(json.dumps(result, indent=2) + "\n")


def write_result(name: str, result: dict) -> None:
    """Prints the result and writes it to ``results/<name>-torch<version>.json``."""
    full = document(result)
    path = FOLDER / f"{name}-torch{torch.__version__.partition('+')[0]}.json"
    write_json(path, full)
    print(json.dumps(full, indent=2))
    print(f"written to {path}")
