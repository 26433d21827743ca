"""scikit-learn's handwritten digits as an image folder: real data without a download."""

from pathlib import Path

from PIL import Image

from s2mlp_cuda._extras import require

#: Every fifth of the 1,797 images is for validation.
_VALIDATION_EVERY = 5


def write_digits(folder: Path) -> Path:
    """Write 1,797 images of 8x8 pixels, split into train and validation. Does nothing if the folder exists.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    if folder.is_dir():
        return folder
    require("train", "sklearn")
    from sklearn.datasets import load_digits

    digits = load_digits()
    unfinished = folder.with_name(f".{folder.name}.tmp")
    for index, (pixels, label) in enumerate(zip(digits.images, digits.target)):
        split = "validation" if index % _VALIDATION_EVERY == 0 else "train"
        path = unfinished / split / str(label) / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * (255 / 16)).astype("uint8")).save(path)
    unfinished.rename(folder)
    return folder
