"""Weights and the description of their model, in one safetensors file."""

import io
import os
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from s2mlp_cuda import _safetensors
from s2mlp_cuda._extras import MissingExtraError
from s2mlp_cuda._files import atomic_file
from s2mlp_cuda._messages import one_line
from s2mlp_cuda._state_dicts import differences, few
from s2mlp_cuda.export import decompose, to_onnx
from s2mlp_cuda.training.description import Description, build_described, build_described_on_meta, from_json
from s2mlp_cuda.training.errors import TrainingError
from s2mlp_cuda.training.files import check_file

#: Names of the classifier in models of this package and of timm.
_HEADS = ("head", "fc", "classifier")


def check_input(model: nn.Module, img_size: int, num_classes: int, memory_format: torch.memory_format) -> None:
    """Run the model once on a black image, in evaluation mode and without gradients.

    Raises:
        TrainingError: the model fails on images (1, 3, img_size, img_size), or does not return finite logits (1, num_classes).
    """
    training = model.training
    try:
        with torch.no_grad():
            image = torch.zeros(1, 3, img_size, img_size, device=next(model.parameters()).device)
            output = model.eval()(image.contiguous(memory_format=memory_format))
    except Exception as error:  # of any model
        raise TrainingError(
            f"the model fails on one image of {img_size}x{img_size}: {type(error).__name__}: {one_line(error)}"
        ) from error
    finally:
        model.train(training)
    if not isinstance(output, torch.Tensor) or output.shape != (1, num_classes):
        found = f"shape {tuple(output.shape)}" if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"
        raise TrainingError(f"the model must return logits of shape (1, {num_classes}) for one image, got {found}")
    if not output.isfinite().all():
        raise TrainingError("the output of the model has NaN or infinite values before training: check its initial weights")


def save(path: Path, state: Mapping[str, Any], description: Description) -> None:
    """
    Raises:
        OSError: the file cannot be written; ``filename`` is ``path``.
    """
    content = _safetensors.to_bytes(state, description.to_json())
    with atomic_file(path) as file:
        file.write(content)


def read(path: str | os.PathLike) -> tuple[dict[str, torch.Tensor], Description | None]:
    """The tensors of a safetensors file, and their description if it has one.

    Raises:
        TrainingError: the file does not exist, is damaged (checked by its checksum, if it has one), or has another description.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        raise TrainingError(f"no weights {path}: it is a folder" + (f", which has {files[0]}" if files else ""))
    if not path.is_file():
        raise TrainingError(f"no weights {path}")
    try:
        tensors, fields = _safetensors.read(path)
    except OSError as error:
        raise TrainingError(f"cannot read {path} ({one_line(error)})") from error
    except ValueError as error:
        raise TrainingError(one_line(error)) from error
    try:
        return tensors, from_json(fields) if fields else None
    except ValueError as error:
        raise TrainingError(f"the description of the model in {path} is not one of s2mlp train ({one_line(error)})") from error


def load(path: str | os.PathLike) -> tuple[nn.Module, Description]:
    """Load a model from a file that ``s2mlp train`` wrote; it is in evaluation mode.

    Raises:
        TrainingError: the file does not exist, is damaged, has no description of its model, or the description names anything
            but a registered model and its plain arguments, or a model that is much larger than the weights, which is not built.
    """
    tensors, description = read(path)
    if description is None:
        raise TrainingError(f"{path} has no description of its model: it was not written by s2mlp train")
    try:
        expected = build_described_on_meta(description, tensors.values()).state_dict()
        different = differences(tensors, expected)
        model = None if different else build_described(description)
    except TrainingError as error:
        raise TrainingError(f"{path}: {error}") from error
    if model is None:
        raise TrainingError(f"{path} has weights of a different model: {few(different)}")
    model.load_state_dict(tensors)
    return model.eval(), description


def load_into(model: nn.Module, path: str | os.PathLike, class_names: list[str]) -> list[str]:
    """Load initial weights into a model, except a head for other classes; returns the names of the weights that were skipped.

    Args:
        model: receives the weights.
        path: safetensors file.
        class_names: class names of the model by index; empty if it has none.

    Raises:
        TrainingError: the file does not exist, is damaged, or has weights of a different model.
    """
    tensors, description = read(path)
    expected = model.state_dict()
    different = differences(tensors, expected)
    head = [name for name in sorted(tensors.keys() & expected.keys()) if name.split(".")[0] in _HEADS]
    if not set(different) <= set(head):
        raise TrainingError(f"{path} has weights of a different model: {few([name for name in different if name not in head])}")
    names = description.class_names if description else []
    skipped = head if different or (names and class_names and names != class_names) else []
    model.load_state_dict({name: tensor for name, tensor in tensors.items() if name not in skipped}, strict=False)
    return skipped


def export(file: str | os.PathLike, format: str, path: str | os.PathLike) -> str:
    """Export a trained model with dynamic batch size for other runtimes, and compare it with the original.

    Args:
        file: weights that ``s2mlp train`` wrote.
        format: ``"onnx"``, or ``"pt2"`` for a program of :func:`torch.export.save`. Both use standard operators only, so that
            they can be loaded without this package.
        path: file to write.

    Returns:
        A message with the path and the difference between the outputs for two random images.

    Raises:
        TrainingError: the weights cannot be used, the output of the model is not finite, so that outputs cannot be compared, the
            model cannot be exported, or the path is not that of a file.
        OSError: the file cannot be written; it is written completely or not at all.
        MissingExtraError: onnx or onnxscript is not installed.
    """
    path = Path(path)
    check_file(path)
    model, description = load(file)
    images = torch.randn(2, 3, description.img_size, description.img_size)
    with torch.no_grad(), warnings.catch_warnings():
        expected = model(images)
        if not expected.isfinite().all():
            raise TrainingError(f"cannot export {file}: the model's output has NaN or infinite values")
        try:
            warnings.simplefilter("ignore")  # of the exporters, about their own code
            data = _to_onnx(model, images) if format == "onnx" else _to_pt2(model, images)
        except MissingExtraError:
            raise
        except Exception as error:  # exporters raise errors of many types
            raise TrainingError(f"cannot export {description.model} to {format}: {one_line(error)}") from error
        output = _run_onnx(data, images) if format == "onnx" else torch.export.load(io.BytesIO(data)).module()(images)
    with atomic_file(path) as opened:
        opened.write(data)
    if output is None:
        return f"{path}; not compared with the model, because onnxruntime is not installed"
    return f"{path}; its output differs from the model's by at most {(output - expected).abs().max():.1g}"


def _dynamic_batch() -> dict[str, dict[int, Any]]:
    return {"x": {0: torch.export.Dim("batch")}}


def _to_onnx(model: nn.Module, images: torch.Tensor) -> bytes:
    return to_onnx(model, (images,), None, _dynamic_batch(), verbose=False).model_proto.SerializeToString()


def _to_pt2(model: nn.Module, images: torch.Tensor) -> bytes:
    """In memory, because the C++ writer of :func:`torch.export.save` aborts the process when the disk is full."""
    file = io.BytesIO()
    torch.export.save(decompose(torch.export.export(model, (images,), dynamic_shapes=_dynamic_batch())), file)
    return file.getvalue()


def _run_onnx(data: bytes, images: torch.Tensor) -> torch.Tensor | None:
    if find_spec("onnxruntime") is None:
        return None
    from onnxruntime import InferenceSession

    session = InferenceSession(data)
    (output,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    return torch.from_numpy(output)
