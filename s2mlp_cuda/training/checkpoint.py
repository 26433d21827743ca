"""Checkpoints of a run: written atomically, verified when loaded; only the newest are kept."""

import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from s2mlp_cuda._files import atomic_file
from s2mlp_cuda.training.errors import TrainingError, one_line

_NAME = re.compile(r"checkpoint-(\d+)\.pt")


def folder_of(run: Path) -> Path:
    return run / "checkpoints"


def list_checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    found = [(int(match[1]), path) for path in folder_of(run).glob("*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def save(run: Path, epochs_done: int, state: dict[str, Any], keep: int) -> Path:
    """Write the state after ``epochs_done`` epochs, then remove all but the newest ``keep`` checkpoints.

    Raises:
        OSError: the file cannot be written; earlier checkpoints are intact.
    """
    folder_of(run).mkdir(parents=True, exist_ok=True)
    path = folder_of(run) / f"checkpoint-{epochs_done:04d}.pt"
    with atomic_file(path) as file:
        torch.save(state, file)
    for old in list_checkpoints(run)[max(1, keep) :]:
        old.unlink()
    return path


def load(path: Path) -> dict[str, Any]:
    """Load the state of a checkpoint to the CPU. Only tensors and primitive types are unpickled.

    Raises:
        TrainingError: the file does not exist, is damaged (checksums cover every byte), or contains other types.
    """
    if not path.is_file():
        raise TrainingError(f"no checkpoint {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise TrainingError(f"{path} is not a checkpoint of s2mlp train: it has objects that weights_only=True rejects") from error
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise TrainingError(f"{path} is damaged or not a checkpoint of s2mlp train ({one_line(error)})") from error


def load_newest(run: Path, report: Callable[[str], None]) -> dict[str, Any] | None:
    """The state of the newest undamaged checkpoint, or None if there are no checkpoints. Damaged ones are passed to ``report``.

    Raises:
        TrainingError: all checkpoints are damaged.
    """
    paths = list_checkpoints(run)
    for path in paths:
        try:
            return load(path)
        except TrainingError as error:
            report(f"{error}; using the previous one")
    if paths:
        raise TrainingError(f"all checkpoints in {folder_of(run)} are damaged: move them away to start again")
    return None
