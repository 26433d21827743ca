"""The command line, ``s2mlp`` and ``python -m s2mlp_cuda``: see ``s2mlp --help``.

Each command is a function, followed by the function that adds its arguments.
"""

import argparse
import io
import os
import select
import sys
from pathlib import Path

import torch

import s2mlp_cuda
from s2mlp_cuda._extras import MissingExtraError, require
from s2mlp_cuda._files import full_disk
from s2mlp_cuda._system import info_lines
from s2mlp_cuda._terminal import printable
from s2mlp_cuda.training.config import Parser, add_arguments
from s2mlp_cuda.training.errors import TrainingError, message_of
from s2mlp_cuda.training.files import check_folder
from s2mlp_cuda.training.ranges import integer
from s2mlp_cuda.training.reports import is_reported_elsewhere, report

#: Required by all commands on images; installed by the extra `train`.
TRAIN_PACKAGES = ("timm", "torchvision", "safetensors", "yaml", "rich", "matplotlib", "tensorboard")


def demo(arguments: argparse.Namespace) -> int:
    require("demo", "rich", "matplotlib", "sklearn", "timm")
    from s2mlp_cuda.demo import run

    check_folder(arguments.out)
    return run(quick=arguments.quick, out=arguments.out, facts=info_lines())


def _add_demo(commands) -> None:
    command = commands.add_parser("demo", help="check, time and train the shift on this machine, in about three minutes")
    command.add_argument("--quick", action="store_true", help="the same steps in under a minute, with less training")
    command.add_argument("--out", type=Path, default=Path("out"), help="folder for the figures (default: out)")
    command.set_defaults(run=demo)


def bench(arguments: argparse.Namespace) -> int:
    require("bench", "rich", "matplotlib", "pytest_benchmark")
    from s2mlp_cuda.bench.command import compare_files, run

    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device cuda: PyTorch finds no GPU on this machine")
    if arguments.compare:
        return compare_files(*arguments.compare)
    check_folder(arguments.out)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    return run(arguments.full, torch.device(arguments.device), tuple(arguments.only), tuple(arguments.skip), arguments.out)


def _add_bench(commands) -> None:
    command = commands.add_parser("bench", help="benchmark every operator and model against its baselines, in under three minutes")
    command.add_argument("--full", action="store_true", help="all shapes, layouts, dtypes and models; takes much longer")
    command.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="default: cuda if available",
    )
    command.add_argument("--threads", type=integer(1, 1024), help="CPU threads (default: PyTorch's choice)")
    command.add_argument(
        "--only", nargs="+", default=[], metavar="WORD", help="run only cases whose name contains one of these, e.g. --only gelu"
    )
    command.add_argument("--skip", nargs="+", default=[], metavar="WORD", help="skip cases whose name contains any of these")
    command.add_argument(
        "--out", type=Path, default=Path("out/bench"), help="folder for bench.json and the figures (default: out/bench)"
    )
    command.add_argument(
        "--compare",
        nargs=2,
        type=Path,
        metavar=("BEFORE", "AFTER"),
        help="compare two result files and report significant slowdowns; run nothing",
    )
    command.set_defaults(run=bench)


def train(arguments: argparse.Namespace) -> int:
    require("train", *TRAIN_PACKAGES)
    from s2mlp_cuda.training.config import parse
    from s2mlp_cuda.training.run import train as run

    run(parse(arguments.argv))
    return 0


def _add_train(commands) -> None:
    command = commands.add_parser(
        "train",
        help="train a model on images",
        description="Train a model on images, in one process, or in several with torchrun -m s2mlp_cuda train.",
    )
    add_arguments(command)
    command.set_defaults(run=train)


def _add_weights(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--weights", type=Path, required=True, metavar="FILE", help="last.safetensors or best.safetensors written by s2mlp train"
    )


def evaluate(arguments: argparse.Namespace) -> int:
    require("train", *TRAIN_PACKAGES)
    from s2mlp_cuda.training.evaluation import evaluate_file

    metrics = evaluate_file(
        arguments.weights,
        arguments.data,
        arguments.split,
        arguments.dataset,
        arguments.batch_size,
        arguments.workers,
        arguments.device,
        arguments.amp,
        arguments.input_key,
        arguments.target_key,
    )
    if metrics:
        print(f"loss {metrics['loss']:.4f}, top-1 {metrics['top1']:.2f}%, top-5 {metrics['top5']:.2f}%, {metrics['images']} images")
    return 0


def _add_evaluate(commands) -> None:
    command = commands.add_parser("eval", help="loss and accuracy of trained weights")
    _add_weights(command)
    command.add_argument("--data", metavar="FOLDER", help="as for train")
    command.add_argument("--dataset", default="", metavar="NAME", help="as for train")
    command.add_argument("--split", default="validation", help="default: %(default)s")
    command.add_argument("--input-key", metavar="NAME", help="as for train")
    command.add_argument("--target-key", metavar="NAME", help="as for train")
    command.add_argument("--batch-size", type=integer(1), default=256, help="per process; default: %(default)s")
    command.add_argument("--workers", type=integer(0, 1024), default=4, help="default: %(default)s")
    command.add_argument("--device", default="auto", help="default: cuda if available")
    command.add_argument("--amp", action="store_true", help="autocast to bfloat16")
    command.set_defaults(run=evaluate)


def predict(arguments: argparse.Namespace) -> int:
    require("train", *TRAIN_PACKAGES)
    from rich.console import Console
    from rich.table import Table

    from s2mlp_cuda.training.predict import predict as run
    from s2mlp_cuda.training.weights import load

    model, description = load(arguments.weights)
    console = Console(highlight=False, markup=False, emoji=False)
    block = "#" if console.options.ascii_only else "█"
    status = 0
    for path in arguments.images:
        try:
            (rows,) = run(model, description, [path])
        except TrainingError as error:
            print(printable(f"s2mlp: {message_of(error)}"), file=sys.stderr)
            status = 1
            continue
        console.print(printable(path), soft_wrap=True)
        table = Table(box=None, show_header=False)
        for name, probability in rows:
            table.add_row(printable(name), f"{probability:6.1%}", block * round(30 * probability))
        console.print(table)
    return status


def _add_predict(commands) -> None:
    command = commands.add_parser("predict", help="the five most probable classes of images")
    command.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    _add_weights(command)
    command.set_defaults(run=predict)


def explain(arguments: argparse.Namespace) -> int:
    require("train", *TRAIN_PACKAGES)
    from s2mlp_cuda.training.explain import explain as run
    from s2mlp_cuda.training.predict import read_image
    from s2mlp_cuda.training.weights import load

    model, description = load(arguments.weights)
    for path in run(model, read_image(arguments.image, description), arguments.out, arguments.block):
        print(printable(path))
    return 0


def _add_explain(commands) -> None:
    command = commands.add_parser("explain", help="visualize what a trained model does with an image")
    command.add_argument("image", type=Path, metavar="IMAGE")
    _add_weights(command)
    command.add_argument(
        "--block", type=integer(1), default=1, help="the block whose channel groups are drawn, counted from 1; default: %(default)s"
    )
    command.add_argument("--out", type=Path, default=Path("out/explain"), help="folder for the figures; default: %(default)s")
    command.set_defaults(run=explain)


def export(arguments: argparse.Namespace) -> int:
    require("train", *TRAIN_PACKAGES)
    from s2mlp_cuda.training.weights import export as run

    file = arguments.weights
    print(printable(run(file, arguments.format, arguments.out or file.parent / f"{file.stem}.{arguments.format}")))
    return 0


def _add_export(commands) -> None:
    command = commands.add_parser("export", help="export a trained model for other runtimes")
    _add_weights(command)
    command.add_argument(
        "--format", choices=("onnx", "pt2"), required=True, help="ONNX, or a torch.export program; both use standard operators only"
    )
    command.add_argument("--out", type=Path, help="default: the weights file with the suffix of the format")
    command.set_defaults(run=export)


def ablate(arguments: argparse.Namespace) -> int:
    require("train", *TRAIN_PACKAGES)
    from s2mlp_cuda.training.ablation import run

    options = (arguments.recipe, arguments.seeds, tuple(arguments.only), arguments.device, arguments.cache)
    return run(arguments.data, arguments.out, *options)


def _add_ablate(commands) -> None:
    command = commands.add_parser("ablate", help="train the papers' ablations and timm's models on small images")
    command.add_argument("--data", required=True, metavar="FOLDER", help="image folder, as for train")
    command.add_argument("--recipe", help="default: ablation_gpu or ablation_cpu, depending on the device")
    command.add_argument("--seeds", type=integer(1), help="runs per row; default: 3 on a GPU, 1 on a CPU")
    command.add_argument("--only", nargs="+", default=[], metavar="WORD", help="run only rows whose name contains one of these")
    command.add_argument("--device", default="auto", help="default: cuda if available")
    command.add_argument("--cache", action="store_true", help="as for train")
    command.add_argument(
        "--out", type=Path, default=Path("out/ablation"), help="default: %(default)s; runs finished there are not repeated"
    )
    command.set_defaults(run=ablate)


def info(_: argparse.Namespace) -> int:
    for label, text in info_lines():
        print(f"{label:14}{text}")
    return 0


def _add_info(commands) -> None:
    commands.add_parser("info", help="print the build and the devices").set_defaults(run=info)


_COMMANDS = (_add_demo, _add_bench, _add_train, _add_evaluate, _add_predict, _add_explain, _add_export, _add_ablate, _add_info)


def _run(argv: list[str]) -> int:
    parser = Parser(prog="s2mlp", description=s2mlp_cuda.__doc__)
    parser.add_argument("--version", action="version", version=s2mlp_cuda.__version__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for add in _COMMANDS:
        add(commands)
    arguments = parser.parse_args(argv)
    arguments.argv = argv[1:]  # without the command's name
    try:
        return arguments.run(arguments)
    except MissingExtraError as error:
        report(f"s2mlp: {error}")
        return 2
    except TrainingError as error:
        report(f"s2mlp: {message_of(error)}")
        return 1
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            report(f"s2mlp: {error.filename}: {error.strerror}")
            return 1
        if is_reported_elsewhere():
            return 1
        raise
    except KeyboardInterrupt:
        print("s2mlp: stopped", file=sys.stderr)
        return 130


def _output_error() -> OSError | None:
    """Flushes the standard output. If that fails, returns the error and discards the output, so that the interpreter does not
    fail when it exits."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), sys.stdout.fileno())
        return error
    return None


def _reader_is_gone() -> bool:
    """Whether the standard output is a pipe that nobody reads any more. Without a buffer, flushing does not tell."""
    poll = select.poll()
    if sys.stdout is not None:
        poll.register(sys.stdout, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may have characters that the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _run(sys.argv[1:] if argv is None else argv)
        failure = _output_error()
    except (SystemExit, OSError) as error:
        failure = _output_error()
        if failure is None and isinstance(error, BrokenPipeError) and _reader_is_gone():
            return 1
        if failure is None and (cause := full_disk(error)):
            print(f"s2mlp: {cause.strerror}", file=sys.stderr)
            return 1
        if failure is None:
            raise
    if failure is None:
        return status
    if not isinstance(failure, BrokenPipeError):
        print(f"s2mlp: standard output: {failure.strerror}", file=sys.stderr)
    return 1
