"""Error messages of libraries, as part of our own."""


def one_line(error: BaseException) -> str:
    """The message of an error of a library, on one line and without a period at its end; its type if it has no message. The stack
    trace in messages of PyTorch's C++ code is left out."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).partition("\nException raised from ")[0].split()).rstrip(".") or type(error).__name__
