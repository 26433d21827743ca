"""The command line: ``s2mlp demo``, ``s2mlp bench`` and ``s2mlp info``, also as ``python -m s2mlp_cuda``."""

import argparse
import platform
import sys
from pathlib import Path

import torch

import s2mlp_cuda
from s2mlp_cuda._extension import build_facts
from s2mlp_cuda._extras import MissingExtraError, require


def cpu_name() -> str:
    """The processor's name where the system tells it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def info_lines() -> list[tuple[str, str]]:
    """What was built and what it runs on, as (label, text)."""
    lines = [("s2mlp_cuda", s2mlp_cuda.__version__), *build_facts().items()]
    lines.append(("this process", f"PyTorch {torch.__version__}, Python {platform.python_version()}"))
    lines.append(("CPU", f"{cpu_name()}, {torch.get_num_threads()} threads"))
    if not torch.cuda.is_available():
        lines.append(("GPU", "none that PyTorch can see"))
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        lines.append(
            (
                f"cuda:{index}",
                f"{properties.name}, sm_{properties.major}{properties.minor}, "
                f"{properties.total_memory / 2**30:.0f} GiB, {properties.multi_processor_count} SMs",
            )
        )
    return lines


def info(_: argparse.Namespace) -> int:
    for label, text in info_lines():
        print(f"{label:14}{text}")
    return 0


def demo(arguments: argparse.Namespace) -> int:
    require("demo", "rich", "matplotlib", "sklearn", "timm")
    from s2mlp_cuda.demo import run

    return run(quick=arguments.quick, out=arguments.out, facts=info_lines())


def bench(arguments: argparse.Namespace) -> int:
    require("bench", "rich", "matplotlib", "pytest_benchmark")
    from s2mlp_cuda.bench.command import compare_files, run

    if arguments.compare:
        return compare_files(*arguments.compare)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    return run(arguments.full, torch.device(arguments.device), tuple(arguments.only), tuple(arguments.skip), arguments.out)


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="s2mlp", description=s2mlp_cuda.__doc__)
    parser.add_argument("--version", action="version", version=s2mlp_cuda.__version__)
    commands = parser.add_subparsers(required=True, metavar="command")

    command = commands.add_parser("demo", help="check, time and train the shift on this machine, in about three minutes")
    command.add_argument("--quick", action="store_true", help="the same steps in under a minute, with less training")
    command.add_argument("--out", type=Path, default=Path("out"), help="folder for the pictures (default: out)")
    command.set_defaults(run=demo)

    command = commands.add_parser(
        "bench", help="time every operator and model against every other way to compute it, in under three minutes"
    )
    command.add_argument("--full", action="store_true", help="all shapes, layouts, dtypes and models; many times as long")
    command.add_argument(
        "--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu", help="default: cuda if there"
    )
    command.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's choice)")
    command.add_argument(
        "--only", nargs="+", default=[], metavar="WORD", help="leave out what has none of these in its name, as in --only gelu"
    )
    command.add_argument("--skip", nargs="+", default=[], metavar="WORD", help="leave out what has any of these in its name")
    command.add_argument(
        "--out", type=Path, default=Path("out/bench"), help="folder for bench.json and the pictures (default: out/bench)"
    )
    command.add_argument(
        "--compare", nargs=2, type=Path, metavar=("BEFORE", "AFTER"), help="run nothing; tell what got slower between two results"
    )
    command.set_defaults(run=bench)

    command = commands.add_parser("info", help="print the build and the devices")
    command.set_defaults(run=info)

    arguments = parser.parse_args(argv)
    try:
        return arguments.run(arguments)
    except MissingExtraError as error:
        print(f"s2mlp: {error}", file=sys.stderr)
        return 2
