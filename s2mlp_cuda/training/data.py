"""Splits of datasets and timm's loaders of them, with checks that prevent late failures of a long run and wrong labels."""

import argparse
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.data import create_dataset, create_loader
from timm.data.readers import create_reader

from s2mlp_cuda._extras import require
from s2mlp_cuda._messages import one_line
from s2mlp_cuda.training.cache import Augmentation, CachedImages, keep_batches
from s2mlp_cuda.training.datasets import Images, ImageStream, Labels, TorchvisionReader
from s2mlp_cuda.training.digits import write_digits
from s2mlp_cuda.training.errors import TrainingError
from s2mlp_cuda.training.folders import FolderReader, split_folder
from s2mlp_cuda.training.images import check_headers

#: The packages that the datasets need, by prefix of their names; also the name of the extra that installs them.
_PACKAGES = {"wds": ("webdataset",), "hfds": ("datasets",), "hfids": ("datasets",), "torch": ()}


@dataclass(frozen=True)
class Split:
    """A dataset of images and labels.

    Args:
        dataset: images and class indices, for timm's loaders.
        class_names: class names of the model by index; empty if neither the model nor the dataset has names.
        num_classes: number of classes of the model.
        size: number of images.
        root: folder of the split, or another name of it.
        files: paths of the images in the folder; empty for other datasets.
    """

    dataset: Images | ImageStream
    class_names: list[str]
    num_classes: int
    size: int
    root: str
    files: list[str]

    def check_files(self) -> None:
        """Read the headers of all files.

        Raises:
            UnreadableImageError: a file is empty, no image, or larger than Pillow's limit.
        """
        check_headers(self.files)

    def identity(self) -> dict[str, Any]:
        """What must not change when a run is resumed: class names, the number of images, and a hash of their file names."""
        names = b"\0".join(os.fsencode(path[len(self.root) :]) for path in self.files)
        return {"classes": self.class_names, "images": self.size, "file names": hashlib.sha256(names).hexdigest()}


def describe_change(before: dict[str, Any], now: dict[str, Any]) -> str:
    """How the identity of a split has changed; empty if it has not."""
    gone, new = (sorted(set(one["classes"]) - set(other["classes"])) for one, other in ((before, now), (now, before)))
    if gone or new:
        changes = {"missing classes": gone, "new classes": new}
        return "; ".join(f"{change}: {', '.join(names)}" for change, names in changes.items() if names)
    if before["classes"] != now["classes"]:
        return "another order of the classes"
    if before["images"] != now["images"]:
        return f"{before['images']} images, now {now['images']}"
    return "" if before == now else "other file names"


def prepare(arguments: argparse.Namespace) -> None:
    """Writes the digits dataset if it is selected and no folder is given. Must run in one process, before all open the data."""
    if arguments.dataset == "digits" and not arguments.data:
        write_digits(_digits_folder(arguments))


def _digits_folder(arguments: argparse.Namespace) -> Path:
    return Path(arguments.output) / "digits"


def _open_reader(arguments: argparse.Namespace, split: str, batch_size: int, is_training: bool):
    """The reader of a dataset that is not an image folder."""
    prefix, separator, name = arguments.dataset.partition("/")
    prefix = prefix.lower()
    if not separator or prefix not in _PACKAGES:
        known = ", ".join(f"{each}/" for each in _PACKAGES)
        raise TrainingError(f"unknown --dataset {arguments.dataset!r}: it must be empty, digits, or begin with {known}")
    for package in _PACKAGES[prefix]:
        require(package, package)
    keys = {"input_key": arguments.input_key, "target_key": arguments.target_key}
    stream = {"is_training": is_training, "seed": arguments.seed, "batch_size": batch_size}
    if prefix in ("wds", "torch") and not arguments.data:
        raise TrainingError(f"no data: --dataset {arguments.dataset} needs a folder, --data")
    try:
        if prefix == "wds":
            from s2mlp_cuda.training.shards import ShardReader

            return ShardReader(root=arguments.data, split=split, **keys, **stream)
        if prefix == "torch":
            if name.lower() in ("image_folder", "folder"):
                raise TrainingError(f"--dataset {arguments.dataset} is not supported: leave --dataset empty for an image folder")
            return TorchvisionReader(create_dataset(arguments.dataset, root=arguments.data, split=split))
        if prefix == "hfids":
            keys |= {**stream, "input_img_mode": ""}
        return create_reader(f"{prefix}/{name}", root=arguments.data, split=split, **keys)
    except TrainingError:
        raise
    except Exception as error:  # of files, networks and the libraries of datasets
        raise TrainingError(f"cannot open the dataset {arguments.dataset}, split {split!r}: {one_line(error)}") from error


def _class_indices(data_names: list[str], class_names: list[str], where: str) -> list[int] | None:
    """The model's class index of each label of a dataset, by name; None if either has no names.

    Raises:
        TrainingError: the dataset has classes that the model does not have.
    """
    if not data_names or not class_names:
        return None
    unknown = sorted(set(data_names) - set(class_names))
    if unknown:
        raise TrainingError(f"{where} has classes that the model was not trained with: {', '.join(unknown)}")
    return [class_names.index(name) for name in data_names]


def open_split(arguments: argparse.Namespace, split: str, class_names: list[str], is_training: bool, batch_size: int) -> Split:
    """Open a split of the dataset.

    Args:
        arguments: of ``s2mlp train``.
        split: name of the split.
        class_names: class names of the model, in the order of its labels; empty to take them from the data.
        is_training: whether streams are shuffled, and repeated until the last batch is full.
        batch_size: of a process, without gradient accumulation.

    Raises:
        TrainingError: the data is missing, is empty, has other classes, or more than ``num_classes``.
        MissingExtraError: the package that the reader needs is not installed.
    """
    reader: Any
    if arguments.dataset in ("", "digits"):
        if not arguments.data and not arguments.dataset:
            raise TrainingError("no data: give an image folder with --data or a dataset with --dataset")
        where = str(split_folder(Path(arguments.data) if arguments.data else _digits_folder(arguments), split))
        reader = FolderReader(Path(where), split)
    else:
        where = f"the split {split!r} of {arguments.dataset}"
        reader = _open_reader(arguments, split, batch_size, is_training)
    by_index = {index: str(name) for name, index in (getattr(reader, "class_to_idx", None) or {}).items()}
    data_names = [by_index[index] for index in sorted(by_index)]
    names = class_names or data_names
    count = arguments.num_classes or len(names)
    if not count:
        raise TrainingError("the number of classes is not known from the data: give --num-classes")
    if len(names) > count:
        raise TrainingError(f"--num-classes {count} is less than the number of classes of {where}, which is {len(names)}")
    labels = Labels(count, _class_indices(data_names, class_names, where))
    is_stream = hasattr(reader, "set_epoch")
    dataset = ImageStream(where, reader, labels) if is_stream else Images(where, reader, labels)
    size = reader.num_samples if is_stream else len(reader)
    if not size:
        raise TrainingError(f"{where} has no images")
    files = [path for path, _ in reader.samples] if isinstance(reader, FolderReader) else []
    return Split(dataset, names, count, size, where, files)


def _image_options(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"input_size": (3, arguments.img_size, arguments.img_size), "mean": arguments.mean, "std": arguments.std}


def train_loader(arguments: argparse.Namespace, split: Split, batch_size: int, device: torch.device):
    """A loader of shuffled and augmented batches.

    Workers are restarted in each epoch, so that an epoch depends only on its seed and not on earlier epochs.

    Raises:
        TrainingError: the split is smaller than one batch, a stream with an option that streams do not support, or cannot be kept
            in memory.
    """
    dataset: Any = split.dataset
    if isinstance(dataset, ImageStream):
        for option, is_given in (("--aug-repeats", arguments.aug_repeats), ("--cache", arguments.cache)):
            if is_given:
                raise TrainingError(f"{option} does not support streams of images such as {arguments.dataset}")
    elif arguments.cache:
        dataset = CachedImages(dataset, arguments.img_size, arguments.workers)
    distributed = torch.distributed.is_initialized()
    loader = create_loader(
        dataset,
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
        num_workers=0 if arguments.cache else arguments.workers,
        distributed=distributed,
        collate_fn=Augmentation(arguments) if arguments.cache else None,
        pin_memory=device.type == "cuda",
        device=device,
        persistent_workers=False,
    )
    if len(loader) < arguments.grad_accum_steps:
        raise TrainingError(f"the training images do not fill one batch of {arguments.batch_size}: choose a smaller --batch-size")
    return loader


def eval_loader(arguments: argparse.Namespace, split: Split, batch_size: int, device: torch.device):
    """A loader of batches in the order of the split, resized and center-cropped.

    Raises:
        TrainingError: the split cannot be kept in memory.
    """
    loader = create_loader(
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
    if arguments.cache:
        keep_batches(loader, split.size, arguments.img_size)
    return loader
