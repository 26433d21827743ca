"""Errors that end a command with a message instead of a traceback."""


class TrainingError(RuntimeError):
    """Training, evaluation or prediction cannot continue. The message says why and what to do. Saved files stay intact."""


class UnreadableImageError(TrainingError):
    """An image cannot be opened or decoded, or its label is invalid; the message names the image."""


def one_line(error: BaseException) -> str:
    """The message of an error of a library, on one line and without a period at its end; its type if it has no message. The stack
    trace in messages of PyTorch's C++ code is left out."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).partition("\nException raised from ")[0].split()).rstrip(".") or type(error).__name__


def message_of(error: TrainingError) -> str:
    """The message without the traceback of a worker process that PyTorch adds to it."""
    return str(error).strip().rpartition(f"{type(error).__name__}: ")[2]
