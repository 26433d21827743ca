"""Atomic file writes."""

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
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
def _errors_name(path: Path) -> Iterator[None]:
    """Context in which errors of files, and out-of-space errors behind other exceptions, become an OSError that names ``path``."""
    try:
        yield
    except Exception as error:
        cause = error if isinstance(error, OSError) else full_disk(error)
        if cause is None or cause.errno is None:
            raise
        raise OSError(cause.errno, cause.strerror, str(path)) from error


@contextmanager
def _locked(path: Path, kind: int) -> Iterator[bool]:
    """Context with a lock of the kernel on a file or folder, if it is to be had."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, kind)
        except OSError:  # locked by another process, or a file system without locks
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    with suppress(FileNotFoundError):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()


@contextmanager
def _temporary(target: Path, is_folder: bool = False) -> Iterator[Path]:
    """A new hidden file or folder beside ``target``, removed at the end. Those of killed writers of ``target`` are removed first.

    A writer holds a lock on its own one, so that other writers of ``target`` leave it.
    """
    prefix = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}-"
    for path in target.parent.glob(f"{prefix}*{_SUFFIX}"):
        with suppress(FileNotFoundError), _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB) as abandoned:
            if abandoned:
                _remove(path)
    with ExitStack() as stack:
        while True:
            path = target.with_name(f"{prefix}{secrets.token_hex(8)}{_SUFFIX}")
            path.mkdir() if is_folder else path.touch(exist_ok=False)
            with suppress(FileNotFoundError):  # another writer has removed it, because it was not locked yet
                stack.enter_context(_locked(path, fcntl.LOCK_SH))
                stack.callback(_remove, path)
                if path.exists():
                    break
        yield path


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file that replaces ``path`` once it is completely on disk. Until then, and after an error, the old file is kept.

    The data is written to a hidden file with a unique name in the same folder. Symbolic links are followed.

    Raises:
        OSError: the file cannot be written; ``filename`` is ``path``.
    """
    target = Path(os.path.realpath(path))
    with _errors_name(path):
        with _temporary(target) as temporary:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replaced_files(path: Path) -> Iterator[Path]:
    """A path in a temporary folder, for writers that need a path. Files written beside it replace those beside ``path``, at last
    the file itself. After an error, nothing is replaced.

    Raises:
        OSError: the files cannot be written; ``filename`` is ``path``.
    """
    target = Path(os.path.realpath(path))
    with _errors_name(path), _temporary(target, is_folder=True) as folder:
        written = folder / target.name
        yield written
        for file in sorted(folder.iterdir(), key=lambda file: file == written):
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
    with _errors_name(folder), _temporary(folder / _COMPLETE, is_folder=True) as temporary:
        files = temporary / "files"
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
        _remove(path)
