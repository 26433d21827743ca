"""WebDataset shards: tar files of images and labels."""

import io
import json
import math
import os
import random
from collections.abc import Iterator
from typing import Any

import webdataset
from PIL import Image
from timm.data.readers.reader_wds import ReaderWds, detshuffle2
from timm.data.readers.targets import get_field

from s2mlp_cuda.training.errors import TrainingError
from s2mlp_cuda.training.images import decode, extensions, unreadable


class ShardReader(ReaderWds):
    """timm's reader, with three differences.

    - An unreadable image or label is an error that names it; timm skips the image.
    - If there are fewer shards than data loading processes, the processes divide the images instead of the shards; timm leaves
      some of the processes without images.
    - In evaluation, each image is read exactly once, for any number of processes; timm repeats some and skips others.

    Args:
        options: of timm's reader. ``input_key`` and ``target_key`` may be None: then the image is the entry with the extension of
            an image, and the label is the integer in the entry ``cls``.

    Raises:
        TrainingError: a local shard does not exist.
    """

    def __init__(self, input_key: str | None, **options):
        super().__init__(**options)
        self.image_keys = input_key.split(";") if input_key else [extension[1:] for extension in sorted(extensions())]
        self.label_key = self.target_key or self.split_info.alt_label
        self.paths = [os.path.join(self.root, name) for name in self.split_info.filenames]
        for path in self.paths:
            if "://" not in path and not path.startswith("pipe:") and not os.path.isfile(path):
                raise TrainingError(f"no shard {path}")

    def _decode(self, sample: dict[str, Any]) -> tuple[Image.Image, Any, str]:
        name = f"{sample['__key__']} in {sample['__url__']}"
        try:
            label = get_field(json.loads(sample["json"]), self.label_key) if self.label_key else int(sample["cls"])
            data = next(sample[key] for key in self.image_keys if key in sample)
        except (KeyError, ValueError, StopIteration) as error:
            entries = ", ".join(key for key in sample if not key.startswith("_"))
            wanted = f"{self.label_key} in its json" if self.label_key else "cls"
            raise unreadable(name, ValueError(f"it must have an image and an integer {wanted}, and has {entries}")) from error
        try:
            return decode(io.BytesIO(data)), label, name
        except Exception as error:  # of any decoder
            raise unreadable(name, error) from error

    def _lazy_init(self) -> None:
        """Builds the pipeline of one epoch of this data loading process."""
        super()._lazy_init()  # numbers the process
        divides_shards = len(self.paths) >= self.global_num_workers
        stages = [webdataset.SimpleShardList(self.paths)]
        if self.is_training:
            stages.append(detshuffle2(self.shard_shuffle_size, seed=self.common_seed, epoch=self.epoch_count))
        if divides_shards:
            stages.append(self._split_by_node_and_worker)
        stages.append(webdataset.tarfile_to_samples(handler=webdataset.reraise_exception))
        if not divides_shards:
            stages.append(self._split_by_node_and_worker)
        if self.is_training:
            rng = random.Random(self.worker_seed + self.epoch_count.value)
            stages.append(webdataset.shuffle(self.sample_shuffle_size, initial=self.sample_initial_size, rng=rng))
        stages.append(webdataset.map(self._decode, handler=webdataset.reraise_exception))
        self.ds: webdataset.DataPipeline = webdataset.DataPipeline(*stages)

    def __iter__(self) -> Iterator[tuple[Image.Image, Any, str]]:
        """Yields (image, label, name). In training, images are repeated until the last batch is full."""
        self._lazy_init()
        return iter(self.ds.with_epoch(self._num_samples_per_worker()) if self.is_training else self.ds)

    def __len__(self) -> int:
        """The number of images that the processes of one rank read, rounded up."""
        return super().__len__() if self.is_training else math.ceil(self.num_samples / self.dist_num_replicas)
