"""``s2mlp ablate``: trains the papers' ablations and timm models of equal size on small images, with the same training budget."""

import argparse
import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from s2mlp_cuda._files import write_text
from s2mlp_cuda._terminal import printable
from s2mlp_cuda.training.ablation.findings import CHOICES, FINDINGS, verdicts
from s2mlp_cuda.training.ablation.picture import draw
from s2mlp_cuda.training.ablation.report import budget_text, difference_text, document, table_text
from s2mlp_cuda.training.ablation.results import Ablation, Training, load
from s2mlp_cuda.training.ablation.rows import SCALES, Row, all_rows
from s2mlp_cuda.training.config import parse
from s2mlp_cuda.training.description import build
from s2mlp_cuda.training.environment import environment
from s2mlp_cuda.training.errors import TrainingError
from s2mlp_cuda.training.files import check_folder
from s2mlp_cuda.training.processes import resolve_device
from s2mlp_cuda.training.run import accuracy, train

_RESULTS, _TABLES, _PICTURE = "ablation.json", "ablation.md", "ablation.png"


def run(
    data: str,
    out: Path,
    recipe: str | None = None,
    seeds: int = 3,
    only: tuple[str, ...] = (),
    device: str = "auto",
    jobs: int = 1,
    cache: bool = False,
) -> int:
    """Train all rows that have no result in ``out`` yet, and write ablation.json, ablation.md and ablation.png.

    Args:
        data: image folder of 32x32 images, as for ``s2mlp train``.
        out: folder for the results and the runs. Interrupted runs are resumed.
        recipe: the training budget; default depends on the device.
        seeds: trainings per row.
        only: run only rows whose group or name contains one of these words.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``.
        jobs: models that are trained at once, each in a process with an equal share of the CPU's threads.
        cache: as ``--cache`` of ``s2mlp train``.

    Raises:
        TrainingError: no row matches ``only``, the results in ``out`` are of another recipe or size of models, or as in
            :func:`s2mlp_cuda.training.run.train`.
    """
    check_folder(out)
    console = Console(highlight=False, markup=False, emoji=False)
    device = resolve_device(device)
    scale = device.partition(":")[0]
    ablation = _open(out / _RESULTS, scale, recipe or SCALES[scale].recipe)
    words = [word.lower() for word in only]
    chosen = [
        row for row in all_rows(SCALES[scale]) if not words or any(word in f"{row.group} {row.name}".lower() for word in words)
    ]
    if not chosen:
        raise TrainingError(f"no row matches --only {' '.join(only)}")
    models: dict[str, Row] = {}
    for row in chosen:
        models.setdefault(row.key, row)
    options = ("--recipe", ablation.recipe, "--data", data, "--device", device, *["--cache"] * cache)
    tasks = [
        (row, _arguments(row, seed, out, options))
        for row in models.values()
        for seed in range(seeds)
        if not ablation.has(row, seed)
    ]
    console.print(
        f"rows: {len(chosen)}, models: {len(models)}, seeds: {seeds}, trainings to do: {len(tasks)}, in {printable(out)}",
        soft_wrap=True,
    )
    for number, (row, training, test_images) in enumerate(_trainings(tasks, jobs, console), 1):
        ablation.trainings.append(training)
        ablation.test_images = test_images
        _write(ablation, out)
        console.print(
            printable(
                f"{number} of {len(tasks)}: {row.group}, {row.name}, seed {training.seed}: {training.accuracy:.2f}% "
                f"in {training.seconds:.0f} s"
            ),
            soft_wrap=True,
        )
    _show(console, ablation)
    console.print(f"\n{printable(out)}: {_TABLES}, {_RESULTS}, {_PICTURE}")
    return 0


def _open(path: Path, scale: str, recipe: str) -> Ablation:
    """
    Raises:
        TrainingError: the file is not a result file, or its results are of another recipe or size of models.
    """
    if not path.exists():
        return Ablation(scale, recipe)
    found = load(path)
    if (found.scale, found.recipe) != (scale, recipe):
        raise TrainingError(
            f"{path} has results of recipe {found.recipe} for {found.scale}, not of {recipe} for {scale}: choose another --out"
        )
    return found


def _arguments(row: Row, seed: int, out: Path, options: tuple[str, ...]) -> argparse.Namespace:
    """The arguments of ``s2mlp train``."""
    output = out / "runs" / f"{row.slug}-{seed}"
    argv = [*options, "--model", row.model, "--seed", str(seed), "--output", str(output), "--resume", "auto"]
    arguments = parse([*argv, "--model-kwargs", *(f"{name}={value!r}" for name, value in row.model_kwargs.items())])
    arguments.epochs *= row.epochs_factor
    return arguments


def _train(row: Row, arguments: argparse.Namespace) -> tuple[Row, Training, int]:
    """A finished training and its number of test images."""
    finished = train(arguments)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        build(row.model, finished.classes, **row.model_kwargs)(torch.empty(1, 3, arguments.img_size, arguments.img_size))
    training = Training(
        row.key,
        arguments.seed,
        len(finished.history),
        accuracy(finished.history[-1]),
        sum(epoch["seconds"] for epoch in finished.history),
        finished.parameters,
        counter.get_total_flops() // 2,
        environment(),
    )
    return row, training, finished.test_images


def _train_quietly(row: Row, arguments: argparse.Namespace) -> tuple[Row, Training, int]:
    """As :func:`_train`, with all output in a file."""
    output = Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    with (output / "log.txt").open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        return _train(row, arguments)


def _start_job(threads: int) -> None:
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # of a terminal: the job ends, and the command reports it


def _trainings(tasks: list[tuple[Row, argparse.Namespace]], jobs: int, console: Console) -> Iterator[tuple[Row, Training, int]]:
    """Trains all, several at once if ``jobs`` is more than 1, and yields each when it is finished."""
    if jobs == 1:
        for row, arguments in tasks:
            console.rule(printable(f"{row.group}, {row.name}, seed {arguments.seed}"), align="left")
            yield _train(row, arguments)
        return
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _start_job, (threads,)) as pool:
        futures = [pool.submit(_train_quietly, *task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise TrainingError("a training process was killed; start the command again to resume") from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _write(ablation: Ablation, out: Path) -> None:
    ablation.save(out / _RESULTS)
    write_text(out / _TABLES, document(ablation))
    draw(ablation.results(), budget_text(ablation), out / _PICTURE)


def _show(console: Console, ablation: Ablation) -> None:
    results = ablation.results()
    table = Table(box=None)
    for title in ("top-1 accuracy", "parameters", "multiply-adds", "here, %", "paper, %"):
        is_name = title == "top-1 accuracy"
        table.add_column(title, justify="left" if is_name else "right", no_wrap=not is_name)
    for line in table_text(results).splitlines()[2:]:
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        table.add_row(name.replace("**", ""), *cells, style="bold" if name.startswith("**") else "")
    console.print(table)
    for verdict in (*verdicts(results, FINDINGS), *verdicts(results, CHOICES)):
        console.print(f"{verdict.text:14} {verdict.finding.text}: {difference_text(verdict)} points", soft_wrap=True)
    console.print(f"\n{budget_text(ablation)}")
