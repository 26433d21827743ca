"""scikit-learn's handwritten digits as an image folder: real data that needs no network."""

from pathlib import Path

from PIL import Image

from s2mlp_cuda._extras import require

#: Of 1,797 images, every fifth is for testing.
_TEST_EVERY = 5


def write_digits(folder: Path) -> Path:
    """Write 1,797 images of 8x8 pixels, split into train and validation; does nothing where they are already.

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
        split = "validation" if index % _TEST_EVERY == 0 else "train"
        path = unfinished / split / str(label) / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * (255 / 16)).astype("uint8")).save(path)
    unfinished.rename(folder)
    return folder
