"""Atomic file writes."""

import errno
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_SUFFIX = ".s2mlp.tmp"
#: Folder of files that are complete but not yet in their place.
_COMPLETE = ".s2mlp.complete"
#: Full disks, exceeded quotas and files that are too large.
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def full_disk(error: BaseException | None) -> OSError | None:
    """The out-of-space error that an exception is or was caused by: ``torch.save`` raises a RuntimeError."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            return error
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file that replaces ``path`` once it is completely on disk. Until then, and after an error, the old file is kept.

    The data is written to a hidden file with a unique name in the same folder. Symbolic links are followed.

    Raises:
        OSError: the file cannot be written; ``filename`` is ``path``.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{secrets.token_hex(8)}{_SUFFIX}")
    with _errors_name(path):
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync(target.parent)


@contextmanager
def _errors_name(path: Path) -> Iterator[None]:
    """
    Raises:
        OSError: instead of one that names a temporary file, or that caused another error; ``filename`` is ``path``.
    """
    try:
        yield
    except Exception as error:
        cause = error if isinstance(error, OSError) else full_disk(error)
        if cause is None or cause.errno is None:
            raise
        raise OSError(cause.errno, cause.strerror, str(path)) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replaced_files(path: Path) -> Iterator[Path]:
    """A path in a temporary folder, for writers that need a path. Files written beside it replace those beside ``path``, at last
    the file itself. After an error, nothing is replaced."""
    target = Path(os.path.realpath(path))
    with tempfile.TemporaryDirectory(_SUFFIX, ".", target.parent) as folder:
        written = Path(folder) / target.name
        yield written
        for file in sorted(Path(folder).iterdir(), key=lambda file: file == written):
            os.replace(file, target.parent / file.name)


@contextmanager
def replaced_together(folder: Path) -> Iterator[Path]:
    """A temporary folder in ``folder``. The files written to it replace those of the same names in ``folder``: all or, after an
    error, none.

    They are complete when their folder gets its final name, in one step, and are then moved. If the process is killed in between,
    :func:`current` finds them, and the next call moves them.

    Raises:
        OSError: a file cannot be written; ``filename`` is ``folder``.
    """
    with _errors_name(folder), tempfile.TemporaryDirectory(_SUFFIX, ".", folder) as temporary:
        files = Path(temporary, "files")
        files.mkdir()
        yield files
        for path in (*files.iterdir(), files):
            _sync(path)
        while files.exists():
            _move_complete_files(folder)
            with _another_process():
                os.replace(files, folder / _COMPLETE)
        _sync(folder)
        _move_complete_files(folder)
        _sync(folder)


def current(folder: Path, name: str) -> Path:
    """The path of a file of the newest complete set that :func:`replaced_together` wrote, or of any other file of a folder."""
    complete = folder / _COMPLETE / name
    return complete if complete.exists() else folder / name


def _move_complete_files(folder: Path) -> None:
    complete = folder / _COMPLETE
    with suppress(FileNotFoundError), _another_process():  # there are none, or another process moves them
        for path in complete.iterdir():
            os.replace(path, folder / path.name)
        complete.rmdir()


@contextmanager
def _another_process() -> Iterator[None]:
    """Ignores that the folder of complete files is not empty, because another process has saved to the same folder."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def write_text(path: Path, text: str) -> None:
    """Write a file atomically, in UTF-8.

    Raises:
        OSError: the file cannot be written; ``filename`` is ``path``.
    """
    with atomic_file(path) as file:
        file.write(text.encode())


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that were killed. No other process may be writing to the folder."""
    for path in folder.glob(f".*{_SUFFIX}"):
        if path.is_file():
            path.unlink()
