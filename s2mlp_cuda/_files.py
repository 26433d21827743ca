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


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
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
