"""Text for the terminal."""

import shlex
import shutil
import sys
from pathlib import Path


def printable(text: object) -> str:
    """The text with control characters and others that Python does not print, such as terminal escape sequences, as escapes.

    For names of files and classes, which may have any characters.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def _command(path: str) -> str:
    """The name of a program, if that runs it; else its path."""
    found = shutil.which(Path(path).name)
    return Path(path).name if found and Path(found).absolute() == Path(path).absolute() else path


def program() -> list[str]:
    """The command that started this process, without its arguments."""
    start = Path(sys.argv[0])
    if start.name == "__main__.py":
        return [_command(sys.executable), "-m", "s2mlp_cuda"]
    return [_command(sys.executable), sys.argv[0]] if start.suffix == ".py" else [_command(sys.argv[0])]


def _print_next(words: list[str]) -> None:
    """To the standard error: the standard output has only results."""
    if sys.stdout is not None:
        sys.stdout.flush()
    print(printable(f"next: {shlex.join(words)}"), file=sys.stderr)


def suggest(*arguments: object) -> None:
    """Prints the next command to try, in the way that this program was started: ``s2mlp`` may not be on PATH."""
    _print_next([*program(), *map(str, arguments)])


def suggest_python(code: str) -> None:
    """Prints Python code to try, as a command."""
    _print_next([_command(sys.executable), "-c", code])
