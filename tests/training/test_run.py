"""Whole runs of ``s2mlp train`` on scikit-learn's digits: 1,797 real images of 8x8 pixels."""

import csv
import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import safetensors.torch
import torch
import webdataset
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch._dynamo.utils import counters

from s2mlp_cuda import cli
from s2mlp_cuda.layers import S2MLPv2Block
from s2mlp_cuda.models import S2MLPv2
from s2mlp_cuda.training import checkpoint, config
from s2mlp_cuda.training.data import open_split, train_loader
from s2mlp_cuda.training.digits import write_digits
from s2mlp_cuda.training.errors import TrainingError
from s2mlp_cuda.training.evaluation import evaluate_file
from s2mlp_cuda.training.processes import join, leave
from s2mlp_cuda.training.run import train

from conftest import require_device

pytestmark = pytest.mark.usefixtures("one_thread")
TIMES = {"images_per_second", "seconds", "peak_memory_mb"}
#: One block of 16 channels on 4x4 patches of 2x2 pixels.
TINY = [
    "--recipe", "digits", "--device", "cpu", "--no-tensorboard", "--batch-size", "64", "--warmup-epochs", "0",
    "--model-kwargs", "embed_dims=[16]", "depths=[1]",
]  # fmt: skip
#: All options that use random numbers, in the main process and in its workers.
RANDOM = [
    "--mixup", "0.8", "--cutmix", "1", "--aa", "rand-m9-mstd0.5-inc1", "--reprob", "0.5", "--drop-path", "0.1", "--workers", "1",
    "--model-ema-decay", "0.99",
]  # fmt: skip


@pytest.fixture(scope="module")
def digits(one_thread, tmp_path_factory) -> Path:
    """All digits as an image folder: train/ and validation/."""
    return write_digits(tmp_path_factory.mktemp("data") / "digits")


@pytest.fixture(scope="module")
def few(digits, tmp_path_factory) -> Path:
    """Thirteen images per digit and split."""
    folder = tmp_path_factory.mktemp("few")
    for split in ("train", "validation"):
        for source in (digits / split).iterdir():
            target = folder / split / source.name
            target.mkdir(parents=True)
            for path in sorted(source.iterdir())[:13]:
                (target / path.name).symlink_to(path)
    return folder


def argv(data: Path, output: Path, *more: str) -> list[str]:
    return [*TINY, "--data", str(data), "--output", str(output), *map(str, more)]


def losses(output: Path) -> list[dict[str, str]]:
    with open(output / "metrics.csv") as file:
        return [{name: value for name, value in row.items() if name not in TIMES} for row in csv.DictReader(file)]


def test_a_run_learns_and_writes_all_files(digits, tmp_path, capsys):
    output = tmp_path / "run"
    options = ["--epochs", "3", "--keep", "2", "--lr", "0.01", "--model-ema-decay", "0.5", "--model-kwargs", "embed_dims=[32]"]
    options += ["--batch-size", "16"]
    arguments = [*argv(digits, output, *options), "--tensorboard"]
    assert cli.main(["train", *arguments]) == 0
    rows = losses(output)
    assert [float(row["epoch"]) for row in rows] == [1, 2, 3]
    assert float(rows[2]["train_loss"]) < float(rows[0]["train_loss"])
    assert float(rows[2]["ema_top1"]) > 30
    assert float(rows[2]["lr"]) < float(rows[0]["lr"])
    assert {path.name for path in output.iterdir()} == {
        "checkpoints", "tensorboard", "config.yaml", "environment.json", "metrics.csv", "curves.png", "last.safetensors",
        "best.safetensors",
    }  # fmt: skip
    assert len(checkpoint.list_checkpoints(output)) == 2
    assert config.parse(["--recipe", str(output / "config.yaml")]).lr == 0.01
    assert json.loads((output / "environment.json").read_text())["torch"] == torch.__version__
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")
    events = EventAccumulator(str(output / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("val_top1")] == [89, 178, 267]
    out = capsys.readouterr().out
    assert "epoch 3 of 3: loss" in out and "images/s" in out

    assert cli.main(["train", *arguments]) == 1
    assert "already has a run: resume it with --resume auto" in capsys.readouterr().err
    assert cli.main(["train", *arguments, "--resume", "auto", "--lr", "0.5"]) == 1
    message = "different arguments (lr: 0.01, now 0.5): repeat its command, or start a new run in another --output"
    assert f"the run was started with {message}" in capsys.readouterr().err
    assert losses(output) == rows


def test_best_weights_are_those_of_the_best_epoch(few, tmp_path, monkeypatch):
    accuracies = iter([10.0, 30.0, 20.0])
    monkeypatch.setattr("s2mlp_cuda.training.run.evaluate", lambda *_: {"loss": 1.0, "top1": next(accuracies), "top5": 90.0})
    train(config.parse(argv(few, tmp_path / "run", "--epochs", "3")))
    third, second, _ = map(checkpoint.load, checkpoint.list_checkpoints(tmp_path / "run"))
    for file, state in (("best", second), ("last", third)):
        saved = safetensors.torch.load_file(tmp_path / "run" / f"{file}.safetensors")
        assert all(torch.equal(state["model"][name], tensor) for name, tensor in saved.items()), file


def test_tensorboard_has_every_epoch_once_after_a_resumed_run(few, tmp_path):
    arguments = config.parse([*argv(few, tmp_path / "run", "--epochs", "3", "--resume", "auto"), "--tensorboard"])
    train(arguments)
    for newest in checkpoint.list_checkpoints(tmp_path / "run")[:2]:
        newest.unlink()  # as if stopped after the first epoch
    time.sleep(1.1)  # event files are named and ordered by time, in seconds
    train(arguments)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("val_top1")] == [2, 4, 6]


def test_a_killed_and_resumed_run_is_reproducible(few, tmp_path):
    """Killed with SIGKILL in the second epoch, resumed, killed in the third: losses and weights are bitwise identical."""
    options = ["--epochs", "4", "--batch-size", "2", *RANDOM]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "s2mlp_cuda", "train"]
    subprocess.run([*command, *argv(few, whole, *options)], check=True, env=environment, stdout=subprocess.DEVNULL)
    again = [*command, *argv(few, killed, *options), "--resume", "auto"]
    for epochs_before in (1, 2):
        process = subprocess.Popen(again, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
        while not (checkpoint.folder_of(killed) / f"checkpoint-{epochs_before:04d}.pt").exists():
            assert process.poll() is None
            time.sleep(0.002)
        time.sleep(0.05)  # into the next epoch
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert len(checkpoint.list_checkpoints(killed)) < 4
    subprocess.run(again, check=True, env=environment, stdout=subprocess.DEVNULL)
    assert losses(killed) == losses(whole)
    assert len(losses(killed)) == 4
    assert (killed / "last.safetensors").read_bytes() == (whole / "last.safetensors").read_bytes()


def test_accumulation_checkpointing_and_memory_format_only_change_rounding(few, tmp_path):
    base = ["--epochs", "2", "--batch-size", "32", "--opt", "sgd", "--lr", "0.5", "--clip-grad", "0.3"]
    baseline = train(config.parse(argv(few, tmp_path / "a", *base))).history
    variants = {
        "accumulated": ["--grad-accum-steps", "4"],
        "checkpointed": ["--grad-checkpointing"],
        "channels-last": ["--channels-last"],
    }
    for name, options in variants.items():
        found = train(config.parse(argv(few, tmp_path / name, *base, *options))).history
        assert [row["train_loss"] for row in found] == pytest.approx([row["train_loss"] for row in baseline], rel=1e-6), name
    unclipped = train(config.parse(argv(few, tmp_path / "b", *base, "--clip-grad", "0"))).history
    assert unclipped[1]["train_loss"] != pytest.approx(baseline[1]["train_loss"], rel=1e-4)


def test_checkpointing_recomputes_blocks_and_images_are_channels_last(few, tmp_path, monkeypatch):
    calls, strides = [], set()
    block, model = S2MLPv2Block.forward, S2MLPv2.forward
    monkeypatch.setattr(S2MLPv2Block, "forward", lambda self, x: calls.append(self.training) or block(self, x))
    monkeypatch.setattr(S2MLPv2, "forward", lambda self, x: strides.add(x.stride()) or model(self, x))
    updates = 130 // 32
    both = ["--grad-checkpointing", "--channels-last"]
    for options, per_update, expected in (([], 1, (192, 64, 8, 1)), (both, 2, (192, 1, 24, 3))):
        calls.clear()
        strides.clear()
        train(config.parse(argv(few, tmp_path / str(per_update), "--epochs", "1", "--batch-size", "32", *options)))
        assert sum(calls) == per_update * updates
        assert strides == {expected}


def test_autocast_and_compilation(few, tmp_path):
    base = ["--epochs", "1", "--batch-size", "32"]
    runs = {"eager": [], "amp": ["--amp"], "compiled": ["--torchcompile"], "both": ["--amp", "--torchcompile"]}
    eager, autocast, compiled, both = (
        train(config.parse(argv(few, tmp_path / name, *base, *options))).history[0]["train_loss"] for name, options in runs.items()
    )
    assert compiled == pytest.approx(eager, rel=1e-6)
    assert counters["stats"]["unique_graphs"] > 0
    assert autocast != eager
    assert autocast == pytest.approx(eager, rel=2e-2) and both == pytest.approx(eager, rel=2e-2)


@pytest.fixture(scope="module")
def base_run(few, tmp_path_factory) -> dict[str, float]:
    """The last epoch of a run with ``BASE`` only."""
    return train(config.parse(argv(few, tmp_path_factory.mktemp("base") / "run", *BASE))).history[-1]


BASE = ["--epochs", "2", "--batch-size", "32", "--scale", "0.9", "1", "--model-kwargs", "depths=[2]", "embed_dims=[16]"]


@pytest.mark.parametrize(
    "options",
    [
        ["--mixup", "0.8"], ["--cutmix", "1"], ["--smoothing", "0.2"], ["--aa", "rand-m9"], ["--reprob", "1"],
        ["--scale", "0.3", "0.5"], ["--ratio", "0.3", "0.4"], ["--hflip", "1"], ["--color-jitter", "0.9"],
        ["--train-interpolation", "nearest"], ["--drop-path", "0.5"], ["--opt", "lion"], ["--lr", "0.01"], ["--weight-decay", "5"],
        ["--sched", "tanh"], ["--sched", "wsd"], ["--sched", "constant"], ["--min-lr", "0.002"], ["--warmup-epochs", "1"],
        ["--seed", "1"], ["--aug-repeats", "3"],
        ["--mean", "0.5", "0.5", "0.5"], ["--std", "1", "1", "1"], ["--img-size", "12"],
    ],
    ids=lambda options: " ".join(options),
)  # fmt: skip
def test_every_option_takes_effect(few, tmp_path, base_run, options):
    found = train(config.parse(argv(few, tmp_path / "run", *BASE, *options))).history[-1]
    assert found["train_loss"] != base_run["train_loss"]


@pytest.mark.parametrize(
    "base, option",
    [
        (["--reprob", "1"], ["--remode", "const"]), (["--reprob", "1"], ["--recount", "3"]),
        (["--mixup", "0.8", "--cutmix", "1"], ["--mixup-switch-prob", "0"]), (["--warmup-epochs", "1"], ["--warmup-lr", "0.001"]),
        (["--model-ema-decay", "0.99"], ["--model-ema-warmup"]),
    ],
    ids=lambda options: " ".join(options),
)  # fmt: skip
def test_dependent_options_take_effect(few, tmp_path, base, option):
    for name, options in (("without", base), ("with", [*base, *option])):
        train(config.parse(argv(few, tmp_path / name, *BASE, *options)))
    assert losses(tmp_path / "with") != losses(tmp_path / "without")


@pytest.mark.parametrize(
    "options",
    [["--scale", "0.3", "0.9"], ["--scale", "1", "1", "--ratio", "1", "1", "--hflip", "0", "--aug-repeats", "3"]],
    ids=["augmentation", "choice of images"],
)
def test_epochs_have_different_random_numbers(few, tmp_path, options):
    """The learning rate is zero, so only the images and their augmentation differ between epochs."""
    base = ["--epochs", "2", "--batch-size", "16", "--lr", "0", "--min-lr", "0"]
    first, second = train(config.parse(argv(few, tmp_path / "run", *base, *options))).history
    assert first["val_loss"] == second["val_loss"]
    assert first["train_loss"] != second["train_loss"]


@pytest.mark.parametrize("options", [["--crop-pct", "0.5"], ["--interpolation", "nearest", "--crop-pct", "0.8"]])
def test_evaluation_options_affect_only_evaluation(few, tmp_path, base_run, options):
    found = train(config.parse(argv(few, tmp_path / "run", *BASE, *options))).history[-1]
    assert found["train_loss"] == base_run["train_loss"]
    assert found["val_loss"] != base_run["val_loss"]


def test_mixup_probability_and_off_epoch(few, tmp_path):
    options = [*BASE, "--cutmix", "1"]
    always, sometimes, until = (
        [row["train_loss"] for row in train(config.parse(argv(few, tmp_path / str(number), *options, *more))).history]
        for number, more in enumerate(([], ["--mixup-prob", "0.2"], ["--mixup-off-epoch", "1"]))
    )
    assert sometimes[0] != always[0]
    assert until[0] == always[0]
    assert until[1] != always[1]


def test_ema_against_its_formula(few, tmp_path):
    """The first update copies the weights; the second averages them with factors d for the old and 1 - d for the new weights."""
    decay = 0.75
    train(config.parse(argv(few, tmp_path / "run", "--epochs", "2", "--batch-size", "130", "--model-ema-decay", decay)))
    second, first = map(checkpoint.load, checkpoint.list_checkpoints(tmp_path / "run"))
    assert first["model"].keys() == second["model"].keys() == second["ema"].keys()
    for name, average in second["ema"].items():
        torch.testing.assert_close(average, decay * first["model"][name] + (1 - decay) * second["model"][name], msg=name)
        assert not torch.equal(average, second["model"][name]), name
    saved = safetensors.torch.load_file(tmp_path / "run" / "last.safetensors")
    assert all(torch.equal(second["ema"][name], tensor) for name, tensor in saved.items())


def test_repeated_augmentation_repeats_images(few, tmp_path):
    arguments = config.parse(argv(few, tmp_path, "--aug-repeats", "3"))
    join("cpu", needs_group=True)
    try:
        loader = train_loader(arguments, open_split(arguments, "train", [], True, 30), 30, torch.device("cpu"))
        drawn = list(loader.sampler)[:30]
    finally:
        leave()
    assert drawn[::3] == drawn[1::3] == drawn[2::3]
    assert len(set(drawn)) == 10
    train(config.parse(argv(few, tmp_path / "run", "--aug-repeats", "3", "--epochs", "1", "--batch-size", "16")))


def test_fine_tuning_loads_weights_except_a_head_of_different_size(few, tmp_path, capsys):
    train(config.parse(argv(few, tmp_path / "a", "--epochs", "1")))
    weights = str(tmp_path / "a" / "last.safetensors")
    begun = ["--epochs", "1", "--weights", weights, "--lr", "1e-9", "--min-lr", "1e-9"]
    found = train(config.parse(argv(few, tmp_path / "b", *begun))).history[0]
    assert found["val_loss"] == pytest.approx(float(losses(tmp_path / "a")[0]["val_loss"]), rel=1e-3)
    capsys.readouterr()
    train(config.parse(argv(few, tmp_path / "c", *begun, "--num-classes", "12")))
    assert "not loaded, as the classes differ: head.bias, head.weight" in capsys.readouterr().out.replace("\n", " ")
    with pytest.raises(TrainingError, match="has weights of a different model"):
        train(config.parse(argv(few, tmp_path / "d", *begun, "--model-kwargs", "depths=[2]", "embed_dims=[16]")))


def test_two_processes_by_torchrun_resume_and_agree(few, tmp_path):
    """Resumed and uninterrupted runs have the same losses, DDP the same as FSDP2, and one process evaluates the same as two."""
    data = tmp_path / "data"
    shutil.copytree(few, data)
    next((data / "validation" / "3").iterdir()).unlink()  # leaves 129 images, so one process evaluates one more
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "s2mlp_cuda", "train"]
    train_loss = {}

    def run(command):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr

    for parallel in ("ddp", "fsdp"):
        output = tmp_path / parallel
        options = ["--batch-size", "32", "--model-ema-decay", "0.9", "--parallel", parallel, "--epochs", "2", "--resume", "auto"]
        command = [*torchrun, *argv(data, output, *options)]
        run(command)
        whole = losses(output)
        newest, *_ = checkpoint.list_checkpoints(output)
        newest.unlink()  # as if stopped after the first epoch
        run(command)
        assert losses(output) == whole
        train_loss[parallel] = [float(row["train_loss"]) for row in whole]
        state = checkpoint.load(checkpoint.list_checkpoints(output)[0])
        assert all(type(tensor) is torch.Tensor for tensor in state["model"].values())
        alone = evaluate_file(output / "last.safetensors", str(data), workers=0, device="cpu")
        assert alone["images"] == 129
        for name in ("loss", "top1", "top5"):
            assert float(whole[-1][f"ema_{name}"]) == pytest.approx(alone[name], rel=1e-6)
    assert train_loss["ddp"][0] == pytest.approx(math.log(10), rel=0.1)
    assert train_loss["ddp"][1] < train_loss["ddp"][0]
    assert train_loss["fsdp"] == pytest.approx(train_loss["ddp"], rel=1e-6)


def test_nan_loss_is_an_error_and_the_run_stays_intact(few, tmp_path, capsys):
    output = tmp_path / "run"
    assert cli.main(["train", *argv(few, output, "--epochs", "1")]) == 0
    before = losses(output)
    capsys.readouterr()
    arguments = config.parse(argv(few, output, "--epochs", "2", "--resume", "auto", "--lr", "1e30", "--clip-grad", "0"))
    state = checkpoint.load(checkpoint.list_checkpoints(output)[0])
    state["arguments"] = config.tuples_to_lists({**vars(arguments), "processes": 1})
    checkpoint.save(output, 1, state, keep=3)
    with pytest.raises(
        TrainingError, match=r"^the loss is (nan|inf) in epoch 2, after \d+ of \d+ updates; the run in .* is kept up to epoch 1; a "
    ):
        train(arguments)
    assert [path.name for path in checkpoint.list_checkpoints(output)] == ["checkpoint-0001.pt"]
    assert losses(output) == before


def test_full_disk_is_reported_for_any_file(few, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("s2mlp_cuda.training.run.draw_curves", fail)
    assert cli.main(["train", *argv(few, tmp_path / "run", "--epochs", "1")]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"s2mlp: cannot write {tmp_path / 'run'}: No space left on device. Files saved before are intact")


@pytest.mark.parametrize("workers", ["0", "1"])
def test_unreadable_image_is_named(few, tmp_path, capsys, workers):
    """The header of the file is intact, so it is found during training."""
    data = tmp_path / "data"
    shutil.copytree(few, data)
    broken = next((data / "train" / "7").iterdir())
    broken.write_bytes(broken.read_bytes()[:50])
    assert cli.main(["train", *argv(data, tmp_path / "run", "--epochs", "1", "--batch-size", "130", "--workers", workers)]) == 1
    assert capsys.readouterr().err == f"s2mlp: cannot read the image {broken}: image file is truncated\n"


@pytest.mark.parametrize(
    "change, message",
    [
        ("empty", "train has no images for the class 10"),
        ("other class", "has classes that the model was not trained with: zebra"),
        ("no split", "has no folder for the split 'validation'"),
        ("no classes", "has no folders: validation images must be in one folder per class"),
    ],
)
def test_data_that_would_cause_wrong_labels_is_rejected(few, tmp_path, change, message):
    data = tmp_path / "data"
    shutil.copytree(few, data)
    if change == "empty":
        (data / "train" / "10").mkdir()
        (data / "train" / "10" / "notes.txt").write_text("no image")
    elif change == "other class":
        (data / "validation" / "3").rename(data / "validation" / "zebra")
    else:
        shutil.rmtree(data / "validation")
        if change == "no classes":
            (data / "validation").mkdir()
    with pytest.raises(TrainingError, match=message):
        train(config.parse(argv(data, tmp_path / "run")))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (
            ["--batch-size", "10", "--grad-accum-steps", "3"],
            r"--batch-size 10 must be a multiple of 3 \(1 process, 3 accumulation steps\)",
        ),
        (["--batch-size", "4096"], "do not fill one batch of 4096"),
        (["--batch-size", "5", "--mixup", "1"], "must be even, got 5"),
        (["--model", "s2mlp_huge"], "cannot build s2mlp_huge"),
        (["--model-kwargs", "color=3"], "cannot build s2mlpv2_small_7"),
        (["--weights", "nowhere.safetensors"], "no weights nowhere.safetensors"),
        (["--resume", "nowhere.pt"], "no checkpoint nowhere.pt"),
    ],
)
def test_incompatible_arguments_are_rejected(few, tmp_path, options, message):
    with pytest.raises(TrainingError, match=message):
        train(config.parse(argv(few, tmp_path / "run", *options)))
    assert not (tmp_path / "run").exists()


def test_resumed_run_on_a_gpu_has_the_losses_of_an_uninterrupted_one(few, tmp_path):
    require_device("cuda")
    options = ["--device", "cuda", "--amp", "--torchcompile", "--channels-last", "--epochs", "2", "--batch-size", "32"]
    whole = train(config.parse(argv(few, tmp_path / "run", *options))).history
    newest, *_ = checkpoint.list_checkpoints(tmp_path / "run")
    newest.unlink()
    again = train(config.parse(argv(few, tmp_path / "run", *options, "--resume", "auto"))).history
    assert again[1]["train_loss"] == pytest.approx(whole[1]["train_loss"], rel=1e-3)
    assert again[1]["peak_memory_mb"] > 0


def test_missing_gpu_is_reported(few, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(TrainingError, match="PyTorch finds no GPU"):
        train(config.parse([*argv(few, tmp_path / "run"), "--device", "cuda"]))


def test_webdataset(few, tmp_path):
    """Shards with the images of the folder, and labels in a JSON file per image, as timm's reader expects them."""
    info = {"splits": {}}
    for split in ("train", "validation"):
        paths = sorted((few / split).glob("*/*"))
        with webdataset.TarWriter(str(tmp_path / f"{split}-0.tar")) as shard:
            for path in paths:
                shard.write({"__key__": path.stem, "png": path.read_bytes(), "json": {"digit": int(path.parent.name)}})
        info["splits"][split] = {
            "name": split, "num_samples": len(paths), "filenames": [f"{split}-0.tar"], "shard_lengths": [len(paths)]
        }  # fmt: skip
    (tmp_path / "_info.json").write_text(json.dumps(info))
    options = ["--dataset", "wds/", "--num-classes", "10", "--epochs", "1", "--batch-size", "26", "--workers", "1"]
    found = train(config.parse(argv(tmp_path, tmp_path / "run", *options, "--target-key", "digit")))
    assert found.test_images == 130
    assert found.history[0]["train_loss"] < 4


@pytest.mark.parametrize("dataset, extra", [("wds/", "webdataset"), ("hfds/cifar10", "datasets"), ("hfids/cifar10", "datasets")])
def test_missing_package_of_a_reader_is_named(few, tmp_path, monkeypatch, capsys, dataset, extra):
    monkeypatch.setattr("s2mlp_cuda._extras.find_spec", lambda name: None if name == extra else find_spec(name))
    assert cli.main(["train", *argv(few, tmp_path / "run", "--dataset", dataset)]) == 2
    assert f"pip install 's2mlp_cuda[{extra}]'" in capsys.readouterr().err


def test_hugging_face_dataset(few, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    output = tmp_path / "run"
    options = ["--dataset", f"hfds/{few}", "--epochs", "1", "--batch-size", "26"]
    found = train(config.parse(argv(tmp_path / "cache", output, *options)))
    assert found.test_images == 130
    assert found.history[0]["train_loss"] < 4
