"""Exports operators and models to ONNX, for runtimes without this package."""

from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn

from s2mlp_cuda._extras import require
from s2mlp_cuda._files import replaced_files
from s2mlp_cuda.decompositions import TABLE


def decompose(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Decompose this package's operators into PyTorch's own."""
    return program.run_decompositions(TABLE)


def to_onnx(
    model: nn.Module, args: tuple, path: str | Path | None = None, dynamic_shapes: dict | tuple | None = None, **kwargs
) -> torch.onnx.ONNXProgram:
    """Export a module to ONNX, in standard operators only.

    Args:
        model: a module in evaluation mode.
        args: example inputs.
        path: file to write, completely or not at all; if None, no file is written. By default, :func:`torch.onnx.export` writes
            the weights beside it, to a file whose name ends in ``.data``.
        dynamic_shapes: the sizes that may vary, as in :func:`torch.export.export`.
        **kwargs: further arguments of :func:`torch.onnx.export`.

    Returns:
        The ONNX program.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed (``pip install 's2mlp_cuda[onnx]'``).

    Example:
        >>> batch, height, width = (torch.export.Dim(name, min=1) for name in ("batch", "height", "width"))
        >>> sizes = {"x": {0: batch, 2: 14 * height, 3: 14 * width}}
        >>> to_onnx(model.eval(), (torch.randn(2, 3, 224, 224),), "model.onnx", sizes)  # doctest: +SKIP
    """
    require("onnx", "onnx", "onnxscript")
    program = torch.export.export(model, args, dynamic_shapes=dynamic_shapes)
    with replaced_files(Path(path)) if path is not None else nullcontext() as written:
        return torch.onnx.export(decompose(program), (), written, dynamo=True, **kwargs)  # type: ignore[return-value]
