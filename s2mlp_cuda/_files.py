"""Atomic file writes."""

import errno
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file that replaces ``path`` once it is completely on disk. Until then, and after an error, the old file is kept.

    The data is written to a hidden file with a unique name in the same folder. Symbolic links are followed.

    Raises:
        OSError: the file cannot be written; ``filename`` is ``path``.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{secrets.token_hex(8)}{_SUFFIX}")
    try:
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
    except Exception as error:
        cause = error if isinstance(error, OSError) else full_disk(error)
        if cause is None or cause.errno is None:
            raise
        raise OSError(cause.errno, cause.strerror, str(path)) from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
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
