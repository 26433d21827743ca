"""Atomic file writes."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from s2mlp_cuda.training.errors import TrainingError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextmanager
def report_full_disk(path: Path) -> Iterator[None]:
    """Context that turns out-of-space errors into a TrainingError.

    Args:
        path: the file or folder that is written in the context.

    Raises:
        TrainingError: no space is left.
    """
    try:
        yield
    except TrainingError:
        raise
    except BaseException as error:
        for cause in _causes(error):
            if isinstance(cause, OSError) and cause.errno in _NO_SPACE:
                raise TrainingError(
                    f"cannot write {path}: {os.strerror(cause.errno or 0)}. Files saved before are intact: "
                    "free some space, then resume with --resume auto"
                ) from error
        raise


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file that replaces ``path`` once it is completely on disk. Until then, and after an error, the old file is kept.

    Raises:
        TrainingError: no space is left.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with report_full_disk(path):
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def check_folder(path: Path) -> None:
    """Create the folder and a file in it, then remove what was created.

    Raises:
        TrainingError: the folder cannot be created or written to.
    """
    created: list[Path] = []
    try:
        for folder in (*reversed(path.parents), path):
            if not folder.is_dir():
                folder.mkdir()
                created.append(folder)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise TrainingError(f"cannot write to the folder {path}: {error.strerror or error}") from error
    finally:
        for folder in reversed(created):
            folder.rmdir()


def check_file(path: Path) -> None:
    """
    Raises:
        TrainingError: the path is a folder, or its folder does not exist or cannot be written to.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise TrainingError(f"cannot write {path}: " + ("it is a folder" if path.is_dir() else f"there is no folder {path.parent}"))
    check_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """
    Raises:
        TrainingError: no space is left.
    """
    with atomic_file(path) as file:
        file.write(text.encode())
