"""Datasets with labels checked and images decoded by :mod:`s2mlp_cuda.training.images`, for timm's loaders."""

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from PIL import Image
from timm.data import ImageDataset, IterableImageDataset

from s2mlp_cuda._messages import one_line
from s2mlp_cuda.training.errors import TrainingError
from s2mlp_cuda.training.images import decode, to_rgb, unreadable


@dataclass(frozen=True)
class Labels:
    """Maps the labels of a dataset to the class indices of a model.

    Args:
        count: number of classes of the model.
        indices: class index of each label; None if labels are class indices.
    """

    count: int
    indices: list[int] | None

    def index(self, label: Any) -> int:
        """
        Raises:
            ValueError: the label is not an integer or not one of a class.
        """
        count = self.count if self.indices is None else len(self.indices)
        index = int(label) if isinstance(label, Integral) else -1
        if not 0 <= index < count:
            raise ValueError(f"its label is {label!r}, but must be an integer from 0 to {count - 1}")
        return index if self.indices is None else self.indices[index]


class Images(ImageDataset):
    """timm's dataset, but an unreadable image is an error that names the file; timm uses another image instead."""

    def __init__(self, root: str, reader, labels: Labels):
        super().__init__(root, reader)
        self.labels = labels

    def __getitem__(self, index: int) -> tuple[Any, int]:
        try:
            image, label = self.reader[index]
            image, label = to_rgb(image) if isinstance(image, Image.Image) else decode(image), self.labels.index(label)
        except Exception as error:  # of any reader and decoder
            raise unreadable(self.name(index), error) from error
        return image if self.transform is None else self.transform(image), label

    def name(self, index: int) -> str:
        """The path of an image; its number if it has none."""
        return self.filename(index, absolute=True) or f"number {index}"


class ImageStream(IterableImageDataset):
    """timm's stream of images. Readers yield an image, its label and, if they know it, its name."""

    def __init__(self, root: str | None, reader, labels: Labels):
        super().__init__(root, reader)
        self.labels = labels

    def _samples(self) -> Iterator[tuple[Image.Image, int]]:
        for number, (image, label, *name) in enumerate(self.reader):
            try:
                sample = to_rgb(image), self.labels.index(label)
            except Exception as error:  # of any decoder
                raise unreadable(name[0] if name else f"number {number} of the stream", error) from error
            yield sample

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        samples = self._samples()
        while True:
            try:
                image, label = next(samples)
            except StopIteration:
                return
            except TrainingError:
                raise
            except Exception as error:  # of tar files, networks and decoders of the reader
                raise TrainingError(f"cannot read the dataset: {one_line(error)}") from error
            yield image if self.transform is None else self.transform(image), label


class TorchvisionReader:
    """The images, or image files, and labels of a dataset of torchvision."""

    def __init__(self, dataset):
        self.dataset = dataset
        self.class_to_idx = getattr(dataset, "class_to_idx", {})
        if hasattr(dataset, "loader"):
            dataset.loader = open_binary

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, label = self.dataset[index]
        return image, label

    def __len__(self) -> int:
        return len(self.dataset)

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str | None:
        return self.dataset.samples[index][0] if hasattr(self.dataset, "samples") else None


def open_binary(path: str):
    return open(path, "rb")
