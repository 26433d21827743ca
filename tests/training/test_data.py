"""Datasets: which images are found, which labels they get, and that every kind of dataset decodes them alike."""

import io
import json
import struct
from pathlib import Path

import numpy
import pytest
import torch
import webdataset
from PIL import Image

from s2mlp_cuda.training import config
from s2mlp_cuda.training.data import eval_loader, open_split, train_loader
from s2mlp_cuda.training.description import Description
from s2mlp_cuda.training.errors import TrainingError, UnreadableImageError
from s2mlp_cuda.training.folders import FolderReader
from s2mlp_cuda.training.predict import read_image

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


def arguments(data, *more):
    words = ["--data", str(data), "--img-size", "8", "--workers", "0", "--mean", "0", "0", "0", "--std", "1", "1", "1"]
    return config.parse([*words, "--crop-pct", "1", *map(str, more)])


def noise(seed: int) -> Image.Image:
    return Image.fromarray(numpy.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=numpy.uint8))


def put(path, seed: int = 0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise(seed).save(path)


def evaluated(given, split="validation", class_names=(), batch_size=4):
    """Images and labels of a split, in evaluation."""
    opened = open_split(given, split, list(class_names), False, batch_size)
    batches = list(eval_loader(given, opened, batch_size, CPU))
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches]).tolist()


def test_labels_are_those_of_the_class_folders(tmp_path):
    found = [
        "ant/0.png", "ant/day1/1.jpg", "ant/day1/bee/2.WEBP", "bee/3.tif", "bee/4.gif", "bee/ant/5.bmp", "cat.v2/6.jp2",
        "[red]/7.ppm",
    ]  # fmt: skip
    ignored = [
        ".ipynb_checkpoints/0.png", "ant/.ipynb_checkpoints/0.png", "ant/.hidden.png", "bee/day1/.cache/x/0.png", "stray.png",
    ]  # fmt: skip
    for name in (*found, *ignored):
        put(tmp_path / name)
    for name in ("ant/notes.txt", "ant/Thumbs.db", "bee/film.mpg", "README.md", "bee/png"):
        (tmp_path / name).write_text("not an image")
    reader = FolderReader(tmp_path, "training")
    assert reader.class_to_idx == {"[red]": 0, "ant": 1, "bee": 2, "cat.v2": 3}
    labels = {reader.filename(index): reader[index][1] for index in range(len(reader))}
    assert labels == {name: reader.class_to_idx[name.partition("/")[0]] for name in found}


def test_a_hidden_folder_above_the_data_hides_nothing(tmp_path):
    put(tmp_path / ".cache" / "data" / "ant" / "0.png")
    assert len(FolderReader(tmp_path / ".cache" / "data", "training")) == 1


def test_classes_are_in_natural_order(tmp_path):
    for name in ("10", "9", "2b", "2a"):
        put(tmp_path / name / "0.png")
    assert list(FolderReader(tmp_path, "training").class_to_idx) == ["2a", "2b", "9", "10"]


def test_classes_without_images_are_named(tmp_path):
    put(tmp_path / "ant" / "0.png")
    (tmp_path / "bee").mkdir()
    put(tmp_path / "cat" / ".hidden" / "0.png")
    with pytest.raises(TrainingError, match="has no images for the classes bee, cat$"):
        FolderReader(tmp_path, "training")


def test_labels_of_another_split_are_matched_by_name(tmp_path):
    for name in ("9", "10"):
        put(tmp_path / "validation" / name / "0.png")
    assert evaluated(arguments(tmp_path), class_names=["2", "9", "10"])[1] == [2, 1]
    with pytest.raises(TrainingError, match="has classes that the model was not trained with: 10, 9$"):
        evaluated(arguments(tmp_path), class_names=["2", "3"])


@pytest.mark.parametrize(
    "count, message", [(2, "--num-classes 2 is less than the number of classes of .*train, which is 3"), (5, None)]
)
def test_num_classes_is_compared_with_the_folders(tmp_path, count, message):
    for name in "abc":
        put(tmp_path / "train" / name / "0.png")
    given = arguments(tmp_path, "--num-classes", count)
    if message is None:
        assert open_split(given, "train", [], True, 1).num_classes == 5
        return
    with pytest.raises(TrainingError, match=message):
        open_split(given, "train", [], True, 1)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--dataset", "wds"], "unknown --dataset 'wds': it must be empty, digits, or begin with wds/, hfds/, hfids/, torch/"),
        (["--dataset", "tfds/mnist"], "unknown --dataset 'tfds/mnist'"),
        (["--dataset", "torch/folder"], "--dataset torch/folder is not supported"),
        (["--dataset", "torch/nonsense"], "cannot open the dataset torch/nonsense, split 'train'"),
        (["--dataset", "torch/cifar10"], "cannot open the dataset torch/cifar10, split 'train': Dataset not found"),
        (["--dataset", "wds/"], "cannot open the dataset wds/, split 'train': split train not found"),
        (["--train-split", "test"], "has no folder for the split 'test': name another split; there are train"),
    ],
)
def test_datasets_that_cannot_be_opened(tmp_path, options, message):
    put(tmp_path / "train" / "a" / "0.png")
    given = arguments(tmp_path, *options)
    with pytest.raises(TrainingError, match=message) as raised:
        open_split(given, given.train_split, [], True, 1)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("dataset", ["", "wds/", "torch/mnist"])
def test_missing_data_is_reported(tmp_path, dataset):
    given = arguments(tmp_path / "nowhere", "--dataset", dataset)
    with pytest.raises(TrainingError, match="nowhere is not a folder|cannot open the dataset"):
        open_split(given, "train", [], True, 1)
    given.data = None
    with pytest.raises(TrainingError, match="^no data: "):
        open_split(given, "train", [], True, 1)


def awkward(folder) -> dict[str, int]:
    """Images that decoders treat differently, 8x8 pixels, in two classes: label by path."""
    exif = Image.Exif()
    exif[0x0112] = 6
    (folder / "a").mkdir(parents=True)
    (folder / "b").mkdir()
    noise(0).save(folder / "a" / "0-turned.jpg", exif=exif)
    clear = noise(1)
    clear.putalpha(Image.linear_gradient("L").resize((8, 8)))
    clear.save(folder / "a" / "1-clear.png")
    Image.fromarray(numpy.linspace(0, 65535, 64).reshape(8, 8).astype(numpy.uint16)).save(folder / "a" / "2-gray.png")
    noise(2).convert("P").save(folder / "b" / "3-palette.png", transparency=3)
    noise(3).convert("CMYK").save(folder / "b" / "4-print.jpg")
    noise(4).save(folder / "b" / "5-lossless.webp", lossless=True)
    return {str(path): int(path.parent.name == "b") for path in sorted(folder.glob("*/*"))}


def write_shards(folder, samples: list[dict], split="validation", shards=1):
    """``samples``: entries by extension."""
    lengths = []
    for shard in range(shards):
        part = samples[shard::shards]
        lengths.append(len(part))
        with webdataset.TarWriter(str(folder / f"{split}-{shard}.tar")) as tar:
            for number, sample in enumerate(part):
                tar.write({"__key__": f"{shard}{number:03}", **sample})
    path = folder / "_info.json"
    info = json.loads(path.read_text()) if path.exists() else {"splits": {}}
    names = [f"{split}-{shard}.tar" for shard in range(shards)]
    info["splits"][split] = {"name": split, "filenames": names, "shard_lengths": lengths, "num_samples": sum(lengths)}
    path.write_text(json.dumps(info))


@pytest.mark.parametrize("dataset", ["", "wds/", "hfds/", "hfids/"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_all_datasets_decode_as_prediction_does(tmp_path, monkeypatch, dataset):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    data = tmp_path / "data"
    labels = awkward(data / "validation")
    description = Description("", {}, 2, ["a", "b"], 8, [0.0] * 3, [1.0] * 3, "bicubic", 1.0)
    expected = torch.stack([read_image(path, description) for path in map(Path, labels)])
    given = arguments(data, "--num-classes", 2)
    if dataset == "wds/":
        given.data, given.dataset = str(tmp_path), dataset
        write_shards(
            tmp_path, [{path.rpartition(".")[2]: open(path, "rb").read(), "cls": str(label)} for path, label in labels.items()]
        )
    elif dataset:
        given.data, given.dataset = str(tmp_path / "cache"), dataset + str(data)
        if dataset == "hfids/":
            from timm.data.readers.reader_hfids import ReaderHfids

            known = ReaderHfids.__init__
            monkeypatch.setattr(ReaderHfids, "__init__", lambda self, *args, **kwargs: known(self, *args, num_samples=6, **kwargs))
    images, found = evaluated(given, class_names=["a", "b"])
    assert found == list(labels.values())
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)


def write_mnist(folder, labels):
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train", "t10k"):
        pixels = numpy.stack([numpy.full((28, 28), 20 * label, numpy.uint8) for label in labels])
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, len(labels), 28, 28) + pixels.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, len(labels)) + bytes(labels))


def test_torchvision_dataset(tmp_path):
    write_mnist(tmp_path, [3, 1, 4])
    given = arguments(tmp_path, "--dataset", "torch/mnist")
    opened = open_split(given, "train", [], True, 1)
    assert opened.class_names[3] == "3 - three" and opened.num_classes == 10 and opened.size == 3
    images, labels = evaluated(given)
    assert labels == [3, 1, 4]
    assert [round(value * 255) for value in images[:, 0, 0, 0].tolist()] == [60, 20, 80]
    write_mnist(tmp_path / "wrong", [3, 11, 4])
    given.data = str(tmp_path / "wrong")
    with pytest.raises(UnreadableImageError, match="the image number 1: its label is 11, but must be an integer from 0 to 9"):
        evaluated(given)


def shard_samples(count: int) -> list[dict]:
    """PNG images of one color, which is their number."""
    samples = []
    for number in range(count):
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (number, 0, 0)).save(file, "PNG")
        samples.append({"png": file.getvalue(), "cls": str(number % 2)})
    return samples


def numbers(batches) -> list[int]:
    return [round(value) for images, _ in batches for value in (images[:, 0, 4, 4] * 255).tolist()]


@pytest.mark.parametrize("workers, shards", [(0, 1), (0, 3), (2, 1), (2, 4)])
def test_shards_are_read_by_any_number_of_workers(tmp_path, workers, shards):
    samples = shard_samples(13)
    write_shards(tmp_path, samples, shards=shards)
    write_shards(tmp_path, samples, "train", shards=shards)
    given = arguments(tmp_path, "--dataset", "wds/", "--num-classes", 2, "--workers", workers, "--scale", 1, 1, "--ratio", 1, 1)
    opened = open_split(given, "validation", [], False, 2)
    assert opened.size == 13
    assert sorted(numbers(eval_loader(given, opened, 2, CPU))) == list(range(13))
    loader = train_loader(given, open_split(given, "train", [], True, 2), 2, CPU)
    found = numbers(loader)
    assert len(found) == 2 * len(loader) >= 13
    assert set(found) == set(range(13))


@pytest.mark.parametrize("shards", [1, 4])
def test_two_processes_evaluate_each_image_of_the_shards_once(tmp_path, shards):
    write_shards(tmp_path, shard_samples(13), shards=shards)
    found = []
    for rank in range(2):
        given = arguments(tmp_path, "--dataset", "wds/", "--num-classes", 2, "--workers", 2)
        opened = open_split(given, "validation", [], False, 2)
        opened.dataset.reader.dist_rank, opened.dataset.reader.dist_num_replicas = rank, 2
        part = numbers(eval_loader(given, opened, 2, CPU))
        assert len(part) in (6, 7)
        found += part
    assert sorted(found) == list(range(13))


def test_order_of_shards_depends_on_the_epoch_alone(tmp_path):
    write_shards(tmp_path, shard_samples(16), "train", shards=4)
    given = arguments(tmp_path, "--dataset", "wds/", "--num-classes", 2, "--scale", 1, 1, "--ratio", 1, 1)
    orders = []
    for epochs in ((0, 1), (1,)):
        loader = train_loader(given, open_split(given, "train", [], True, 4), 4, CPU)
        for epoch in epochs:
            loader.dataset.set_epoch(epoch)
            orders.append(numbers(loader))
    assert orders[0] != orders[1] == orders[2]


BAD_SAMPLES = {
    "no image": ({"png": b"nothing"}, "cannot read the image 0001 in .*validation-0.tar: it has no format that Pillow reads"),
    "image missing": ({"png": None, "txt": b"x"}, "it must have an image and an integer cls, and has cls, txt"),
    "label missing": ({"cls": None}, "it must have an image and an integer cls, and has png"),
    "label not a number": ({"cls": "ant"}, "it must have an image and an integer cls"),
    "label out of range": ({"cls": "2"}, "0001 in .*validation-0.tar: its label is 2, but must be an integer from 0 to 1"),
    "negative label": ({"cls": "-1"}, "its label is -1, but must be an integer from 0 to 1"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_SAMPLES)
def test_bad_samples_of_shards_are_named(tmp_path, kind):
    change, message = BAD_SAMPLES[kind]
    samples = shard_samples(4)
    samples[1] = {key: value for key, value in {**samples[1], **change}.items() if value is not None}
    write_shards(tmp_path, samples)
    with pytest.raises(UnreadableImageError, match=message):
        evaluated(arguments(tmp_path, "--dataset", "wds/", "--num-classes", 2))


def test_shard_that_is_missing_or_cut(tmp_path):
    write_shards(tmp_path, shard_samples(4))
    given = arguments(tmp_path, "--dataset", "wds/", "--num-classes", 2)
    shard = tmp_path / "validation-0.tar"
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(TrainingError, match="^cannot read the dataset: .*unexpected end of data.*validation-0.tar"):
        evaluated(given)
    shard.unlink()
    with pytest.raises(TrainingError, match="^no shard .*validation-0.tar"):
        evaluated(given)


def test_streams_do_not_repeat_augmentation(tmp_path):
    write_shards(tmp_path, shard_samples(4), "train")
    given = arguments(tmp_path, "--dataset", "wds/", "--num-classes", 2, "--aug-repeats", 3)
    with pytest.raises(TrainingError, match="--aug-repeats does not support streams of images such as wds/"):
        train_loader(given, open_split(given, "train", [], True, 2), 2, CPU)


def test_labels_of_hugging_face_datasets_are_matched_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    for name in ("ant", "bee"):
        put(tmp_path / "data" / "validation" / name / "0.png")
    given = arguments(tmp_path / "cache", "--dataset", f"hfds/{tmp_path / 'data'}")
    assert evaluated(given, class_names=["cat", "bee", "ant"])[1] == [2, 1]
    with pytest.raises(TrainingError, match="of hfds/.* has classes that the model was not trained with: ant"):
        evaluated(given, class_names=["bee", "cat"])
    with pytest.raises(TrainingError, match="cannot open the dataset hfds/.*, split 'test': "):
        evaluated(given, "test")
