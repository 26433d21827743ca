"""Training from memory: images are decoded once, and augmented in batches by Kornia."""

import argparse
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import distributed
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import pil_to_tensor

from s2mlp_cuda._extras import require
from s2mlp_cuda._system import available_memory
from s2mlp_cuda.training.datasets import Images
from s2mlp_cuda.training.errors import TrainingError

#: What ``--train-interpolation`` selects: one mode, or several of which each batch draws one.
_MODES = {"random": ("bilinear", "bicubic"), "nearest": ("nearest",), "bilinear": ("bilinear",), "bicubic": ("bicubic",)}
_DECODED_AT_ONCE = 256


def check_options(arguments: argparse.Namespace) -> None:
    """
    Raises:
        TrainingError: an option of the augmentation that Kornia does not have.
        MissingExtraError: Kornia is not installed.
    """
    require("train", "kornia")
    if arguments.aa:
        raise TrainingError(f"--cache does not support --aa, got {arguments.aa!r}: leave out one of them")
    if arguments.train_interpolation not in _MODES:
        raise TrainingError(
            f"--cache supports --train-interpolation {', '.join(_MODES)}, got {arguments.train_interpolation!r}: "
            "choose one of them, or leave out --cache"
        )


def _check_memory(size: int) -> None:
    """
    Args:
        size: bytes per process.

    Raises:
        TrainingError: the processes on this machine need more than half of the available memory.
    """
    needed, available = size * int(os.environ.get("LOCAL_WORLD_SIZE", 1)), available_memory()
    if needed > available // 2:
        raise TrainingError(
            f"--cache needs {needed / 1e9:.1f} GB for the decoded images, more than half of the {available / 1e9:.1f} GB of "
            "available memory: leave out --cache"
        )


class _Pixels(Dataset):
    """The images of a dataset as uint8 tensors (3, H, W), checked to have the size of the first one."""

    def __init__(self, images: Images):
        images.transform = pil_to_tensor
        self.images = images
        self.shape = images[0][0].shape

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        pixels, label = self.images[index]
        if pixels.shape != self.shape:
            first, other = (
                f"{self.images.name(n)} is {shape[2]}x{shape[1]}" for n, shape in ((0, self.shape), (index, pixels.shape))
            )
            raise TrainingError(f"--cache needs images of one size, but {first} and {other}: leave out --cache")
        return pixels, label

    def __len__(self) -> int:
        return len(self.images)


class CachedImages(Dataset):
    """All images and labels of a dataset in memory. A batch is read at once, so that ``collate_fn`` gets two tensors.

    Args:
        images: the dataset, which is decoded now.
        img_size: side of the augmented images in pixels.
        workers: data loading processes for decoding.

    Raises:
        TrainingError: the images differ in size, are larger than ``img_size``, or need too much memory.
        UnreadableImageError: an image cannot be decoded.
    """

    transform: Any = None  # timm's loader sets its transform of single images, which is not used

    def __init__(self, images: Images, img_size: int, workers: int):
        pixels = _Pixels(images)
        _, height, width = pixels.shape
        if max(height, width) > img_size:  # Kornia does not antialias
            raise TrainingError(
                f"--cache does not support images larger than --img-size {img_size}, got {width}x{height}: leave out --cache"
            )
        _check_memory(len(pixels) * pixels.shape.numel())
        self.images = torch.empty(len(pixels), *pixels.shape, dtype=torch.uint8)
        self.labels = torch.empty(len(pixels), dtype=torch.int64)
        batches = DataLoader(pixels, _DECODED_AT_ONCE, num_workers=workers)
        parts = zip(self.images.split(_DECODED_AT_ONCE), self.labels.split(_DECODED_AT_ONCE), batches)
        for part, part_labels, (decoded, labels) in parts:
            part.copy_(decoded)
            part_labels.copy_(labels)

    def __getitems__(self, indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.tensor(indices)
        return self.images[chosen], self.labels[chosen]

    def __len__(self) -> int:
        return len(self.labels)


class Augmentation:
    """The random crop, flip and color jitter of ``s2mlp train`` for batches, with random numbers for each image.

    They are drawn from PyTorch's global generator. The interpolation, if random, and the order of the color adjustments are drawn
    for each batch.

    Args:
        arguments: of ``s2mlp train``.
    """

    def __init__(self, arguments: argparse.Namespace):
        from kornia import augmentation

        size = (arguments.img_size, arguments.img_size)
        scale, ratio = tuple(arguments.scale), tuple(arguments.ratio)
        align: dict[str, Any] = {"nearest": None}  # Kornia before 0.9 rejects a boolean for nearest
        crops = [
            augmentation.RandomResizedCrop(size, scale, ratio, mode, align_corners=align.get(mode, False))
            for mode in _MODES[arguments.train_interpolation]
        ]
        steps = [
            augmentation.ImageSequential(*crops, random_apply=1),
            augmentation.RandomHorizontalFlip(p=arguments.hflip),
        ]
        if arguments.color_jitter:
            steps.append(augmentation.ColorJitter(*3 * [arguments.color_jitter]))
        self.steps = augmentation.ImageSequential(*steps)

    def __call__(self, batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            batch: images, uint8 (B, 3, H, W), and labels.

        Returns:
            images, uint8 (B, 3, img_size, img_size), and the labels.
        """
        images, labels = batch
        augmented = self.steps(images / 255)
        return augmented.mul(255).round().clamp(0, 255).to(torch.uint8), labels


class _Batches:
    """The batches of a loader, read once. They are copied, because each tensor of a worker keeps a file descriptor open."""

    def __init__(self, loader: DataLoader):
        self.sampler = loader.sampler
        self.batches = [tuple(tensor.clone() for tensor in batch) for batch in loader]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def keep_batches(loader: Any, images: int, img_size: int) -> None:
    """Read the decoded, resized and cropped batches of a loader for evaluation, which then come from memory.

    Args:
        loader: timm's ``PrefetchLoader``.
        images: number of images of all processes.
        img_size: side of the images in pixels.

    Raises:
        TrainingError: they need too much memory.
        UnreadableImageError: an image cannot be decoded.
    """
    processes = distributed.get_world_size() if distributed.is_initialized() else 1
    _check_memory(images // processes * 3 * img_size**2)
    loader.loader = _Batches(loader.loader)
