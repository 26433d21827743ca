"""The lock of an output folder: only one training at a time writes to it."""

import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from s2mlp_cuda.training.errors import TrainingError
from s2mlp_cuda.training.files import writable_folder

_NAME = ".s2mlp.lock"
#: Errors of file systems without locks, such as some network file systems.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_held: set[int] = set()


def _close_inherited() -> None:
    """Data loading processes may outlive a killed training for some seconds, and would hold its lock."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_close_inherited)


@contextmanager
def locked(folder: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Context in which this process alone trains in a folder, which is created. If it stays empty, it is removed.

    The lock is an advisory lock of the kernel on a file in the folder, so it ends with the process, however that ends.

    Args:
        folder: output folder of a run.
        warn: receives a message if the file system has no locks; the context is then entered without one.

    Raises:
        TrainingError: another process holds the lock, or the folder cannot be written to.
    """
    with writable_folder(folder):
        path = folder / _NAME
        try:
            descriptor = _acquire(path)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise TrainingError(f"cannot lock the folder {folder}: {error.strerror}") from error
            path.unlink(missing_ok=True)
            warn(f"{folder} cannot be locked ({error.strerror}): do not start another training in it")
            yield
            return
        try:
            yield
        finally:
            if descriptor in _held:  # not in a forked child
                path.unlink(missing_ok=True)
                _held.remove(descriptor)
                os.close(descriptor)


def _acquire(path: Path) -> int:
    """The descriptor of the locked file, which contains the owner.

    Raises:
        TrainingError: another process holds the lock.
        OSError: the file cannot be opened, or the file system has no locks.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                os.truncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                _held.add(descriptor)
                return descriptor
        except BlockingIOError as error:
            owner = os.pread(descriptor, 1000, 0).decode(errors="replace").strip() or "another process"
            raise TrainingError(
                f"another training is writing to {path.parent} ({owner}): wait until it ends, or choose another output folder"
            ) from error
        finally:
            if descriptor not in _held:
                os.close(descriptor)
        # The owner removed the file between opening and locking it: try again with a new one.
