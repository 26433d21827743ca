"""What ``torch.jit.script`` meets in a function or layer of this package."""

from collections.abc import Callable


def refuse_torchscript(*_):
    """Goes by the name ``__prepare_scriptable__``, which PyTorch calls before it compiles.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError(
        "s2mlp_cuda does not support torch.jit.script, which PyTorch has deprecated: use torch.compile to run faster, and "
        "torch.export or s2mlp_cuda.export.to_onnx to run elsewhere"
    )


def not_for_torchscript(function: Callable) -> Callable:
    """Decorator: the function says so."""
    function.__prepare_scriptable__ = refuse_torchscript  # type: ignore[attr-defined]
    return function
