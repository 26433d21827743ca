"""The error that ``torch.jit.script`` raises for functions and layers of this package."""

from collections.abc import Callable


def refuse_torchscript(*_):
    """Installed as ``__prepare_scriptable__``, which ``torch.jit.script`` calls before it compiles.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError(
        "s2mlp_cuda does not support torch.jit.script, which PyTorch has deprecated: use torch.compile for speed, and "
        "torch.export or s2mlp_cuda.export.to_onnx for deployment"
    )


def not_for_torchscript(function: Callable) -> Callable:
    """Decorator: ``torch.jit.script`` of the function raises NotImplementedError."""
    function.__prepare_scriptable__ = refuse_torchscript  # type: ignore[attr-defined]
    return function
