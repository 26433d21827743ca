"""Result files: JSON that names the machine, the PyTorch version and the commit it was made with."""

import json
import subprocess
from datetime import date
from pathlib import Path

import torch

from s2mlp_cuda.cli import cpu_name

FOLDER = Path(__file__).parent / "results"


def _git(*arguments: str) -> str:
    return subprocess.check_output(["git", *arguments], cwd=FOLDER, text=True).strip()


def write_result(name: str, result: dict) -> Path:
    """Prints the result and writes it to ``results/<name>-torch<version>.json``.

    The commit is marked ``+changes`` when anything but result files differs from it.
    """
    changed = _git("status", "--porcelain", "--", "..", ":!.")
    document = {
        **result,
        "machine": f"{cpu_name()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "commit": _git("rev-parse", "HEAD") + ("+changes" if changed else ""),
        "date": date.today().isoformat(),
    }
    path = FOLDER / f"{name}-torch{torch.__version__.partition('+')[0]}.json"
    text = json.dumps(document, indent=2)
    path.write_text(text + "\n")
    print(text)
    print(f"written to {path}")
    return path
