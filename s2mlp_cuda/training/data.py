"""timm's datasets and loaders, with checks that prevent late failures of a long run and wrong labels."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.data import ImageDataset, create_dataset, create_loader
from timm.data.readers.img_extensions import get_img_extensions

from s2mlp_cuda._extras import require
from s2mlp_cuda.training.digits import write_digits
from s2mlp_cuda.training.errors import TrainingError, UnreadableImageError

#: The package that each of timm's readers needs, by prefix of the dataset name; also the name of the extra that installs it.
_READER_PACKAGES = {"wds": "webdataset", "hfds": "datasets", "hfids": "datasets"}


class StrictImageDataset(ImageDataset):
    """timm's dataset, but an unreadable image is an error that names the file; timm would use another image instead."""

    def __init__(self, root, reader):
        super().__init__(root, reader)
        self._max_retries = 1

    def __getitem__(self, index: int):
        try:
            return super().__getitem__(index)
        except (RuntimeError, SyntaxError) as error:
            raise UnreadableImageError(
                f"cannot read the image {self.filename(index, absolute=True)}: repair or remove the file, "
                "then resume with --resume auto"
            ) from error


@dataclass(frozen=True)
class Split:
    """A dataset of images and labels, and its class names by index; empty if the reader has none."""

    dataset: Any
    class_names: list[str]


def _class_folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _has_image(folder: Path) -> bool:
    extensions = get_img_extensions(as_set=True)
    return any(
        os.path.splitext(name)[1].lower() in extensions for _, _, names in os.walk(folder, followlinks=True) for name in names
    )


def _check_folder(root: Path, split: str) -> None:
    """
    Raises:
        TrainingError: the folder has no classes, or a class has no images, which would change the labels of later classes.
    """
    folders = _class_folders(root)
    if not folders:
        raise TrainingError(f"{root} has no folders: {split} images must be in one folder per class")
    empty = [path.name for path in folders if not _has_image(path)]
    if empty:
        raise TrainingError(f"{root} has no images for the class{'es' if len(empty) > 1 else ''} {', '.join(empty)}")


def _split_folder(root: Path, split: str) -> Path:
    """The folder of a split or of one of timm's synonyms.

    Raises:
        TrainingError: there is none; timm would use the root instead.
    """
    synonyms = {"train": ("train", "training"), "validation": ("validation", "val", "valid", "eval", "evaluation")}
    for name in synonyms.get(split, (split,)):
        if (root / name).is_dir():
            return root / name
    raise TrainingError(f"{root} has no folder for the split {split!r}: name one with --train-split or --val-split")


def prepare(arguments: argparse.Namespace) -> None:
    """Writes the digits dataset if it is selected and no folder is given. Must run in one process, before all open the data."""
    if arguments.dataset == "digits" and not arguments.data:
        write_digits(_digits_folder(arguments))


def _digits_folder(arguments: argparse.Namespace) -> Path:
    return Path(arguments.output) / "digits"


def open_split(arguments: argparse.Namespace, split: str, class_names: list[str], is_training: bool) -> Split:
    """Open a split of the dataset.

    Args:
        arguments: of ``s2mlp train``.
        split: name of the split.
        class_names: class names of the model, in the order of its labels; empty to take them from the data.
        is_training: whether streams are shuffled.

    Raises:
        TrainingError: the data is missing, is empty or has other classes.
        MissingExtraError: the package that the reader needs is not installed.
    """
    class_map = {name: index for index, name in enumerate(class_names)}
    options: dict[str, Any] = {
        "is_training": is_training,
        "class_map": class_map or None,
        "seed": arguments.seed,
        "batch_size": arguments.batch_size,
        "input_key": arguments.input_key,
        "target_key": arguments.target_key,
    }
    if arguments.dataset in ("", "digits"):
        if not arguments.data and not arguments.dataset:
            raise TrainingError("no data: give an image folder with --data or a dataset with --dataset")
        root = Path(arguments.data) if arguments.data else _digits_folder(arguments)
        folder = _split_folder(root, split)
        _check_folder(folder, split)
        unknown = {path.name for path in _class_folders(folder)} - class_map.keys() if class_map else set()
        if unknown:
            raise TrainingError(f"{folder} has classes that the model was not trained with: {', '.join(sorted(unknown))}")
        reader = create_dataset("", root=str(folder), search_split=False, class_map=options["class_map"]).reader
        dataset = StrictImageDataset(str(folder), reader)
    else:
        package = _READER_PACKAGES.get(arguments.dataset.partition("/")[0])
        if package:
            require(package, package)
        dataset = create_dataset(arguments.dataset, root=arguments.data, split=split, **options)
        if isinstance(dataset, ImageDataset):
            dataset = StrictImageDataset(arguments.data, dataset.reader)
        reader = getattr(dataset, "reader", None)
    names = getattr(reader, "class_to_idx", None) or {}
    return Split(dataset, [str(name) for name in sorted(names, key=names.__getitem__)])


def _image_options(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"input_size": (3, arguments.img_size, arguments.img_size), "mean": arguments.mean, "std": arguments.std}


def train_loader(arguments: argparse.Namespace, split: Split, batch_size: int, device: torch.device):
    """A loader of shuffled and augmented batches.

    Workers are restarted in each epoch, so that an epoch depends only on its seed and not on earlier epochs.

    Raises:
        TrainingError: the split is smaller than one batch.
    """
    distributed = torch.distributed.is_initialized()
    loader = create_loader(
        split.dataset,
        **_image_options(arguments),
        batch_size=batch_size,
        is_training=True,
        re_prob=arguments.reprob,
        re_mode=arguments.remode,
        re_count=arguments.recount,
        scale=arguments.scale,
        ratio=arguments.ratio,
        hflip=arguments.hflip,
        color_jitter=arguments.color_jitter,
        auto_augment=arguments.aa,
        num_aug_repeats=arguments.aug_repeats,
        interpolation=arguments.train_interpolation,
        num_workers=arguments.workers,
        distributed=distributed,
        pin_memory=device.type == "cuda",
        device=device,
        persistent_workers=False,
    )
    if len(loader) < arguments.grad_accum_steps:
        raise TrainingError(f"the training images do not fill one batch of {arguments.batch_size}: choose a smaller --batch-size")
    return loader


def eval_loader(arguments: argparse.Namespace, split: Split, batch_size: int, device: torch.device):
    """A loader of batches in the order of the split, resized and center-cropped."""
    return create_loader(
        split.dataset,
        **_image_options(arguments),
        batch_size=batch_size,
        interpolation=arguments.interpolation,
        crop_pct=arguments.crop_pct,
        num_workers=arguments.workers,
        distributed=torch.distributed.is_initialized(),
        pin_memory=device.type == "cuda",
        device=device,
        persistent_workers=False,
    )
