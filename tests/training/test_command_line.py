"""What users of ``s2mlp train``, ``eval``, ``predict``, ``explain`` and ``export`` may get wrong: one sentence, no traceback."""

import io
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.optim import create_optimizer_v2, list_optimizers
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from s2mlp_cuda import cli
from s2mlp_cuda.training import checkpoint, config, weights
from s2mlp_cuda.training.checks import check_optimizer
from s2mlp_cuda.training.description import Description, build
from s2mlp_cuda.training.errors import TrainingError
from s2mlp_cuda.training.ranges import integer, real
from s2mlp_cuda.training.run import _FULL_STATE, train

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = [
    "--model-kwargs", "patch_sizes=(4,2)", "embed_dims=(8,16)", "depths=(1,1)", "--img-size", "32", "--workers", "0",
    "--batch-size", "4", "--epochs", "1", "--no-tensorboard", "--device", "cpu", "--model-ema-decay", "0.5",
]  # fmt: skip


def image(seed: int) -> Image.Image:
    return Image.fromarray(numpy.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=numpy.uint8))


def image_folder(root: Path, classes=("[red]", "bee")) -> Path:
    for split in ("train", "val"):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for number in range(2):
                image(number).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return image_folder(tmp_path_factory.mktemp("data") / "data")


@pytest.fixture(scope="module")
def run(one_thread, data, tmp_path_factory) -> Path:
    """The output folder of a run of one epoch."""
    output = tmp_path_factory.mktemp("run") / "out[nm]:smile:"
    train(config.parse(["--data", str(data), "--output", str(output), *TINY]))
    return output


@pytest.fixture
def refused(capsys):
    """Runs a command that must fail with one sentence; returns the sentence."""

    def check(*words, status=1) -> str:
        capsys.readouterr()
        try:
            found = cli.main([str(word) for word in words])
        except SystemExit as error:  # of argparse
            found = error.code
        error = capsys.readouterr().err
        assert found == status, (words, error)
        assert re.fullmatch("s2mlp( [a-z]+)?: .+\n", error), error
        return error

    return check


@pytest.mark.parametrize(
    "option, values",
    {
        "--num-classes": "0 -1 x 1.5", "--workers": "-1 x 1025",
        "--img-size": "0 -8 x 30.5", "--std": ["0 1 1", "1 nan 1", "1 1 -1"],
        "--mean": ["inf 0 0", "x 0 0", "0 0"], "--interpolation": "nonsense random", "--train-interpolation": "nonsense",
        "--crop-pct": "0 0.01 -1 1.1 nan", "--scale": ["0 1", "0.5 1.5", "0.5 nan"], "--ratio": ["0 1", "-1 1", "1 inf", "1 101"],
        "--hflip": "-0.1 1.1 nan", "--color-jitter": "-1 nan inf 11", "--aug-repeats": "-1", "--reprob": "2", "--remode": "x",
        "--recount": "0", "--mixup": "-1 nan", "--cutmix": "-1 inf", "--mixup-prob": "1.5", "--mixup-switch-prob": "-1",
        "--mixup-off-epoch": "-1", "--smoothing": "1 1.5 -0.1 nan", "--epochs": "0 -1 1e3 nan 2147483648", "--batch-size": "0 -4",
        "--grad-accum-steps": "0", "--lr": "-1 nan inf x", "--weight-decay": "-1 nan", "--sched": "step", "--min-lr": "-1",
        "--warmup-epochs": "-1 nan", "--warmup-lr": "-1", "--clip-grad": "-1 nan", "--model-ema-decay": "1 -1 nan",
        "--drop-path": "1 -0.1 nan", "--seed": "-1 x 1e99 99999999999999999999", "--keep": "0", "--log-interval": "0 -1",
        "--parallel": "x", "--model-kwargs": "depth 3=4", "--nonsense": "1",
    }.items(),
)  # fmt: skip
def test_options_out_of_range_are_named(refused, option, values):
    for value in values.split() if isinstance(values, str) else values:
        assert option in refused("train", option, *value.split(), status=2), value


@pytest.mark.parametrize(
    "words, option",
    [
        (["eval", "--batch-size", "0"], "--batch-size"), (["eval", "--workers", "-1"], "--workers"),
        (["explain", "x.png", "--block", "0"], "--block"), (["ablate", "--data", "x", "--seeds", "0"], "--seeds"),
        (["export", "--format", "tflite"], "--format"), (["predict"], "IMAGE"), (["bench", "--threads", "0"], "--threads"),
        (["bench", "--threads", "1025"], "--threads"),
        (["eval", "--batch-size", "9" * 20], "--batch-size"),
        (["demonstrate"], "demonstrate"),
    ],
)  # fmt: skip
def test_options_of_other_commands(refused, words, option):
    weights = ["--weights", "x"] if words[0] in ("eval", "explain", "export", "predict") else []
    assert option in refused(*words, *weights, status=2)


def test_ranges_include_their_ends():
    assert [integer(0, 3)(text) for text in ("0", "3")] == [0, 3]
    assert [real(0, 1)(text) for text in ("0", "1", "1e-3")] == [0, 1, 1e-3]
    for kind, text in ((real(0, 1, above=True), "0"), (real(0, 1, below=True), "1"), (integer(0, 3), "4"), (real(), "-inf")):
        with pytest.raises(Exception, match=f"must be a.* got '{text}'"):
            kind(text)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--img-size", 30], "the model fails on one image of 30x30: ValueError: the input is 30x30"),
        (["--img-size", 10**9], "--img-size must be at most 8192 times --crop-pct, got 1000000000 and 0.9"),
        (["--sched", "wsd"], "--sched wsd cannot be used for --epochs 1 .wsd schedule requires"),
        (["--output", ""], "--output must be the name of a folder"),
        (["--train-split", ""], "has no folder for the split ''"),
        (["--opt", "nonsense"], "--opt 'nonsense' cannot be used "),
        (["--opt", "adahessian"], "--opt 'adahessian' cannot be used "),
        (["--aa", "nonsense"], "--aa 'nonsense' is not an augmentation policy"),
        (["--aa", "rand-x9"], "--aa 'rand-x9' is not an augmentation policy"),
        (["--img-size", 4100, "--crop-pct", 0.5], "--img-size must be at most 8192 times --crop-pct, got 4100 and 0.5"),
        (["--scale", 1, 0.5], "--scale must be two numbers in increasing order"),
        (["--ratio", 2, 0.5], "--ratio must be two numbers in increasing order"),
        (["--mixup", "1e-320"], "--mixup must be 0 or at least 1e-06"),
        (["--cutmix", "1e-9"], "--cutmix must be 0 or at least 1e-06"),
        (["--val-split", "../val"], "has no folder for the split '../val'"),
        (["--train-split", "/"], "has no folder for the split '/'"),
        (["--device", "mps"], "--device must be auto, cpu, cuda or cuda:N, got 'mps'"),
        (["--device", "cuda:x"], "--device must be"),
        (["--model-kwargs", "num_classes=3"], "cannot build s2mlpv2_small_7 .* 'num_classes'"),
        (["--model-kwargs", "name=3"], "cannot build s2mlpv2_small_7 "),
        (["--model-kwargs", "depths=(0,)"], "cannot build s2mlpv2_small_7 "),
        (["--model-kwargs", "in_chans=1", "patch_sizes=(4,2)"], "the model fails on one image of 32x32: RuntimeError: "),
        (["--model-kwargs", "features_only=True"], "cannot build s2mlpv2_small_7 with 'features_only': only arguments of S2MLPv2"),
        (["--model-kwargs", "global_pool=", "patch_sizes=(4,2)"], "must return logits of shape .1, 2. for one image, got shape"),
        (["--model-kwargs", "drop_path_rate=0.1", "--drop-path", "0.1"], "--drop-path and drop_path_rate in --model-kwargs"),
        (["--model", "s2mlp_huge"], "cannot build s2mlp_huge: it is not a registered model"),
        (["--model", "hf-hub:someone/model"], "cannot build hf-hub:someone/model: it is not a registered model"),
        (["--model", "resmlp_12_224", "--model-kwargs", "img_size=16"], "the model fails on one image of 32x32: AssertionError"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_named_before_training(refused, data, tmp_path, options, message):
    assert re.search(message, refused("train", "--data", data, "--output", tmp_path / "run", *TINY, *options))
    assert not (tmp_path / "run").exists()


def test_wrong_arguments_of_a_model_leave_no_images(refused, tmp_path):
    """The images of the recipe digits are written after the model was checked."""
    for words in (["--model", "s2mlpv2_smal_7"], ["--model-kwargs", "branches=[[1, 0]]"], ["--model-kwargs", "branch=[]"]):
        assert "cannot build s2mlpv2_smal" in refused("train", "--recipe", "digits", "--output", tmp_path / "run", *words)
        assert not (tmp_path / "run").exists()


def test_the_help_that_an_error_names_is_that_of_the_command(refused):
    assert refused("train", "--fusion", "max", status=2).endswith(" train --help\n")
    assert not refused("--fusion", "train", status=2).endswith(" train --help\n")


def test_digits_of_eval_need_a_folder(refused, run):
    error = refused("eval", "--dataset", "digits", "--weights", run / "last.safetensors")
    assert f"--dataset digits needs --data: train wrote the images to the folder digits in --output, as {run / 'digits'}\n" in error


def test_optimizers_of_the_recipes_are_accepted():
    for path in config.RECIPES.glob("*.yaml"):
        check_optimizer(config.parse(["--recipe", str(path)]), torch.device("cpu"))


def one_step(name: str) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 2), torch.nn.Flatten(), torch.nn.LayerNorm(6), torch.nn.Linear(6, 5))
    optimizer = create_optimizer_v2(model, name, 1e-3, 0.05)
    another_step(model, optimizer)
    return model, optimizer


def another_step(model, optimizer) -> None:
    optimizer.zero_grad()
    model(torch.linspace(-1, 1, 24).reshape(2, 3, 2, 2)).square().sum().backward()
    optimizer.step()


@torch.compiler.set_stance("force_eager")
def test_every_optimizer_of_timm_resumes_or_is_refused(tmp_path):
    """With the state that a run saves, in the file that it saves. Resumed and uninterrupted weights are bitwise identical."""
    accepted = []
    for name in list_optimizers():
        try:
            check_optimizer(config.parse(["--opt", name]), torch.device("cpu"))
        except TrainingError as error:
            assert re.fullmatch(rf"--opt '{name}' cannot be used.* \(.+\); see timm.optim.list_optimizers\(\)", str(error)), error
            continue
        accepted.append(name)
        whole, optimizer = one_step(name)
        model_state, optimizer_state = get_state_dict(whole, optimizer, options=_FULL_STATE)
        path = checkpoint.save(tmp_path, 1, {"model": model_state, "optimizer": optimizer_state}, 1)
        another_step(whole, optimizer)
        state = checkpoint.load(path)
        resumed, optimizer = one_step(name)
        assert not checkpoint.different_optimizer(state["optimizer"], get_state_dict(resumed, optimizer)[1]), name
        set_state_dict(resumed, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        another_step(resumed, optimizer)
        assert all(map(torch.equal, resumed.state_dict().values(), whole.state_dict().values())), name
    assert {"adamw", "sgd", "lamb", "muon", "kron"} & set(list_optimizers()) <= set(accepted)
    assert not {"adafactorbv", "adahessian"} & set(accepted)


@pytest.mark.parametrize(
    "text, message",
    [
        (b"epochs: 1\nmodel_kwargs:\n\tdepths: [1]\n", "line 3: not YAML"),
        (b"mean: [0.1\nepochs: 1\n", "line 2: not YAML"),
        (b"epochs: 1\n# caf\xe9\n", "line 2: byte 0xe9 is not UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0", "line 1: byte 0x89 is not UTF-8"),
        (b"epochs: 1 # \x07\n", "not YAML"),
        (b"seed: 2020-13-45\n", "not YAML"),
        (b"model_kwargs: [depth=3]\n", "model_kwargs must be a mapping"),
        (b"model_kwargs: depth=3\n", "model_kwargs must be a mapping"),
        (b"1: 2\n", "unknown argument 1"),
        (b"just text", "a recipe must be a mapping"),
    ],
)
def test_recipe_that_is_no_recipe(refused, tmp_path, text, message):
    path = tmp_path / "[my] recipe.yaml"
    path.write_bytes(text)
    error = refused("train", "--recipe", path)
    assert str(path) in error and message in error


@pytest.mark.parametrize("text", ["epochs: 0", "epochs: [1, 2]", "epochs: {a: 1}", "lr: .nan", "scale: 3", "seed: x"])
def test_recipe_with_values_out_of_range(refused, tmp_path, text):
    (tmp_path / "recipe.yaml").write_text(text)
    refused("train", "--recipe", tmp_path / "recipe.yaml", status=2)


def foreign_names(run, folder) -> Path:
    """Weights with a class name that is neither ASCII nor Latin-1."""
    tensors, description = weights.read(run / "last.safetensors")
    path = folder / "foreign.safetensors"
    weights.save(path, tensors, Description(**{**vars(description), "class_names": ["日本", "bee"]}))
    return path


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_terminals_that_are_not_utf8(tmp_path, run, data, monkeypatch, encoding):
    """Classes are printed in characters that the terminal has."""
    output = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", output)
    words = ["predict", str(data / "val" / "bee" / "0.png"), "--weights", str(foreign_names(run, tmp_path))]
    assert cli.main(words) == 0
    output.flush()
    text = output.buffer.getvalue().decode(encoding)
    assert "\\u65e5\\u672c" in text and "bee" in text and "####" in text


def test_recipes_are_utf8_in_any_locale(tmp_path):
    (tmp_path / "recipe.yaml").write_text("val_split: café # 日本\n", encoding="utf-8")
    code = "import sys; from s2mlp_cuda.training import config; print(ascii(config.parse(['--recipe', sys.argv[1]]).val_split))"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", code, str(tmp_path / "recipe.yaml")]
    assert subprocess.run(command, env=environment, capture_output=True, text=True).stdout == "'caf\\xe9'\n"


def test_recipe_with_a_byte_order_mark(tmp_path):
    (tmp_path / "recipe.yaml").write_bytes(b"\xef\xbb\xbflr: 0.25\n")
    assert config.parse(["--recipe", str(tmp_path / "recipe.yaml")]).lr == 0.25


def test_names_are_printed_as_they_are(run, data, tmp_path, capsys):
    photo = tmp_path / "a folder with a name that is longer than a line of the terminal has columns" / "ph[bold]oto:smile:.png"
    photo.parent.mkdir()
    image(0).save(photo)
    assert cli.main(["predict", str(photo), "--weights", str(run / "last.safetensors")]) == 0
    out = capsys.readouterr().out
    assert f"{photo}\n" in out and "[red]" in out
    output = tmp_path / "out[nm]:smile:"
    assert cli.main(["train", "--data", str(data), "--output", str(output), *TINY]) == 0
    assert f"{output}: last.safetensors" in capsys.readouterr().out


ESCAPES = "\x1b[31mred\a\r\n\u202e\x9b2J"
ESCAPED = "\\x1b[31mred\\x07\\r\\n\\u202e\\x9b2J"


def test_control_characters_are_escaped_in_every_name(tmp_path, capsys):
    """A name of a file or a class, or a word of the command line, cannot control the terminal."""
    root = tmp_path / ESCAPES
    mine, output = image_folder(root / "data", (ESCAPES, "bee")), root / "run"
    photo, weights_file = mine / "val" / "bee" / "0.png", output / "last.safetensors"
    (root / "bad.png").write_bytes(b"nothing")
    train_words = ["train", "--data", mine, "--output", output, *TINY]
    for words, status, times in (
        (train_words, 0, 1),
        (train_words, 1, 1),
        (["eval", "--data", root / "none", "--weights", weights_file], 1, 1),
        (["predict", photo, root / "bad.png", "--weights", weights_file], 1, 3),
        (["explain", photo, "--weights", weights_file, "--out", root / "explained"], 0, 3),
        (["export", "--format", "pt2", "--weights", weights_file], 0, 1),
        (["export", "--format", "pt2", "--weights", weights_file, "--out", root], 1, 1),
        (["predict", photo, "--weights", root / "none"], 1, 1),
        (["train", "--data", mine, "--output", root / "bad.png"], 1, 1),
        (["bench", "--only", ESCAPES, "--out", root / "bench"], 2, 1),
        (["bench", "--compare", root / "none", root / "none"], 2, 1),
    ):
        capsys.readouterr()
        assert cli.main(list(map(str, words))) == status, (words, capsys.readouterr().err)
        found = "".join(capsys.readouterr())
        assert found.count(ESCAPED) >= times, (words, found)
        assert found.replace("\n", "").isprintable(), (words, found)


def test_control_characters_in_options(refused):
    assert ESCAPED in refused("eval", f"--{ESCAPES}", "--weights", "w", status=2)


MARKUP = "x[/old][bold]:smile:$a_b$%s{0}"


def test_markup_in_every_name(tmp_path, capsys):
    """Nothing is interpreted: not as markup of rich, nor as an emoji, a formula of matplotlib or a format."""
    root = tmp_path / MARKUP
    classes = ["[old]$a_b$:smile:", "\u00b2", "[", "10", "9", "\\[red]", os.fsdecode(b"\xff")]
    data, output = image_folder(root / "data", classes), root / "run"
    train_words = ["train", "--data", data, "--output", output, *TINY, "--model-ema-decay", "0.5"]
    photo, weights_file = data / "val" / "[" / "0.png", output / "last.safetensors"
    for words, lines in (
        (train_words, [f"{output}: last.safetensors"]),
        ([*train_words, "--resume", "auto"], [f"{output}: last.safetensors"]),
        (["predict", photo, "--weights", weights_file], [f"{photo}\n"]),
        (["eval", "--data", data, "--weights", weights_file, "--workers", 0], ["14 images"]),
        (["explain", photo, "--weights", weights_file, "--out", root / "explained"], [f"{root}/explained/shifted_groups.png\n"]),
        (["export", "--format", "pt2", "--weights", weights_file], [f"{output}/last.pt2; its output differs"]),
    ):  # fmt: skip
        capsys.readouterr()
        assert cli.main(list(map(str, words))) == 0, (words, capsys.readouterr().err)
        out = capsys.readouterr().out
        assert all(line in out for line in lines), (words, out)
    names = weights.read(weights_file)[1].class_names
    assert names == sorted(classes, key=lambda name: (int(name) if name.isdecimal() else 99, name.lower()))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_predictions_that_are_no_numbers(run, data, tmp_path, capsys, value):
    tensors, description = weights.read(run / "last.safetensors")
    tensors["head.bias"][:] = value
    weights.save(tmp_path / "w.safetensors", tensors, description)
    photo = data / "val" / "bee" / "0.png"
    assert cli.main(["predict", str(photo), "--weights", str(tmp_path / "w.safetensors")]) == 1
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err == f"s2mlp: the model gives no probabilities for {photo}: its output has NaN or infinite values\n"
    words = ["explain", str(photo), "--weights", str(tmp_path / "w.safetensors"), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 1
    assert capsys.readouterr().err == "s2mlp: the model cannot be explained: its output has NaN or infinite values\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers(refused, run, data, tmp_path, value):
    tensors, description = weights.read(run / "last.safetensors")
    path = tmp_path / "w.safetensors"
    tensors["head.bias"][:] = value
    weights.save(path, tensors, description)
    values = "the model's output has NaN or infinite values\n"
    assert refused("eval", "--data", data, "--weights", path, "--workers", 0) == f"s2mlp: the loss of {path} is nan: {values}"
    for format in ("onnx", "pt2"):
        assert refused("export", "--format", format, "--weights", path) == f"s2mlp: cannot export {path}: {values}"
    assert list(tmp_path.iterdir()) == [path]
    assert refused("train", "--data", data, "--output", tmp_path / "new", *TINY, "--weights", path) == (
        "s2mlp: the output of the model has NaN or infinite values before training: check its initial weights\n"
    )


def test_predictions_into_a_closed_pipe(run, data, monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(SystemExit, match="1"):
            cli.main(["predict", *[str(data / "val" / "bee" / "0.png")] * 3, "--weights", str(run / "last.safetensors")])
        monkeypatch.undo()
    assert capsys.readouterr().err == ""


def test_one_bad_image_does_not_cost_the_others(run, data, tmp_path, capsys):
    (tmp_path / "bad[1].jpg").write_bytes(b"nothing")
    photos = [data / "val" / "bee" / "0.png", tmp_path / "bad[1].jpg", tmp_path / "missing.png", data / "val" / "bee" / "1.png"]
    assert cli.main(["predict", *map(str, photos), "--weights", str(run / "last.safetensors")]) == 1
    found = capsys.readouterr()
    assert found.out.count("%") == 4 and str(photos[3]) in found.out
    assert found.err == (
        f"s2mlp: cannot read the image {photos[1]}: it has no format that Pillow reads\n"
        f"s2mlp: cannot read the image {photos[2]}: No such file or directory\n"
    )


def test_classes_beyond_the_names_are_numbered(data, tmp_path, capsys):
    output = tmp_path / "run"
    assert cli.main(["train", "--data", str(data), "--output", str(output), *TINY, "--num-classes", "6"]) == 0
    capsys.readouterr()
    assert cli.main(["predict", str(data / "val" / "bee" / "0.png"), "--weights", str(output / "last.safetensors")]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = {line.partition("  ")[0].strip() for line in lines if "%" in line}
    assert len(names) == 5 and names <= {"[red]", "bee", "class 2", "class 3", "class 4", "class 5"}


def test_bad_images_are_found_before_training(refused, data, tmp_path, monkeypatch):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    large = copy / "val" / "bee" / "scan.png"
    Image.new("L", (80, 50)).save(large)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1600)  # more than twice as many are an error
    monkeypatch.setattr("s2mlp_cuda.training.run._Run.all_epochs", lambda self: pytest.fail("training has begun"))
    error = refused("train", "--data", copy, "--output", tmp_path / "run", *TINY)
    assert f"cannot read the image {large}: Image size (4000 pixels) exceeds limit" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["file", "file/run", "/sys/run", "/proc/run"])
def test_outputs_that_cannot_be_written(refused, run, data, tmp_path, place):
    (tmp_path / "file").write_text("x")
    path = tmp_path / place
    trained = ["--weights", run / "last.safetensors"]
    photo = data / "val" / "bee" / "0.png"
    for words in (
        ["train", "--data", data, *TINY, "--output", path], ["explain", photo, *trained, "--out", path],
        ["ablate", "--data", data, "--out", path], ["demo", "--out", path], ["bench", "--out", path],
    ):  # fmt: skip
        assert f"cannot write to the folder {path}: " in refused(*words), words
    if place != "file":
        export = ["export", "--format", "onnx", *trained, "--out", path / "m.onnx"]
        assert f"cannot write {path / 'm.onnx'}: there is no folder" in refused(*export)


def test_exports_that_cannot_be_written(refused, run, tmp_path):
    command = ["export", "--format", "pt2", "--weights", run / "last.safetensors", "--out"]
    assert "it is a folder" in refused(*command, tmp_path)
    assert "cannot write to the folder /proc: " in refused(*command, "/proc/m.pt2")
    assert "cannot write /dev/null: it is not a regular file" in refused(*command, "/dev/null")
    for weights_file in ("", "/"):
        assert "no weights" in refused("export", "--format", "pt2", "--weights", weights_file)


def test_file_in_the_output_that_cannot_be_replaced(refused, data, tmp_path):
    (tmp_path / "run" / "config.yaml" / "x").mkdir(parents=True)
    assert "config.yaml" in refused("train", "--data", data, "--output", tmp_path / "run", *TINY)


@pytest.fixture
def resumed(run, data, tmp_path):
    """A copy of the run, and words that train it for one epoch more."""
    shutil.copytree(run, tmp_path / "run")
    state = checkpoint.load(checkpoint.list_checkpoints(run)[0])
    state["arguments"]["epochs"] = 2
    checkpoint.save(tmp_path / "run", 1, state, 1)
    return tmp_path / "run", ["train", "--output", tmp_path / "run", *TINY, "--epochs", 2]


def test_run_resumes_with_the_same_data_in_another_place(resumed, data, tmp_path, capsys):
    output, words = resumed
    shutil.copytree(data, tmp_path / "moved")
    assert cli.main(list(map(str, [*words, "--data", tmp_path / "moved", "--resume", "auto"]))) == 0
    assert "resumed after epoch 1" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["renamed class", "new class", "new image", "renamed image", "new validation image"])
def test_run_does_not_resume_with_other_data(refused, resumed, data, tmp_path, change):
    output, words = resumed
    before = (output / "last.safetensors").read_bytes()
    other = tmp_path / "data"
    shutil.copytree(data, other)
    for split in ("train", "val"):
        if change == "renamed class":
            (other / split / "bee").rename(other / split / "Zebra")
        elif change == "new class":
            shutil.copytree(other / split / "bee", other / split / "cat")
    bee = other / "train" / "bee"
    if change == "new image":
        image(9).save(bee / "9.png")
    elif change == "renamed image":
        (bee / "0.png").rename(bee / "9.png")
    elif change == "new validation image":
        image(9).save(other / "val" / "bee" / "9.png")
    error = refused(*words, "--data", other, "--resume", "auto")
    assert "the run was started with different data (" in error
    expected = {
        "renamed class": "(training data: missing classes: bee; new classes: Zebra, validation data: missing classes: bee; new",
        "new class": "training data: new classes: cat", "new image": "(training data: 4 images, now 5)",
        "renamed image": "(training data: other file names)", "new validation image": "(validation data: 4 images, now 5)",
    }  # fmt: skip
    assert expected[change] in error
    assert (output / "last.safetensors").read_bytes() == before


def test_checkpoints_of_others_are_refused(refused, resumed, data, tmp_path):
    _, words = resumed
    path = tmp_path / "other.pt"

    def check(message, file=path):
        assert message in refused(*words, "--data", data, "--resume", file, "--output", tmp_path / "other")

    for content in ({"a": 1}, torch.nn.Linear(2, 2).state_dict(), [1], torch.ones(1)):
        torch.save(content, path)
        check("other.pt) was not written by this version of s2mlp train\n")
    torch.save(torch.nn.ReLU(), path)
    check("other.pt is not a checkpoint of s2mlp train: it has objects that weights_only=True rejects")
    torch.save({"a": 1}, path, _use_new_zipfile_serialization=False)
    check("other.pt is damaged or not a checkpoint")
    path.write_bytes(b"")
    check("other.pt is damaged or not a checkpoint")
    check("no checkpoint", tmp_path)


@pytest.fixture
def refused_state(refused, resumed, data, tmp_path):
    """Saves a changed state of the run, which must not be resumed; returns the sentence after the name of the file."""
    output, words = resumed

    def check(change) -> str:
        state = checkpoint.load(checkpoint.list_checkpoints(output)[0])
        change(state)
        path = tmp_path / "changed.pt"
        torch.save(state, path)
        start = f"s2mlp: the checkpoint to resume ({path}) "
        error = refused(*words, "--data", data, "--resume", path, "--output", tmp_path / "other")
        assert error.startswith(start) and not (tmp_path / "other").exists(), error
        return error.removeprefix(start)

    return check


WEIGHT = "head.weight"


@pytest.mark.parametrize(
    "change, part",
    [
        (lambda state: state["model"].pop(WEIGHT), f"weights: {WEIGHT}"),
        (lambda state: state["model"].update(more=torch.ones(1)), "weights: more"),
        (lambda state: state["model"].update({WEIGHT: torch.ones(3, 16)}), f"weights: {WEIGHT}"),
        (lambda state: state["model"].update({WEIGHT: state["model"][WEIGHT].half()}), f"weights: {WEIGHT}"),
        (
            lambda state: state["model"].clear(),
            "weights: head.bias, head.weight, norm.bias, norm.weight, stages.0.0.projection.bias ...",
        ),
        (lambda state: state["ema"].pop(WEIGHT), f"averaged weights: {WEIGHT}"),
        (
            lambda state: state.pop("ema"),
            "averaged weights: head.bias, head.weight, norm.bias, norm.weight, stages.0.0.projection.bias ...",
        ),
        (lambda state: state["optimizer"]["state"].pop(WEIGHT), f"optimizer state: {WEIGHT}"),
        (lambda state: state["optimizer"]["state"][WEIGHT].pop("exp_avg"), f"optimizer state: {WEIGHT}"),
        (lambda state: state["optimizer"]["state"][WEIGHT].pop("step"), f"optimizer state: {WEIGHT}"),
        (lambda state: state["optimizer"]["state"][WEIGHT].update(exp_avg=torch.ones(2)), f"optimizer state: {WEIGHT}"),
        (lambda state: state["optimizer"]["state"].update(more={}), "optimizer state: more"),
        (lambda state: state["optimizer"]["param_groups"][1]["params"].remove(WEIGHT), f"optimizer state: {WEIGHT}"),
        (lambda state: state["optimizer"]["param_groups"][1].pop("betas"), f"optimizer state: {WEIGHT}, stages"),
        (lambda state: state["optimizer"]["param_groups"].reverse(), "optimizer state: head.bias, head.weight, norm.bias"),
        (lambda state: state["optimizer"]["param_groups"].pop(), f"optimizer state: {WEIGHT}, stages"),
    ],
)
def test_checkpoint_whose_tensors_do_not_fit_is_not_resumed(refused_state, change, part):
    assert refused_state(change).startswith(f"is of a different model or optimizer ({part}")


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("optimizer"),
        lambda state: state.pop("data"),
        lambda state: state["data"].pop("validation"),
        lambda state: state["data"]["training"].pop("classes"),
        lambda state: state["data"]["training"].update(classes=[["bee"]]),
        lambda state: state.update(epochs_done="1"),
        lambda state: state.update(epochs_done=2),
        lambda state: state.update(epochs_done=0, history=[]),
        lambda state: state.update(history={}),
        lambda state: state["history"][0].update(epoch=2),
        lambda state: state["history"][0].pop("val_top1"),
        lambda state: state["history"][0].update(val_top1="high"),
        lambda state: state.update(arguments=[]),
        lambda state: state.update(model=[]),
        lambda state: state["model"].update(more=1),
        lambda state: state["model"].update({1: torch.ones(1)}),
        lambda state: state["optimizer"].pop("state"),
        lambda state: state["optimizer"].pop("param_groups"),
        lambda state: state["optimizer"]["param_groups"][0].pop("params"),
        lambda state: state["optimizer"].update(state={0: {}}),
    ],
)
def test_checkpoint_of_another_kind_is_not_resumed(refused_state, change):
    assert refused_state(change) == "was not written by this version of s2mlp train\n"


def test_checkpoint_of_a_later_epoch_is_not_resumed(refused_state):
    def change(state):
        state.update(epochs_done=3, history=[{**state["history"][0], "epoch": epoch} for epoch in (1, 2, 3)])

    assert refused_state(change) == "is of epoch 3, but --epochs is 2\n"


def test_nothing_of_a_refused_checkpoint_is_loaded(resumed, data, monkeypatch):
    output, words = resumed
    state = checkpoint.load(checkpoint.list_checkpoints(output)[0])
    del state["ema"][WEIGHT]  # what is compared last but one
    checkpoint.save(output, 1, state, 1)
    monkeypatch.setattr("s2mlp_cuda.training.run.set_state_dict", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(TrainingError, match="averaged weights"):
        train(config.parse(list(map(str, [*words[1:], "--data", data, "--resume", "auto"]))))


def test_weights_of_others_are_refused(refused, run, data, tmp_path):
    path = tmp_path / "w.safetensors"
    tensors, description = weights.read(run / "last.safetensors")
    photo = data / "val" / "bee" / "0.png"

    def check(message):
        for words in (["predict", photo], ["eval", "--data", data], ["explain", photo], ["export", "--format", "pt2"]):
            assert message in refused(*words, "--weights", path)

    check("no weights")
    torch.save(tensors, path)
    check("is not a safetensors file or is damaged")
    save_file({"x": torch.ones(1)}, path)
    check("has no description of its model")
    save_file({"x": torch.ones(1)}, path, {"s2mlp_cuda": '{"model": "s2mlp_wide"}'})
    check("the description of the model")
    weights.save(path, {"x": torch.ones(1)}, description)
    check("has weights of a different model: ")
    weights.save(path, tensors, Description(**{**vars(description), "model": "nonsense"}))
    check("cannot build nonsense")
    error = refused("train", "--data", data, "--output", tmp_path / "r", *TINY, "--weights", data)
    assert error == f"s2mlp: no weights {data}: it is a folder\n"
    assert f"no weights {run}: it is a folder, which has {run / 'best.safetensors'}\n" in refused("predict", "x", "--weights", run)


def test_head_for_other_classes_is_not_loaded(run, tmp_path):
    tensors, description = weights.read(run / "last.safetensors")
    model = build(description.model, 2, **description.model_kwargs)
    torch.nn.init.zeros_(model.head.weight)
    assert weights.load_into(model, run / "last.safetensors", ["bee", "[red]"]) == ["head.bias", "head.weight"]
    assert not model.head.weight.any()
    for names in (description.class_names, []):
        assert weights.load_into(model, run / "last.safetensors", names) == []
        assert torch.equal(model.head.weight, tensors["head.weight"])


def test_checkpoints_that_cannot_be_written(refused, data, tmp_path):
    (tmp_path / "checkpoints").write_text("x")
    assert "cannot write to the folder" in refused("train", "--data", data, "--output", tmp_path, *TINY)


def test_training_data_that_ends_early_is_an_error(data, tmp_path, monkeypatch):
    """Not a loss divided by the number of batches that were expected."""
    monkeypatch.setattr("timm.data.loader.PrefetchLoader.__len__", lambda self: 7)
    with pytest.raises(TrainingError, match="the training data ended after 1 of 7 batches"):
        train(config.parse(["--data", str(data), "--output", str(tmp_path / "run"), *TINY]))
