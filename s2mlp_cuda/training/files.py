"""Files that are there whole or not at all."""

import errno
import os
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
def told_if_full(path: Path) -> Iterator[None]:
    """What is written within is, or is in, the path.

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
                    f"cannot write {path}: {os.strerror(cause.errno or 0)}. What was saved before is intact: "
                    "make room, then go on with --resume auto"
                ) from error
        raise


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes its name when all of it is on the disk: until then, and after an error, the old one stands.

    Raises:
        TrainingError: no space is left.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with told_if_full(path):
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


def write_text(path: Path, text: str) -> None:
    """
    Raises:
        TrainingError: no space is left.
    """
    with whole_file(path) as file:
        file.write(text.encode())
