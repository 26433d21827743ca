"""Checks of output folders and files, and the error for a full disk."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from s2mlp_cuda._files import full_disk
from s2mlp_cuda.training.errors import TrainingError


@contextmanager
def report_full_disk(folder: Path) -> Iterator[None]:
    """Context that turns out-of-space errors of a run into a TrainingError.

    Args:
        folder: the output folder, which is named if the file is not known.

    Raises:
        TrainingError: no space is left.
    """
    try:
        yield
    except TrainingError:
        raise
    except BaseException as error:
        cause = full_disk(error)
        if cause is None:
            raise
        raise TrainingError(
            f"cannot write {cause.filename or folder}: {cause.strerror}. Files saved before are intact: "
            "free some space, then resume with --resume auto"
        ) from error


@contextmanager
def writable_folder(path: Path) -> Iterator[None]:
    """Context in which a folder exists and can be written to. Folders that were created for it are removed if they stay empty.

    Raises:
        TrainingError: the folder cannot be created or written to.
    """
    created: list[Path] = []
    try:
        try:
            for folder in (*reversed(path.parents), path):
                if not folder.is_dir():
                    folder.mkdir(exist_ok=True)
                    created.append(folder)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise TrainingError(f"cannot write to the folder {path}: {error.strerror or error}") from error
        yield
    finally:
        with suppress(OSError):  # a folder that is not empty
            for folder in reversed(created):
                folder.rmdir()


def check_folder(path: Path) -> None:
    """Create the folder and a file in it, then remove what was created.

    Raises:
        TrainingError: the folder cannot be created or written to.
    """
    with writable_folder(path):
        pass


def check_file(path: Path) -> None:
    """
    Raises:
        TrainingError: the path is not that of a regular file, or its folder does not exist or cannot be written to.
    """
    if path.is_dir():
        raise TrainingError(f"cannot write {path}: it is a folder")
    if path.exists() and not path.is_file():
        raise TrainingError(f"cannot write {path}: it is not a regular file")
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise TrainingError(f"cannot write {path}: there is no folder {folder}")
    check_folder(folder)
