"""Checkpoints of a run: whole or not there, checked when read, the last few kept."""

import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from s2mlp_cuda.training.errors import TrainingError
from s2mlp_cuda.training.files import whole_file

_NAME = re.compile(r"checkpoint-(\d+)\.pt")


def folder_of(run: Path) -> Path:
    return run / "checkpoints"


def list_checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    found = [(int(match[1]), path) for path in folder_of(run).glob("*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def save(run: Path, epochs_done: int, state: dict[str, Any], keep: int) -> Path:
    """Write the state after so many epochs, then remove all but the newest ``keep`` checkpoints.

    Raises:
        TrainingError: no space is left; the checkpoints before are intact.
    """
    folder_of(run).mkdir(parents=True, exist_ok=True)
    path = folder_of(run) / f"checkpoint-{epochs_done:04d}.pt"
    with whole_file(path) as file:
        torch.save(state, file)
    for old in list_checkpoints(run)[max(1, keep) :]:
        old.unlink()
    return path


def load(path: Path) -> dict[str, Any]:
    """The state in a checkpoint, on the CPU; nothing but tensors and plain values is unpickled.

    Raises:
        TrainingError: no such file, a damaged one (every byte is covered by a checksum), or one that holds anything else.
    """
    if not path.is_file():
        raise TrainingError(f"no checkpoint {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        return torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise TrainingError(f"the checkpoint {path} is damaged ({error})") from error


def load_newest(run: Path, report: Callable[[str], None]) -> dict[str, Any] | None:
    """The state in the newest checkpoint that is not damaged, None where there is none; ``report`` is told of damaged ones.

    Raises:
        TrainingError: there are checkpoints, and all are damaged.
    """
    paths = list_checkpoints(run)
    for path in paths:
        try:
            return load(path)
        except TrainingError as error:
            report(f"{error}; the one before it is used")
    if paths:
        raise TrainingError(f"every checkpoint in {folder_of(run)} is damaged: move them away to begin again")
    return None
