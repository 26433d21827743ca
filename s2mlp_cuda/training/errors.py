"""What ends a command with a message instead of a traceback."""


class TrainingError(RuntimeError):
    """Training, evaluation or prediction cannot go on; the message says why and what to do. What was saved stays intact."""


class UnreadableImageError(TrainingError):
    """An image file cannot be opened or decoded; the message names it."""


def message_of(error: TrainingError) -> str:
    """The message alone: PyTorch puts the traceback of a worker process around it."""
    return str(error).strip().rpartition(f"{type(error).__name__}: ")[2]
