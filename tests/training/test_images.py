"""Every kind of image file that Pillow reads, decoded."""

import io
import struct

import numpy
import pytest
from PIL import Image, ImageFile

from s2mlp_cuda.training import images
from s2mlp_cuda.training.errors import UnreadableImageError
from s2mlp_cuda.training.images import check_headers, decode, extensions, read, to_rgb

RAMP = numpy.linspace(0, 65535, 24 * 20).reshape(24, 20).astype(numpy.uint16)
#: Top left red, top right green, bottom left blue, bottom right white; not square.
CORNERS = numpy.zeros((24, 16, 3), numpy.uint8)
CORNERS[:12, :8, 0] = CORNERS[:12, 8:, 1] = CORNERS[12:, :8, 2] = 255
CORNERS[12:, 8:] = 255


def pixels(image) -> numpy.ndarray:
    assert image.mode == "RGB"
    return numpy.asarray(image).astype(int)


@pytest.mark.parametrize(
    "format, dtype", [("png", "<u2"), ("tif", "<u2"), ("tif", ">u2"), ("jp2", "<u2"), ("pgm", "<u2")]
)  # fmt: skip
def test_16_bit_gray_is_scaled(tmp_path, format, dtype):
    path = tmp_path / f"gray.{format}"
    Image.fromarray(RAMP.astype(dtype)).save(path)
    found = pixels(read(path))
    assert abs(found - (RAMP / 257)[..., None]).max() <= 0.5


def tiff(values: numpy.ndarray, bits: int, photometric: int) -> bytes:
    """An uncompressed gray TIFF file of one strip."""
    height, width = values.shape
    data = values.astype("<u2").tobytes()
    if bits == 12:  # two pixels in three bytes, most significant bits first
        first, second = values[:, ::2].astype(int), values[:, 1::2].astype(int)
        data = numpy.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1).astype(numpy.uint8).tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 122, 277: 1, 278: height, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + struct.pack("<I", 0) + data


@pytest.mark.parametrize("bits, photometric", [(16, 1), (16, 0), (12, 1)])
def test_tiff_with_12_bits_and_with_white_as_zero(bits, photometric):
    values = RAMP >> (16 - bits)
    data = tiff(values, bits, photometric)
    expected = values / (2**bits - 1) * 255
    found = pixels(decode(io.BytesIO(data)))
    assert abs(found - (expected if photometric else 255 - expected)[..., None]).max() <= 0.51


@pytest.mark.parametrize("format", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, format, orientation):
    transpose = Image.Transpose
    undo = {
        2: transpose.FLIP_LEFT_RIGHT, 3: transpose.ROTATE_180, 4: transpose.FLIP_TOP_BOTTOM, 5: transpose.TRANSPOSE,
        6: transpose.ROTATE_90, 7: transpose.TRANSVERSE, 8: transpose.ROTATE_270,
    }  # fmt: skip
    upright = Image.fromarray(CORNERS)
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / f"photo.{format}", exif=exif, quality=95)
    found = pixels(read(tmp_path / f"photo.{format}"))
    assert found.shape == CORNERS.shape
    assert abs(found - CORNERS)[2:-2:8, 2:-2:4].max() < 40


@pytest.mark.parametrize("format", ["png", "webp", "jpg"])
def test_damaged_exif_data_is_ignored(tmp_path, format):
    Image.fromarray(CORNERS).save(tmp_path / f"photo.{format}", exif=b"Exif\0\0nonsense")
    assert read(tmp_path / f"photo.{format}").size == (16, 24)


TRANSPARENT = {
    "RGBA": (Image.new("RGBA", (8, 8), (255, 0, 0, 0)), {}),
    "LA": (Image.new("LA", (8, 8), (7, 0)), {}),
    "palette": (Image.new("RGB", (8, 8), (255, 0, 0)).convert("P", palette=Image.Palette.ADAPTIVE), {"transparency": 0}),
    "palette with alpha": (
        Image.new("RGB", (8, 8), (255, 0, 0)).convert("P", palette=Image.Palette.ADAPTIVE),
        {"transparency": bytes(2)},
    ),
    "color": (Image.new("RGB", (8, 8), (255, 0, 0)), {"transparency": (255, 0, 0)}),
    "gray": (Image.new("L", (8, 8), 7), {"transparency": 7}),
    "bits": (Image.new("1", (8, 8), 0), {"transparency": 0}),
    "16-bit gray": (Image.fromarray(numpy.full((8, 8), 300, numpy.uint16)), {"transparency": 300}),
}


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_transparent_pixels_are_white(tmp_path, kind):
    image, options = TRANSPARENT[kind]
    image.save(tmp_path / "clear.png", **options)
    assert pixels(read(tmp_path / "clear.png")).min() == 255


def test_half_transparent_pixels_are_composited_over_white():
    half = Image.new("RGBA", (8, 8), (255, 0, 0, 128))
    assert pixels(to_rgb(half))[0, 0].tolist() == [255, 127, 127]


@pytest.mark.parametrize(
    "mode, format", [("1", "png"), ("L", "bmp"), ("P", "gif"), ("RGB", "webp"), ("CMYK", "jpg"), ("YCbCr", "tif")]
)
def test_other_modes_are_converted(tmp_path, mode, format):
    Image.fromarray(CORNERS).convert(mode).save(tmp_path / f"image.{format}")
    found = pixels(read(tmp_path / f"image.{format}"))
    expected = numpy.asarray(Image.fromarray(CORNERS).convert(mode).convert("RGB")).astype(int)
    assert abs(found - expected)[2:-2:8, 2:-2:4].max() < 40


def test_first_frame_of_an_animation_is_used(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    for format in ("gif", "png", "webp", "tif"):
        frames[0].save(tmp_path / f"film.{format}", save_all=True, append_images=frames[1:])
        assert pixels(read(tmp_path / f"film.{format}"))[4, 4, 0] > 250, format


def unreadable_files(folder):
    jpeg, png = io.BytesIO(), io.BytesIO()
    noise = Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=numpy.uint8))
    noise.save(jpeg, "JPEG")
    noise.save(png, "PNG")
    contents = {
        "empty.png": b"", "text.jpg": b"no image", "cut.jpg": jpeg.getvalue()[:2000], "cut.png": png.getvalue()[:2000],
        "no-pixels.png": png.getvalue()[:33],
    }  # fmt: skip
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    Image.fromarray(RAMP.astype(numpy.int32)).save(folder / "int32.tif")
    Image.fromarray(RAMP.astype(numpy.float32)).save(folder / "float32.tif")
    (folder / "folder.png").mkdir()
    return [*contents, "int32.tif", "float32.tif", "folder.png", "missing.png"]


def test_unreadable_files_are_named_in_one_line(tmp_path):
    for name in unreadable_files(tmp_path):
        with pytest.raises(UnreadableImageError) as raised:
            read(tmp_path / name)
        message = str(raised.value)
        assert message.startswith(f"cannot read the image {tmp_path / name}: ") and "\n" not in message, name


def test_images_over_the_limit_are_named(tmp_path, monkeypatch):
    path = tmp_path / "scan.png"
    Image.new("L", (100, 50)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    with pytest.raises(UnreadableImageError, match=r"scan.png: Image size \(5000 pixels\) exceeds limit of 4000 pixels"):
        read(path)
    with pytest.raises(UnreadableImageError, match="scan.png: .*; repair or remove the file$"):
        check_headers([str(path)])


def test_headers_of_all_files_are_checked(tmp_path):
    names = [f"{number:02}.png" for number in range(40)]
    for name in names:
        Image.new("L", (2, 2)).save(tmp_path / name)
    paths = [str(tmp_path / name) for name in names]
    check_headers(paths)
    for number in (7, 25, 39):
        (tmp_path / names[number]).write_bytes(b"")
    with pytest.raises(
        UnreadableImageError, match="07.png: it has no format that Pillow reads, and 2 more; repair or remove the files"
    ):
        check_headers(paths)


def test_extensions_are_those_of_formats_that_can_be_decoded():
    assert {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".jp2", ".avif", ".jfif"} <= extensions()
    assert not {".txt", ".json", ".pdf", ".mpg", ".mpeg", ".h5", ".hdf", ".py", ""} & extensions()


def test_extensions_include_plugins_of_pillow(monkeypatch):
    class PluginImage(ImageFile.ImageFile):
        format = "TEST"

    monkeypatch.setattr(Image, "ID", list(Image.ID))
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "EXTENSION", dict(Image.EXTENSION))
    Image.register_open("TEST", PluginImage)
    Image.register_extension("TEST", ".heictest")
    assert ".heictest" in images.extensions.__wrapped__()
