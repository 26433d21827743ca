"""Text for the terminal."""

import shlex
import sys


def printable(text: object) -> str:
    """The text with control characters and others that Python does not print, such as terminal escape sequences, as escapes.

    For names of files and classes, which may have any characters.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def suggest(*words: object) -> None:
    """Prints the next command to try. To the standard error: the standard output has only results."""
    if sys.stdout is not None:
        sys.stdout.flush()
    print(printable(f"next: {shlex.join(map(str, words))}"), file=sys.stderr)
