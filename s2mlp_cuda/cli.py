"""The command line, ``s2mlp`` and ``python -m s2mlp_cuda``: see ``s2mlp --help``.

Each command is a function, followed by the function that adds its arguments.
"""

import argparse
import io
import json
import os
import select
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

import s2mlp_cuda
from s2mlp_cuda._extras import MissingExtraError, require
from s2mlp_cuda._files import full_disk
from s2mlp_cuda._system import info as system_info
from s2mlp_cuda._system import info_lines
from s2mlp_cuda._terminal import printable, program, suggest, suggest_python
from s2mlp_cuda.models._registry import ConfigurationError
from s2mlp_cuda.training.config import Parser, add_arguments, recipe_names
from s2mlp_cuda.training.errors import TrainingError, message_of
from s2mlp_cuda.training.files import check_folder
from s2mlp_cuda.training.ranges import integer
from s2mlp_cuda.training.reports import is_reported_elsewhere, report

#: Required by all commands on images; installed by the extra `train`.
TRAIN_PACKAGES = ("timm", "torchvision", "safetensors", "yaml", "rich", "matplotlib", "tensorboard")

_OWN_MODELS = """\
models of your own, which only the program that registers them knows:
  python mine.py {} ...      see help(s2mlp_cuda.models.register_models)"""


def _add_command(commands, name: str, summary: str, examples: str, **options) -> argparse.ArgumentParser:
    """
    Args:
        summary: one line, for the list of commands and for the command's own help.
        examples: the end of the command's help, as it is.
    """
    raw = argparse.RawDescriptionHelpFormatter
    return commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=examples, formatter_class=raw, **options
    )


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print one JSON object, with the fields below")


def _print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, indent=1, allow_nan=False))


def demo(arguments: argparse.Namespace) -> int:
    require("demo", "rich", "matplotlib", "sklearn", "timm")
    from s2mlp_cuda.demo import run

    check_folder(arguments.out)
    status = run(quick=arguments.quick, out=arguments.out, facts=info_lines())
    if not status:
        suggest("train", "--recipe", "digits")
    return status


def _add_demo(commands) -> None:
    examples = "example:\n  s2mlp demo --quick"
    command = _add_command(commands, "demo", "check, time and train the shift on this machine, in about three minutes", examples)
    command.add_argument("--quick", action="store_true", help="the same steps in about a minute, with less training")
    command.add_argument(
        "--out", type=Path, default=Path("out"), metavar="FOLDER", help="folder for the figures; default: %(default)s"
    )
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
    words = (tuple(arguments.only), tuple(arguments.skip))
    status = run(arguments.full, torch.device(arguments.device), *words, arguments.out)
    if not status:
        suggest("bench", "--compare", arguments.out / "bench.json", "AFTER.json")
    return status


BENCH_EXAMPLES = """\
examples:
  s2mlp bench --only gelu --out out/before
  s2mlp bench --compare out/before/bench.json out/after/bench.json"""


def _add_bench(commands) -> None:
    summary = "benchmark every operator and model against its baselines, in under three minutes"
    command = _add_command(commands, "bench", summary, BENCH_EXAMPLES)
    command.add_argument("--full", action="store_true", help="all shapes, layouts, dtypes and models; takes much longer")
    command.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="default: cuda if available",
    )
    command.add_argument("--threads", type=integer(1, 1024), metavar="N", help="CPU threads; default: PyTorch's choice")
    command.add_argument(
        "--only", nargs="+", default=[], metavar="WORD", help="run only cases whose name contains one of these; default: all"
    )
    command.add_argument(
        "--skip", nargs="+", default=[], metavar="WORD", help="skip cases whose name contains any of these; default: none"
    )
    command.add_argument(
        "--out",
        type=Path,
        default=Path("out/bench"),
        metavar="FOLDER",
        help="folder for bench.json, bench.md and the figures; default: %(default)s",
    )
    command.add_argument(
        "--compare",
        nargs=2,
        type=Path,
        metavar=("BEFORE", "AFTER"),
        help="compare two result files and report significant slowdowns; run nothing",
    )
    command.set_defaults(run=bench)


def _is_first_process() -> bool:
    """Of those that torchrun starts."""
    return os.environ.get("RANK", "0") == "0"


def train(arguments: argparse.Namespace) -> int:
    require("train", *TRAIN_PACKAGES)
    from s2mlp_cuda.training.config import parse
    from s2mlp_cuda.training.run import train as run

    options = parse(arguments.argv)
    run(options)
    if _is_first_process():
        suggest("predict", "IMAGE", "--weights", Path(options.output) / "best.safetensors")
    return 0


TRAIN_EXAMPLES = f"""\
recipes of the package:
  {", ".join(recipe_names())}

examples:
  s2mlp train --recipe digits
  s2mlp train --data FOLDER --model s2mlpv2_small_7 --epochs 100 --output out/mine
  s2mlp train --data FOLDER --model s2mlpv2_small_7 --epochs 100 --output out/mine --resume auto
  torchrun --nproc-per-node 2 -m s2mlp_cuda train --recipe digits --device cpu

{_OWN_MODELS.format("train")}"""


def _add_train(commands) -> None:
    usage = "%(prog)s [--recipe NAME|FILE] [--data FOLDER] [--model NAME] [--output FOLDER] [option ...]"
    summary = "train a model on images, in one process, or in several with torchrun"
    command = _add_command(commands, "train", summary, TRAIN_EXAMPLES, usage=usage)
    add_arguments(command)
    command.set_defaults(run=train)


def _add_weights(command: argparse.ArgumentParser) -> None:
    command.epilog = f"{command.epilog}\n\n{_OWN_MODELS.format(command.prog.split()[-1])}"
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
    if metrics and arguments.json:
        _print_json({"weights": str(arguments.weights), "split": arguments.split, **metrics})
    elif metrics:
        print(f"loss {metrics['loss']:.4f}, top-1 {metrics['top1']:.2f}%, top-5 {metrics['top5']:.2f}%, {metrics['images']} images")
        suggest("predict", "IMAGE", "--weights", arguments.weights)
    return 0


EVALUATE_EXAMPLES = """\
fields of --json:
  weights, split  as given
  loss            mean cross-entropy in nats
  top1, top5      accuracy in percent
  images          number of images

example:
  s2mlp eval --data FOLDER --weights out/mine/best.safetensors"""


def _add_evaluate(commands) -> None:
    command = _add_command(commands, "eval", "loss and accuracy of trained weights", EVALUATE_EXAMPLES)
    _add_weights(command)
    command.add_argument(
        "--data", metavar="FOLDER", help="image folder, as for train; required, except by some values of --dataset"
    )
    command.add_argument("--dataset", default="", metavar="NAME", help="dataset, as for train; default: an image folder")
    command.add_argument(
        "--split", default="validation", metavar="NAME", help="also of a folder named val, valid or eval; default: %(default)s"
    )
    command.add_argument("--input-key", metavar="NAME", help="column of the images (WebDataset, Hugging Face); default: automatic")
    command.add_argument("--target-key", metavar="NAME", help="column of the labels (WebDataset, Hugging Face); default: automatic")
    command.add_argument("--batch-size", type=integer(1), default=256, metavar="N", help="per process; default: %(default)s")
    command.add_argument(
        "--workers", type=integer(0, 1024), default=4, metavar="N", help="data loading processes; default: %(default)s"
    )
    command.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; default: cuda if available")
    command.add_argument("--amp", action="store_true", help="autocast to bfloat16")
    _add_json(command)
    command.set_defaults(run=evaluate)


def predict(arguments: argparse.Namespace) -> int:
    require("train", *TRAIN_PACKAGES)
    from s2mlp_cuda.training.predict import predict as run
    from s2mlp_cuda.training.predict import show
    from s2mlp_cuda.training.progress import track
    from s2mlp_cuda.training.weights import load

    model, description = load(arguments.weights)
    predictions: list[dict[str, Any]] = []
    status = 0
    for path in track(arguments.images, "predicting") if arguments.json else arguments.images:
        try:
            (rows,) = run(model, description, [path])
        except TrainingError as error:
            print(printable(f"s2mlp: {message_of(error)}"), file=sys.stderr)
            predictions.append({"image": str(path), "error": message_of(error)})
            status = 1
            continue
        predictions.append({"image": str(path), "classes": [{"name": name, "probability": value} for name, value in rows]})
        if not arguments.json:
            show(path, rows)
    if arguments.json:
        _print_json({"weights": str(arguments.weights), "predictions": predictions})
    elif not status:
        suggest("explain", arguments.images[0], "--weights", arguments.weights)
    return status


PREDICT_EXAMPLES = """\
fields of --json:
  weights      as given
  predictions  one object per image, in the order given:
    image      the path
    classes    the most probable classes, at most five, most probable first: name, probability
    error      instead of classes: why the image has none

example:
  s2mlp predict photo.jpg --weights out/mine/best.safetensors"""


def _add_predict(commands) -> None:
    command = _add_command(commands, "predict", "the five most probable classes of images", PREDICT_EXAMPLES)
    command.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image file")
    _add_weights(command)
    _add_json(command)
    command.set_defaults(run=predict)


def explain(arguments: argparse.Namespace) -> int:
    require("train", *TRAIN_PACKAGES)
    from s2mlp_cuda.training.explain import explain as run
    from s2mlp_cuda.training.predict import read_image
    from s2mlp_cuda.training.progress import spinner
    from s2mlp_cuda.training.weights import load

    model, description = load(arguments.weights)
    with spinner("drawing"):
        paths = run(model, read_image(arguments.image, description), arguments.out, arguments.block)
    for path in paths:
        print(printable(path))
    if not any(path.name == "shifted_groups.png" for path in paths):
        print(
            f"no shifted_groups.png: block {arguments.block} has a fusion of its own, whose shifts are not known", file=sys.stderr
        )
    suggest("export", "--format", "onnx", "--weights", arguments.weights)
    return 0


def _add_explain(commands) -> None:
    examples = "example:\n  s2mlp explain photo.jpg --weights out/mine/best.safetensors --block 4"
    command = _add_command(commands, "explain", "visualize what a trained model does with an image", examples)
    command.add_argument("image", type=Path, metavar="IMAGE", help="image file")
    _add_weights(command)
    command.add_argument(
        "--block",
        type=integer(1),
        default=1,
        metavar="N",
        help="the block whose channel groups are drawn, counted from 1; default: %(default)s",
    )
    command.add_argument(
        "--out", type=Path, default=Path("out/explain"), metavar="FOLDER", help="folder for the figures; default: %(default)s"
    )
    command.set_defaults(run=explain)


def export(arguments: argparse.Namespace) -> int:
    require("train", *TRAIN_PACKAGES)
    from s2mlp_cuda.training.progress import spinner
    from s2mlp_cuda.training.weights import export as run

    file = arguments.weights
    out = arguments.out or file.parent / f"{file.stem}.{arguments.format}"
    with spinner(f"exporting to {out}"):
        message = run(file, arguments.format, out)
    print(printable(message))
    name = json.dumps(str(out), ensure_ascii=False)  # in double quotes, since the shell's are single ones
    if arguments.format == "onnx":
        code = f"import onnxruntime; print(onnxruntime.InferenceSession({name}).get_inputs()[0])"
    else:
        code = f"import torch; print(torch.export.load({name}))"
    suggest_python(code)
    return 0


EXPORT_EXAMPLES = """\
examples:
  s2mlp export --format onnx --weights out/mine/best.safetensors
  s2mlp export --format pt2 --weights out/mine/best.safetensors --out model.pt2"""


def _add_export(commands) -> None:
    command = _add_command(commands, "export", "export a trained model for other runtimes", EXPORT_EXAMPLES)
    _add_weights(command)
    command.add_argument(
        "--format", choices=("onnx", "pt2"), required=True, help="ONNX, or a torch.export program; both use standard operators only"
    )
    command.add_argument("--out", type=Path, metavar="FILE", help="default: the weights file with the suffix of the format")
    command.set_defaults(run=export)


def ablate(arguments: argparse.Namespace) -> int:
    require("train", *TRAIN_PACKAGES)
    from s2mlp_cuda.training.ablation import run

    options = (arguments.recipe, arguments.seeds, tuple(arguments.only), arguments.device, arguments.jobs, arguments.cache)
    return run(arguments.data, arguments.out, *options)


def _add_ablate(commands) -> None:
    examples = "example:\n  s2mlp ablate --data FOLDER --only shift --jobs 2"
    command = _add_command(commands, "ablate", "train the papers' ablations and timm's models on small images", examples)
    command.add_argument("--data", required=True, metavar="FOLDER", help="image folder, as for train")
    command.add_argument("--recipe", help="default: ablation_gpu or ablation_cpu, depending on the device")
    command.add_argument("--seeds", type=integer(1), default=3, help="trainings per row; default: %(default)s")
    command.add_argument(
        "--only", nargs="+", default=[], metavar="WORD", help="run only rows whose name contains one of these; default: all"
    )
    command.add_argument("--device", default="auto", help="default: cuda if available")
    command.add_argument(
        "--jobs", type=integer(1, 1024), default=1, metavar="N", help="train N models at once; default: %(default)s"
    )
    command.add_argument("--cache", action="store_true", help="as for train")
    command.add_argument(
        "--out", type=Path, default=Path("out/ablation"), help="default: %(default)s; runs finished there are not repeated"
    )
    command.set_defaults(run=ablate)


def info(arguments: argparse.Namespace) -> int:
    if arguments.json:
        _print_json(system_info())
        return 0
    for label, text in info_lines():
        print(f"{label:17}{text}")
    suggest("demo", "--quick")
    return 0


INFO_EXAMPLES = """\
fields of --json:
  s2mlp_cuda, torch, python     versions
  build                         how the binary was built; null if not known
    torch, compiler, pybind11   versions
    oldest_torch                the oldest version of PyTorch that it is compatible with
    cuda, cuda_architectures    of its CUDA kernels; null without
  cpu
    name, threads
    capability                  the instruction set that the CPU kernels use
    torch_capability            the one that PyTorch's own kernels use
  gpus                          those that PyTorch can see: name, capability, memory_bytes, multiprocessors

example:
  s2mlp info --json"""


def _add_info(commands) -> None:
    command = _add_command(commands, "info", "print the build and the devices", INFO_EXAMPLES)
    _add_json(command)
    command.set_defaults(run=info)


_COMMANDS = (_add_demo, _add_bench, _add_train, _add_evaluate, _add_predict, _add_explain, _add_export, _add_ablate, _add_info)


EXAMPLES = """\
examples:
  s2mlp info
  s2mlp demo --quick
  s2mlp train --help

tab completion, also for zsh and tcsh:
  pip install shtab
  shtab --shell bash s2mlp_cuda.cli.parser > ~/.local/share/bash-completion/completions/s2mlp"""


def parser(prog: str = "s2mlp") -> argparse.ArgumentParser:
    """The parser of all commands.

    Args:
        prog: the command that runs it.
    """
    result = Parser(
        prog=prog,
        description="Check, time, train and use the spatial shift of S2-MLP and its models.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--version", action="version", version=s2mlp_cuda.__version__)
    commands = result.add_subparsers(required=True, metavar="command")
    for add in _COMMANDS:
        add(commands)
    return result


def _run(argv: list[str]) -> int:
    arguments = parser(shlex.join(program())).parse_args(argv or ["--help"])
    arguments.argv = argv[1:]  # without the command's name
    try:
        return arguments.run(arguments)
    except MissingExtraError as error:
        report(f"s2mlp: {error}")
        return 2
    except TrainingError as error:
        report(f"s2mlp: {message_of(error)}")
        return 1
    except ConfigurationError as error:
        report(f"s2mlp: {error}")
        return 1
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            report(f"s2mlp: {error.filename}: {error.strerror}")
            return 1
        if is_reported_elsewhere():
            return 1
        raise
    except KeyboardInterrupt:
        if _is_first_process():
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
