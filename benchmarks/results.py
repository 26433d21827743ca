"""Result files: JSON with the machine, the PyTorch version and the commit."""

import json
from datetime import date
from pathlib import Path

import torch

from s2mlp_cuda._files import write_text
from s2mlp_cuda._system import commit_name, machine_name

FOLDER = Path(__file__).parent / "results"


def document(result: dict) -> dict:
    """The result and its environment."""
    return {
        **result,
        "machine": machine_name(),
        "torch": torch.__version__,
        "commit": commit_name(),
        "date": date.today().isoformat(),
    }


def write_json(path: Path, result: dict) -> None:
    write_text(path, json.dumps(result, indent=2) + "\n")


def write_result(name: str, result: dict) -> None:
    """Prints the result and writes it to ``results/<name>-torch<version>.json``."""
    full = document(result)
    path = FOLDER / f"{name}-torch{torch.__version__.partition('+')[0]}.json"
    write_json(path, full)
    print(json.dumps(full, indent=2))
    print(f"written to {path}")
