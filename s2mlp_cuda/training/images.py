"""Decodes images: the same for training, evaluation and prediction."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError

from s2mlp_cuda._messages import one_line
from s2mlp_cuda.training.errors import UnreadableImageError

#: Color behind transparent pixels.
BACKGROUND = "white"
#: Formats whose mode "I" has 16 bits per pixel.
_GRAY_16_FORMATS = ("PNG", "PPM")
_THREADS = 16


@cache
def extensions() -> frozenset[str]:
    """The lower-case extensions of all formats that Pillow decodes, plugins that were imported included."""
    Image.init()

    def decodes(name: str) -> bool:
        if name not in Image.OPEN or name == "MPEG":  # Pillow only identifies MPEG and the formats of StubImageFile
            return False
        factory = Image.OPEN[name][0]
        return not (isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile))

    return frozenset(extension for extension, name in Image.registered_extensions().items() if decodes(name))


def _gray_16_to_8(image: Image.Image) -> Image.Image:
    """Scales 16 bits (12 in some TIFF files) to 8, rounded; ``Image.convert`` may clip. Keeps the transparent gray level of PNG."""
    tags = getattr(image, "tag_v2", {})
    white = 2 ** tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0] - 1
    pixels = numpy.asarray(image).astype(numpy.int64)
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:  # white is zero, which Pillow converts for 8 bits only
        pixels = white - pixels
    gray = Image.fromarray(((pixels * 255 + white // 2) // white).astype(numpy.uint8))
    if "transparency" in image.info:
        gray.putalpha(Image.fromarray(((pixels != image.info["transparency"]) * 255).astype(numpy.uint8)))
    return gray


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to 8-bit RGB.

    The EXIF orientation is applied, unless the EXIF data is damaged. 16-bit gray is scaled to 8 bits. Transparent pixels are
    composited over ``BACKGROUND``. Of an animation, the current frame is converted.

    Raises:
        ValueError: Pillow has no conversion, or the pixels are numbers of an unknown range, such as 32-bit integers or floats.
    """
    image.load()  # errors of pixels are raised here
    with suppress(Exception):  # errors of the EXIF data remain
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _GRAY_16_FORMATS):
        image = _gray_16_to_8(image)
    if image.mode in ("I", "F"):
        raise ValueError(f"the range of its pixels (mode {image.mode}) is not known; save it with 8 or 16 bits per channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image)
    return image.convert("RGB")


def unreadable(name: object, error: Exception) -> UnreadableImageError:
    """The error for an image that an exception of Pillow or of a reader prevented from being read."""
    reason = "it has no format that Pillow reads" if isinstance(error, UnidentifiedImageError) else one_line(error)
    return UnreadableImageError(f"cannot read the image {name}: {reason}")


def decode(file: Path | BinaryIO) -> Image.Image:
    """Open and decode an image (the first frame of an animation) as 8-bit RGB; see :func:`to_rgb`.

    Args:
        file: path or open file, which is closed.

    Raises:
        Exception: the file cannot be opened or decoded, or has more pixels than Pillow's limit. Decoders raise OSError,
            SyntaxError, ValueError, struct.error, zlib.error and others.
    """
    with open(file, "rb") if isinstance(file, Path) else file as opened, Image.open(opened) as image:
        return to_rgb(image)


def read(path: Path) -> Image.Image:
    """:func:`decode` a file, with errors that name it.

    Raises:
        UnreadableImageError: the file cannot be opened or decoded.
    """
    try:
        return decode(path)
    except Exception as error:  # see `decode`
        raise unreadable(path, error) from error


def _header_errors(paths: Iterable[str]) -> list[UnreadableImageError]:
    errors = []
    for path in paths:
        try:
            Image.open(path).close()
        except Exception as error:  # see `decode`
            errors.append(unreadable(path, error))
    return errors


def check_headers(paths: list[str]) -> None:
    """Read the headers of image files, in threads. Finds files that are empty, no images or larger than Pillow's limit.

    Raises:
        UnreadableImageError: a file cannot be opened; names the first one, and says how many there are.
    """
    Image.init()
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(_header_errors, (paths[start::_THREADS] for start in range(_THREADS)))
        errors = sorted((error for errors in found for error in errors), key=str)
    if errors:
        more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
        raise UnreadableImageError(f"{errors[0]}{more}; repair or remove the file{'s' if more else ''}")
