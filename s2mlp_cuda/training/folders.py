"""Image folders: one folder per split, in it one folder per class, in it images, in subfolders or not."""

import os
import re
from pathlib import Path

from timm.data.readers.reader import Reader
from torchvision.datasets.folder import make_dataset

from s2mlp_cuda.training.errors import TrainingError
from s2mlp_cuda.training.images import extensions


def _natural_key(name: str) -> list[int | str]:
    """Decimal numbers as numbers, other text in lower case. timm's ``natural_key`` fails for digits such as "²"."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name.lower())]


class FolderReader(Reader):
    """Reads the images of a split. Labels are numbered by class folder, in natural order of the names ("2" before "10").

    All formats that Pillow decodes are found by their extension, at any depth. Other files, and files and folders whose names
    start with a dot, are ignored. timm's reader would take the label from the innermost folder and find only PNG and JPEG.

    Raises:
        TrainingError: there are no class folders, or a class has no images.
    """

    def __init__(self, root: Path, split: str):
        super().__init__()
        self.root = root
        names = (path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        self.class_to_idx = {name: index for index, name in enumerate(sorted(names, key=lambda name: (_natural_key(name), name)))}
        if not self.class_to_idx:
            raise TrainingError(f"{root} has no folders: {split} images must be in one folder per class")
        self.samples = make_dataset(str(root), self.class_to_idx, is_valid_file=self._is_image, allow_empty=True)
        found = {label for _, label in self.samples}
        empty = [name for name, label in self.class_to_idx.items() if label not in found]
        if empty:
            raise TrainingError(f"{root} has no images for the class{'es' if len(empty) > 1 else ''} {', '.join(empty)}")

    def _is_image(self, path: str) -> bool:
        is_hidden = f"{os.sep}." in path[len(str(self.root)) :]
        return not is_hidden and os.path.splitext(path)[1].lower() in extensions()

    def __getitem__(self, index: int) -> tuple[Path, int]:
        path, label = self.samples[index]
        return Path(path), label

    def __len__(self) -> int:
        return len(self.samples)

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        path = Path(self.samples[index][0])
        return path.name if basename else str(path if absolute else path.relative_to(self.root))


def split_folder(root: Path, split: str) -> Path:
    """The folder of a split or of one of timm's synonyms.

    Raises:
        TrainingError: there is none; timm would use the root instead.
    """
    if not root.is_dir():
        raise TrainingError(f"{root} is not a folder: --data must be a folder with one folder per split")
    synonyms = {"train": ("train", "training"), "validation": ("validation", "val", "valid", "eval", "evaluation")}
    for name in synonyms.get(split, (split,)):
        parts = Path(name).parts
        if parts and ".." not in parts and not Path(name).is_absolute() and (root / name).is_dir():
            return root / name
    folders = ", ".join(sorted(path.name for path in root.iterdir() if path.is_dir())) or "no folders"
    raise TrainingError(f"{root} has no folder for the split {split!r}: name another split; there are {folders}")
