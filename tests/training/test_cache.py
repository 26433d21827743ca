"""Training from memory: the same images, labels and shards as from files, and the augmentation of Kornia against Pillow."""

import csv
from dataclasses import replace

import numpy
import pytest
import torch
from PIL import Image

from s2mlp_cuda import cli
from s2mlp_cuda.training import cache, checkpoint, config
from s2mlp_cuda.training.ablation import run as ablate
from s2mlp_cuda.training.cache import Augmentation
from s2mlp_cuda.training.data import eval_loader, open_split, train_loader
from s2mlp_cuda.training.datasets import ImageStream
from s2mlp_cuda.training.errors import TrainingError
from s2mlp_cuda.training.run import train

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
#: Nothing is random, so that training from memory and from files sees the same pixels.
WHOLE = ["--scale", "1", "1", "--ratio", "1", "1", "--hflip", "0"]
#: All options that use random numbers.
RANDOM = [
    "--color-jitter", "0.4", "--reprob", "0.5", "--mixup", "0.8", "--cutmix", "1", "--drop-path", "0.1", "--aug-repeats", "2",
]  # fmt: skip
TIMES = {"images_per_second", "seconds", "peak_memory_mb"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images of 8x8 pixels in two classes, 24 for training and 7 for validation, some rotated, transparent or with 16 bits."""
    folder = tmp_path_factory.mktemp("data")
    generator = numpy.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    for split, count in (("train", 24), ("validation", 7)):
        for number in range(count):
            path = folder / split / ("ant" if number % 3 else "bee") / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(generator.integers(0, 256, (8, 8, 4), dtype=numpy.uint8))
            if number % 4 == 3:
                image = Image.fromarray(generator.integers(0, 65536, (8, 8), dtype=numpy.uint16))
            image.save(path, exif=exif)
    return folder


def argv(data, *more) -> list[str]:
    tiny = [
        "--recipe",
        "digits",
        "--device",
        "cpu",
        "--no-tensorboard",
        "--batch-size",
        "4",
        "--warmup-epochs",
        "0",
        "--workers",
        "0",
    ]
    tiny += ["--train-interpolation", "bilinear", "--epochs", "2", "--model-kwargs", "embed_dims=[16]", "depths=[1]"]
    return [*tiny, "--data", str(data), *map(str, more)]


def losses(output) -> list[dict[str, str]]:
    with open(output / "metrics.csv") as file:
        return [{name: value for name, value in row.items() if name not in TIMES} for row in csv.DictReader(file)]


def augmented(images: torch.Tensor, *options) -> torch.Tensor:
    return Augmentation(config.parse([*map(str, options)]))((images, torch.zeros(len(images))))[0]


def training_batches(given) -> list[tuple[torch.Tensor, torch.Tensor]]:
    loader = train_loader(given, open_split(given, "train", [], True, 4), 4, CPU)
    torch.manual_seed(0)
    return list(loader)


@pytest.mark.parametrize("mode, tolerance", [("bilinear", 1), ("nearest", 0)])
def test_resizing_is_pillows(mode, tolerance):
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    found = augmented(images, *WHOLE, "--img-size", 16, "--train-interpolation", mode, "--hflip", 1)
    for image, result in zip(images, found):
        pixels = image.flip(-1).permute(1, 2, 0).numpy()
        expected = numpy.array(Image.fromarray(pixels).resize((16, 16), getattr(Image.Resampling, mode.upper())))
        assert (result.permute(1, 2, 0).int() - torch.from_numpy(expected).int()).abs().max() <= tolerance


def test_every_image_has_its_own_crop_within_the_ranges():
    """Pixels are their coordinates, so that the first and the last of a crop tell its size."""
    column, row = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="xy")
    images = torch.stack([4 * column, 4 * row, 0 * row]).to(torch.uint8).expand(200, 3, 64, 64)
    found = augmented(
        images, "--img-size", 64, "--scale", 0.3, 0.6, "--ratio", 0.5, 2, "--hflip", 0.25, "--train-interpolation", "nearest"
    )
    ends = found[:, :2].int() // 4
    width, height = ends[:, 0, 0, -1] - ends[:, 0, 0, 0], ends[:, 1, -1, 0] - ends[:, 1, 0, 0] + 1
    flipped = width < 0
    area, ratio = (width.abs() + 1) * height / 64**2, (width.abs() + 1) / height
    assert 0.29 < area.min() < 0.33 and 0.57 < area.max() < 0.62
    assert 0.47 < ratio.min() < 0.6 and 1.7 < ratio.max() < 2.1
    assert 25 < flipped.sum() < 80
    assert len(set(zip(ends[:, 0, 0, 0].tolist(), ends[:, 1, 0, 0].tolist()))) > 100


def test_color_jitter_is_within_its_range():
    gray = torch.full((100, 3, 8, 8), 100, dtype=torch.uint8)
    levels = augmented(gray, *WHOLE, "--img-size", 8, "--color-jitter", 0.4)[:, 0, 0, 0].tolist()
    assert 59 <= min(levels) < 70 and 130 < max(levels) <= 141


@pytest.mark.parametrize("workers", [0, 2])
def test_training_images_are_those_of_the_files(data, workers):
    given = config.parse(argv(data, *WHOLE, "--reprob", "0", "--workers", workers))
    from_files = training_batches(given)
    given.cache = True
    for (images, labels), (expected, expected_labels) in zip(training_batches(given), from_files, strict=True):
        assert torch.equal(images, expected) and torch.equal(labels, expected_labels)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_reads_each_file_once(data, monkeypatch, workers):
    options = ["--img-size", "16", "--crop-pct", "0.8", "--interpolation", "lanczos"]
    given = config.parse(argv(data, *options, "--workers", workers))
    opened = open_split(given, "validation", [], False, 4)
    expected = list(eval_loader(given, opened, 4, CPU))
    given.cache = True
    loader = eval_loader(given, opened, 4, CPU)
    monkeypatch.delattr(type(opened.dataset), "__getitem__")
    for _ in range(2):
        for batch, expected_batch in zip(loader, expected, strict=True):
            assert all(map(torch.equal, batch, expected_batch))
    assert not any(tensor.is_shared() for batch in loader.loader for tensor in batch)


def test_two_processes_share_the_images_as_from_files(data, monkeypatch):
    given = config.parse(argv(data, *WHOLE))
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    seen = []
    for rank in range(2):
        monkeypatch.setattr("torch.distributed.get_rank", lambda: rank)
        given.cache = False
        from_files = training_batches(given)
        evaluated = list(eval_loader(given, open_split(given, "validation", [], False, 4), 4, CPU))
        given.cache = True
        cached = training_batches(given)
        assert all(torch.equal(one[0], other[0]) for one, other in zip(cached, from_files, strict=True))
        cached_evaluation = list(eval_loader(given, open_split(given, "validation", [], False, 4), 4, CPU))
        assert all(torch.equal(one[0], other[0]) for one, other in zip(cached_evaluation, evaluated, strict=True))
        seen += [image.sum().item() for images, _ in cached for image in images]
    assert len(seen) == len(set(seen)) == 24


def test_without_randomness_runs_are_those_from_files(data, tmp_path):
    for name, options in (("files", []), ("memory", ["--cache"])):
        train(config.parse(argv(data, *WHOLE, "--output", tmp_path / name, *options)))
    assert losses(tmp_path / "memory") == losses(tmp_path / "files")


def test_resumed_runs_are_reproducible_with_any_number_of_workers(data, tmp_path):
    first, resumed, other = (tmp_path / name for name in ("first", "resumed", "other"))
    options = ["--cache", *RANDOM, "--resume", "auto"]
    train(config.parse(argv(data, *options, "--output", first)))
    train(config.parse(argv(data, *options, "--output", other, "--seed", "1")))
    assert losses(first)[0]["train_loss"] != losses(other)[0]["train_loss"]
    options += ["--output", resumed, "--workers", "2"]
    train(config.parse(argv(data, *options)))
    checkpoint.list_checkpoints(resumed)[0].unlink()  # as if stopped after the first epoch
    train(config.parse(argv(data, *options)))
    assert losses(resumed) == losses(first)
    assert (resumed / "last.safetensors").read_bytes() == (first / "last.safetensors").read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        ["--scale", "0.3", "0.5"], ["--ratio", "0.3", "0.4"], ["--hflip", "1"], ["--color-jitter", "0.9"], ["--reprob", "1"],
        ["--train-interpolation", "nearest"], ["--train-interpolation", "bicubic"], ["--train-interpolation", "random"],
        ["--mean", "0.5", "0.5", "0.5"], ["--img-size", "12"],
    ],
    ids=lambda options: " ".join(options),
)  # fmt: skip
def test_every_option_of_training_images_takes_effect(data, options):
    base = ["--cache", "--scale", "0.5", "0.9"]
    images, _ = training_batches(config.parse(argv(data, *base)))[0]
    changed, _ = training_batches(config.parse(argv(data, *base, *options)))[0]
    assert not torch.equal(images, changed)


def test_recipes_and_ablations_may_train_from_memory(data, tmp_path, monkeypatch):
    path = tmp_path / "recipe.yaml"
    path.write_text("cache: true\n")
    assert config.parse(["--recipe", str(path)]).cache
    assert not config.parse(["--recipe", str(path), "--no-cache"]).cache

    def stop(arguments):
        raise TrainingError(f"cache: {arguments.cache}")

    monkeypatch.setattr("s2mlp_cuda.training.ablation.train", stop)
    path.write_text("epochs: 1\n")
    for is_given in (True, False):
        with pytest.raises(TrainingError, match=f"cache: {is_given}"):
            ablate(str(data), tmp_path, str(path), 1, ("no shift",), "cpu", cache=is_given)
    assert cli.main(["ablate", "--data", str(data), "--out", str(tmp_path), "--device", "cpu", "--cache"]) == 1


@pytest.mark.parametrize(
    "options, message",
    [
        (["--aa", "rand-m9"], "--cache does not support --aa, got 'rand-m9': leave out one of them"),
        (["--train-interpolation", "box"], "--cache supports --train-interpolation random, nearest, bilinear, bicubic, got 'box'"),
        (["--img-size", "6"], "--cache does not support images larger than --img-size 6, got 8x8: leave out --cache"),
    ],
)  # fmt: skip
def test_options_that_kornia_lacks_are_refused(data, tmp_path, capsys, options, message):
    assert cli.main(["train", *argv(data, "--cache", "--output", tmp_path / "run", *options)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"s2mlp: {message}") and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_missing_kornia_is_named(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("s2mlp_cuda._extras.find_spec", lambda name: None if name == "kornia" else name)
    assert cli.main(["train", *argv(data, "--cache", "--output", tmp_path / "run")]) == 2
    assert "kornia is not installed: pip install 's2mlp_cuda[train]'" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [0, 1])
def test_images_of_different_sizes_are_refused(tmp_path, capsys, workers):
    for split in ("train", "validation"):
        for name, size in (("a", (8, 8)), ("b", (8, 8)), ("c", (6, 4))):
            (tmp_path / "data" / split / "ant").mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size).save(tmp_path / "data" / split / "ant" / f"{name}.png")
    output = tmp_path / "run"
    assert cli.main(["train", *argv(tmp_path / "data", "--cache", "--output", output, "--workers", workers)]) == 1
    folder = tmp_path / "data" / "train" / "ant"
    message = f"--cache needs images of one size, but {folder}/a.png is 8x8 and {folder}/c.png is 6x4: leave out --cache"
    assert capsys.readouterr().err == f"s2mlp: {message}\n"


@pytest.mark.parametrize("split, size", [("train", 24 * 192), ("validation", 7 * 192)])
@pytest.mark.parametrize("processes", [1, 4])
def test_images_that_need_more_than_half_of_the_memory_are_refused(data, monkeypatch, split, size, processes):
    given = config.parse(argv(data, "--cache"))
    opened = open_split(given, split, [], False, 4)
    make = train_loader if split == "train" else eval_loader
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setattr(cache, "available_memory", lambda: 2 * size * processes)
    make(given, opened, 4, CPU)
    monkeypatch.setattr(cache, "available_memory", lambda: 2 * size * processes - 1)
    monkeypatch.delattr(cache, "DataLoader" if split == "train" else "_Batches")  # nothing else is decoded
    with pytest.raises(
        TrainingError, match="--cache needs 0.0 GB for the decoded images, more than half of the 0.0 GB of available"
    ):
        make(given, opened, 4, CPU)


def test_streams_are_not_kept_in_memory(data, tmp_path):
    given = config.parse(argv(data, "--cache", "--dataset", f"hfids/{data}"))
    opened = open_split(config.parse(argv(data)), "train", [], True, 4)
    stream = replace(opened, dataset=ImageStream(None, opened.dataset.reader, opened.dataset.labels))
    with pytest.raises(TrainingError, match="--cache does not support streams of images such as hfids/"):
        train_loader(given, stream, 4, CPU)
