"""Classifies image files."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from timm.data import create_transform
from torch import nn

from s2mlp_cuda._terminal import printable
from s2mlp_cuda.training.description import Description
from s2mlp_cuda.training.errors import TrainingError
from s2mlp_cuda.training.images import read


def read_image(path: Path, description: Description) -> torch.Tensor:
    """Read an image and preprocess it as in evaluation: (3, img_size, img_size).

    Raises:
        UnreadableImageError: the file cannot be opened or decoded.
    """
    transform = create_transform(
        (3, description.img_size, description.img_size),
        mean=tuple(description.mean),
        std=tuple(description.std),
        interpolation=description.interpolation,
        crop_pct=description.crop_pct,
    )
    return transform(read(path))


def class_name(description: Description, index: int) -> str:
    """The name of a class of the model; its number if the model has more classes than names."""
    return description.class_names[index] if index < len(description.class_names) else f"class {index}"


@torch.inference_mode()
def predict(model: nn.Module, description: Description, paths: Sequence[Path], count: int = 5) -> list[list[tuple[str, float]]]:
    """The most probable classes of each image, as (name, probability), most probable first.

    Raises:
        UnreadableImageError: a file cannot be opened or decoded.
        TrainingError: a probability is not a number, because weights or activations of the model are not finite.
    """
    device = next(model.parameters()).device
    rows = []
    for path in paths:
        probabilities = model(read_image(path, description)[None].to(device)).float().softmax(-1)[0]
        if not probabilities.isfinite().all():
            raise TrainingError(f"the model gives no probabilities for {path}: its output has NaN or infinite values")
        best = probabilities.topk(min(count, len(probabilities)))
        rows.append([(class_name(description, index), value) for index, value in zip(best.indices.tolist(), best.values.tolist())])
    return rows


def show(path: Path, rows: list[tuple[str, float]]) -> None:
    """Prints the classes of an image and their probabilities, with bars."""
    console = Console(highlight=False, markup=False, emoji=False)
    block = "#" if console.options.ascii_only else "█"
    console.print(printable(path), soft_wrap=True)
    table = Table(box=None, show_header=False)
    for name, probability in rows:
        table.add_row(printable(name), f"{probability:6.1%}", block * round(30 * probability))
    console.print(table)
