"""Checkpoints of a run: written atomically, verified when loaded; only the newest are kept."""

import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from s2mlp_cuda._files import atomic_file
from s2mlp_cuda._messages import one_line
from s2mlp_cuda.training.errors import TrainingError

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
    except Exception as error:  # torch.load raises many types for files of others
        raise TrainingError(f"{path} is damaged or not a checkpoint of s2mlp train ({one_line(error)})") from error


def _has_names_of(state: Any, kinds: type | tuple[type, ...]) -> bool:
    return isinstance(state, dict) and all(isinstance(name, str) and isinstance(value, kinds) for name, value in state.items())


def _is_row(row: Any, epoch: int) -> bool:
    """Whether a row of the history is that of an epoch."""
    return isinstance(row, dict) and row.get("epoch") == epoch and "val_top1" in row and _has_names_of(row, (int, float))


def _is_list_of_names(names: Any) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def _is_identity(split: Any) -> bool:
    """Whether this is what ``Split.identity`` returns."""
    return isinstance(split, dict) and split.keys() == {"classes", "images", "file names"} and _is_list_of_names(split["classes"])


def is_state_of_a_run(state: Any) -> bool:
    """Whether this is the state that ``s2mlp train`` saves: every entry is there and of its type."""
    if not isinstance(state, dict):
        return False
    epochs, history, data, optimizer = (state.get(name) for name in ("epochs_done", "history", "data", "optimizer"))
    return (
        type(epochs) is int
        and isinstance(history, list)
        and len(history) == epochs > 0
        and all(_is_row(row, epoch) and row.keys() == history[0].keys() for epoch, row in enumerate(history, 1))
        and isinstance(state.get("arguments"), dict)
        and isinstance(data, dict)
        and all(_is_identity(data.get(split)) for split in ("training", "validation"))
        and _has_names_of(state.get("model"), torch.Tensor)
        and _has_names_of(state.get("ema", {}), torch.Tensor)
        and isinstance(optimizer, dict)
        and _has_names_of(optimizer.get("state"), dict)
        and isinstance(optimizer.get("param_groups"), list)
        and all(isinstance(group, dict) and _is_list_of_names(group.get("params")) for group in optimizer["param_groups"])
    )


def _layout(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The shape and dtype of each tensor; the type of other values."""
    return {
        name: (tuple(value.shape), value.dtype) if isinstance(value, torch.Tensor) else type(value)
        for name, value in tensors.items()
    }


def different_tensors(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """The names of tensors that only one of two states has, or that differ in shape or dtype."""
    ours, theirs = _layout(found), _layout(expected)
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def _groups(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """The group of each parameter, and the names of its hyperparameters."""
    groups = enumerate(optimizer["param_groups"])
    return {name: (index, sorted(map(str, group))) for index, group in groups for name in group["params"]}


def different_optimizer(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """The names of parameters whose optimizer state differs in its entries, their shapes or dtypes, or whose group differs.

    Args:
        found: the state of an optimizer, with names of parameters, as from ``torch.distributed.checkpoint.state_dict``.
        expected: the same of an optimizer that has made one step. Some add entries later, so that ``found`` may have more.
    """
    wrong = found["state"].keys() ^ expected["state"].keys()
    for name, entries in expected["state"].items():
        now = {key: value for key, value in found["state"].get(name, {}).items() if key in entries}
        if different_tensors(now, entries):
            wrong.add(name)
    ours, theirs = _groups(found), _groups(expected)
    return sorted(wrong | {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)})


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
