"""Text for the terminal."""


def printable(text: object) -> str:
    """The text with control characters and others that Python does not print, such as terminal escape sequences, as escapes.

    For names of files and classes, which may have any characters.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
