"""Failures of file operations, one after the other: in a forked child, the k-th one kills the process or finds the disk full."""

import errno
import os
from collections.abc import Callable, Iterator

from s2mlp_cuda import _files
from s2mlp_cuda.training.errors import TrainingError

KILLED, REPORTED = 7, 1


def kill() -> None:
    os._exit(KILLED)


def full_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class _File:
    """A file whose writes are counted. The one that fails writes half of its data."""

    def __init__(self, file, faults: "_Faults"):
        self.file, self.faults = file, faults

    def write(self, data) -> int:
        def half() -> None:
            self.file.write(memoryview(data)[: len(data) // 2])
            self.file.flush()

        self.faults.count("write", half)
        return self.file.write(data)

    def __getattr__(self, name: str):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


class _Faults:
    def __init__(self, fails_at: int, fault: Callable[[], None]):
        self.fails_at, self.fault, self.seen = fails_at, fault, []

    def count(self, name: str, before: Callable[[], None] = lambda: None) -> None:
        self.seen.append(name)
        if len(self.seen) == self.fails_at:
            before()
            self.fault()

    def install(self) -> None:
        """Replaces the functions, in this process for ever."""

        def counted(name: str, function: Callable):
            def call(*arguments, **options):
                self.count(name)
                return function(*arguments, **options)

            return call

        for name in ("replace", "fsync", "unlink"):
            setattr(os, name, counted(name, getattr(os, name)))
        _files.open = lambda *arguments: _File(counted("open", open)(*arguments), self)


def _in_child(function: Callable[[], None]) -> int:
    """The exit status: 0, ``KILLED``, ``REPORTED`` for a TrainingError or OSError, or the negative number of a signal."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            function()
            status = 0
        except (TrainingError, OSError):
            status = REPORTED
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _operations(function: Callable[[], None]) -> list[str]:
    """The names of the file operations of a successful call."""
    reader, writer = os.pipe()

    def recorded() -> None:
        faults = _Faults(0, kill)
        faults.install()
        function()
        os.write(writer, " ".join(faults.seen).encode())

    assert _in_child(recorded) == 0
    os.close(writer)
    with open(reader) as file:
        return file.read().split()


def statuses(function: Callable[[], None], fault: Callable[[], None]) -> Iterator[tuple[int, str, int]]:
    """Calls the function in a child for each of its file operations, which fails: yields its number, its name and the exit status.

    The first call, number 0, succeeds. Of successive writes, the first, the middle and the last one fail.
    """
    names = _operations(function)
    yield 0, "", 0
    chosen, begin = [], 0
    for number, name in enumerate([*names, "end"]):
        if name != "write":
            chosen += [*sorted({begin, (begin + number - 1) // 2, number - 1} if number > begin else {}), number]
            begin = number + 1
    for number in chosen[:-1]:

        def failing(number: int = number) -> None:
            _Faults(number + 1, fault).install()
            function()

        yield number + 1, names[number], _in_child(failing)
