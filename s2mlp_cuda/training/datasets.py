"""Datasets with labels checked and images decoded by :mod:`s2mlp_cuda.training.images`, for timm's loaders."""

from dataclasses import dataclass
from numbers import Integral
from typing import Any

from PIL import Image
from timm.data import ImageDataset, IterableImageDataset

from s2mlp_cuda.training.errors import TrainingError, UnreadableImageError, one_line
from s2mlp_cuda.training.images import read, to_rgb, unreadable


@dataclass(frozen=True)
class Labels:
    """Maps the labels of a dataset to the class indices of a model.

    Args:
        count: number of classes of the model.
        indices: class index of each label; None if labels are class indices.
    """

    count: int
    indices: list[int] | None

    def index(self, label: Any, name: object) -> int:
        """
        Raises:
            UnreadableImageError: the label is not an integer or not one of a class.
        """
        count = self.count if self.indices is None else len(self.indices)
        index = int(label) if isinstance(label, Integral) else -1
        if not 0 <= index < count:
            raise UnreadableImageError(f"the label of the image {name} is {label!r}, but must be an integer from 0 to {count - 1}")
        return index if self.indices is None else self.indices[index]


class Images(ImageDataset):
    """timm's dataset, but an unreadable image is an error that names the file; timm uses another image instead."""

    def __init__(self, root: str, reader, labels: Labels):
        super().__init__(root, reader)
        self.labels = labels

    def __getitem__(self, index: int) -> tuple[Any, int]:
        name = f"number {index}"
        try:
            name = self.filename(index, absolute=True) or name
            image, label = self.reader[index]
        except Exception as error:  # of any reader
            raise unreadable(name, error) from error
        image = to_rgb(image) if isinstance(image, Image.Image) else read(image, name)
        return (image if self.transform is None else self.transform(image)), self.labels.index(label, name)


class ImageStream(IterableImageDataset):
    """timm's stream of images. Readers yield an image, its label and, if they know it, its name."""

    def __init__(self, root: str | None, reader, labels: Labels):
        super().__init__(root, reader)
        self.labels = labels

    def __iter__(self):
        try:
            for number, (image, label, *name) in enumerate(self.reader):
                name = name[0] if name else f"number {number} of the stream"
                try:
                    image = to_rgb(image)
                except Exception as error:  # as in `images.read`
                    raise unreadable(name, error) from error
                yield (image if self.transform is None else self.transform(image)), self.labels.index(label, name)
        except TrainingError:
            raise
        except Exception as error:  # of tar files, networks and image decoders
            raise TrainingError(f"cannot read the dataset: {one_line(error)}") from error


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
