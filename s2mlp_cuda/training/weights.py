"""Weights with all that is needed to use them, in one safetensors file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import nn

import s2mlp_cuda.timm  # noqa: F401, makes timm know the models of this package
from s2mlp_cuda.export import decompose, to_onnx
from s2mlp_cuda.training.config import plain
from s2mlp_cuda.training.errors import TrainingError
from s2mlp_cuda.training.files import whole_file

_KEY = "s2mlp_cuda"
#: What models, timm's among them, call their classifier.
_HEADS = ("head", "fc", "classifier")


@dataclass(frozen=True)
class Description:
    """A model and its images: arguments of ``timm.create_model``, class names by index, and how images become input."""

    model: str
    model_kwargs: dict[str, Any]
    num_classes: int
    class_names: list[str]
    img_size: int
    mean: list[float]
    std: list[float]
    interpolation: str
    crop_pct: float


def build(name: str, num_classes: int, **kwargs) -> nn.Module:
    """``timm.create_model``, with the error that a user can act on.

    Raises:
        TrainingError: an unknown model, or arguments that it does not take.
    """
    try:
        return timm.create_model(name, num_classes=num_classes, **kwargs)
    except (RuntimeError, TypeError, ValueError) as error:
        raise TrainingError(f"cannot build {name} with {kwargs}: {error}") from error


def save(path: Path, state: Mapping[str, Any], description: Description) -> None:
    """
    Raises:
        TrainingError: no space is left.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with whole_file(path) as file:
        file.write(to_bytes(tensors, {_KEY: json.dumps(plain(asdict(description)))}))


def read(path: Path) -> tuple[dict[str, torch.Tensor], Description | None]:
    """The tensors of a safetensors file and, where this package wrote it, their description.

    Raises:
        TrainingError: no such file, or it is damaged.
    """
    if not path.is_file():
        raise TrainingError(f"no weights {path}")
    try:
        with safe_open(path, "pt") as file:
            described = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise TrainingError(f"{path} is no safetensors file, or a damaged one ({error})") from error
    return tensors, Description(**json.loads(described)) if described else None


def load(path: Path) -> tuple[nn.Module, Description]:
    """The model of a file that ``s2mlp train`` wrote, in evaluation mode.

    Raises:
        TrainingError: no such file, a damaged one, or one that does not say which model it is of.
    """
    tensors, description = read(path)
    if description is None:
        raise TrainingError(f"{path} does not say which model it is of: it was not written by s2mlp train")
    model = build(description.model, description.num_classes, **description.model_kwargs)
    model.load_state_dict(tensors)
    return model.eval(), description


def load_into(model: nn.Module, path: Path) -> list[str]:
    """Begin with the weights of a file; returns the names left out, those of a head of another size.

    Raises:
        TrainingError: no such file, a damaged one, or weights of another model.
    """
    tensors, _ = read(path)
    shapes, own = ({name: tensor.shape for name, tensor in state.items()} for state in (tensors, model.state_dict()))
    other = sorted(name for name in shapes.keys() | own.keys() if shapes.get(name) != own.get(name))
    head = [name for name in other if name in shapes and name in own and name.split(".")[0] in _HEADS]
    if other != head:
        names = [name for name in other if name not in head]
        raise TrainingError(f"{path} has weights of another model: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}")
    model.load_state_dict({name: tensor for name, tensor in tensors.items() if name not in head}, strict=False)
    return head


def export(file: Path, form: str, path: Path) -> str:
    """Write the model of a file for other runtimes, for any number of images at once, and compare it with the original.

    Args:
        file: weights that ``s2mlp train`` wrote.
        form: ``"onnx"``, or ``"pt2"`` for a program of :func:`torch.export.save`. Both are in standard operators, so that
            whoever loads them does not need this package.
        path: file to write.

    Returns:
        What was written, and by how much its output on two random images differs from the model's.

    Raises:
        TrainingError: weights that cannot be used.
        MissingExtraError: onnx or onnxscript are not installed.
    """
    model, description = load(file)
    images = torch.randn(2, 3, description.img_size, description.img_size)
    shapes = {"x": {0: torch.export.Dim("batch")}}
    with torch.no_grad():
        expected = model(images)
        if form == "onnx":
            to_onnx(model, (images,), path, shapes)
            found = _run_onnx(path, images)
        else:
            torch.export.save(decompose(torch.export.export(model, (images,), dynamic_shapes=shapes)), path)
            found = torch.export.load(path).module()(images)
    if found is None:
        return f"{path}, not compared with the model: onnxruntime is not installed"
    return f"{path}, whose output differs from the model's by at most {(found - expected).abs().max():.1g}"


def _run_onnx(path: Path, images: torch.Tensor) -> torch.Tensor | None:
    if find_spec("onnxruntime") is None:
        return None
    from onnxruntime import InferenceSession

    session = InferenceSession(str(path))
    (output,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    return torch.from_numpy(output)
