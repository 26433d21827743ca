"""Errors that end a command with a message instead of a traceback."""


class TrainingError(RuntimeError):
    """Training, evaluation or prediction cannot continue. The message says why and what to do. Saved files stay intact."""


class UnreadableImageError(TrainingError):
    """An image cannot be opened or decoded, or its label is invalid; the message names the image."""


def message_of(error: TrainingError) -> str:
    """The message without the traceback of a worker process that PyTorch adds to it."""
    return str(error).strip().rpartition(f"{type(error).__name__}: ")[2]
