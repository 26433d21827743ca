"""``s2mlp demo``: demonstrates the package on this machine, without network access."""

import time
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from s2mlp_cuda._system import keep_freed_memory, machine_name
from s2mlp_cuda._terminal import printable
from s2mlp_cuda.bench.settings import suppress_warnings
from s2mlp_cuda.demo import digits, pictures, timing
from s2mlp_cuda.demo.correctness import check
from s2mlp_cuda.demo.inplace_trap import count_outcomes, survey

#: Test accuracy that the full demo must reach.
REQUIRED_ACCURACY = 0.97
EPOCHS = {False: 28, True: 2}  # by `quick`
ROUNDS = {False: 30, True: 11}


@contextmanager
def _progress(console: Console, description: str, total: int):
    """A progress bar; yields ``advance(text="")``."""
    columns = [
        TextColumn("  {task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    ]
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(description, total=total, note="")
        yield lambda note="": progress.update(task, advance=1, note=note)


def run(quick: bool, out: Path, facts: list[tuple[str, str]]) -> int:
    """Runs all steps.

    Returns:
        The exit status: 0 if the operator is correct and, unless ``quick``, the model reaches ``REQUIRED_ACCURACY``, else 1.
    """
    begin = time.perf_counter()
    console = Console(highlight=False)
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    machine = f"{machine_name()}, PyTorch {torch.__version__}"

    console.rule("[bold]1  What was built", align="left")
    for label, text in facts:
        console.print(f"  {label:17}{text}", markup=False, emoji=False, soft_wrap=True)

    console.rule("[bold]2  Is it right?", align="left")
    right = _show_check(console, device)

    console.rule("[bold]3  Is it fast?", align="left")
    results = _show_timings(console, device, ROUNDS[quick])

    console.rule("[bold]4  Does the shift matter?", align="left")
    data, with_shift, without_shift = _show_training(console, device, EPOCHS[quick])

    console.rule("[bold]5  Figures", align="left")
    with console.status("drawing"):
        probabilities = digits.predict(with_shift.model, data.test_images)
        paths = (
            pictures.draw_groups(out / "groups.png"),
            pictures.draw_timings(out / "timings.png", results, machine),
            pictures.draw_curves(out / "training.png", with_shift, without_shift),
            pictures.draw_predictions(out / "digits.png", data, probabilities),
        )
    for path in paths:
        console.print(f"  {printable(path)}", markup=False, emoji=False, soft_wrap=True)

    learned = quick or with_shift.accuracies[-1] >= REQUIRED_ACCURACY
    if not learned:
        console.print(f"[bold red]Test accuracy is below {REQUIRED_ACCURACY:.0%}.")
    console.print(f"\nDone in {time.perf_counter() - begin:.0f} s on {machine}.", markup=False, emoji=False, soft_wrap=True)
    return 0 if right and learned else 1


def _say(console: Console, text: str) -> None:
    """Prints an indented paragraph."""
    console.print(Padding(text, (0, 0, 0, 2)))


def _show_check(console: Console, device: torch.device) -> bool:
    with console.status("comparing with the reference"):
        result = check(device)
    right = result.equal == result.combinations
    verdict = "[green]all equal[/]" if right else "[bold red]NOT all equal[/]"
    _say(
        console,
        f"spatial_shift against slices + cat, values and gradients: {result.equal} of {result.combinations} "
        f"combinations of dtype, layout, padding and offsets, {verdict}.",
    )
    _say(console, "\nThe papers' pseudo-code, run in place as in public implementations, on a 14x14 map. One column of it:")
    for label, column in (
        ("input", range(len(result.expected_column))),
        ("moved down by one", result.expected_column),
        ("in place", result.in_place_column),
    ):
        console.print(f"    {label:18}{' '.join(f'{value:2.0f}' for value in column)}")
    _say(console, f"[red]{result.in_place_wrong:.0%} of the elements of the result are wrong, without a warning.[/]")
    with console.status("running the in-place version"):
        cases = list(survey())
    counts = count_outcomes(cases)
    _say(
        console,
        f"The same over {len(cases)} combinations of layout, dtype, shape and threads (CPU): "
        f"[red]{counts['wrong']} silently wrong[/], {counts['raised']} raised an error, {counts['right']} right.",
    )
    return right


def _show_timings(console: Console, device: torch.device, rounds: int) -> dict:
    keep_freed_memory()
    suppress_warnings()
    _say(
        console,
        "Forward + backward, float32, median of interleaved rounds. 1.0 is the time of x.clone(). A forward and a backward pass at "
        "the speed of this copy take 2.0; less is possible, because clone does not always reach the speed of memory. "
        "`s2mlp bench` covers more baselines, layouts and dtypes, and the fused operators.",
    )
    results = {}
    with _progress(console, "timing", len(timing.SHAPES)) as advance:
        for shape in timing.SHAPES:
            results[shape] = timing.time_alternatives(shape, device, rounds)
            advance()
    table = Table(box=None, padding=(0, 0, 0, 2))
    table.add_column("time / time of x.clone()", no_wrap=True)
    for shape in results:
        table.add_column("x".join(map(str, shape)), justify="right")
        table.add_column("x ours", justify="right")
    for row in zip(*results.values()):
        cells = []
        for column, item in zip(results.values(), row):
            if item.failure:
                cells += [escape(item.failure), ""]
            else:
                cells += [f"{item.ratio:.1f}" + ("" if item.right else " WRONG"), f"({item.ratio / column[0].ratio:.1f})"]
        style = "bold green" if row[0].name == timing.OURS else ""
        table.add_row(row[0].name, *cells, style=style)
    console.print(table)
    return results


def _show_training(console: Console, device: torch.device, epochs: int):
    data = digits.load(device)
    parameters = sum(p.numel() for p in digits.build_model(digits.WITH_SHIFT).parameters())
    _say(
        console,
        f"A small S2-MLPv2 ({parameters / 1e3:.0f}k parameters) on {len(data.train_images)} handwritten digits of 8x8 "
        f"pixels, tested on {len(data.test_images)} others; {epochs} epochs.",
    )
    trainings = []
    for name, branches in (("with shift   ", digits.WITH_SHIFT), ("without shift", digits.WITHOUT_SHIFT)):
        with _progress(console, name, epochs) as advance:
            trainings.append(digits.train(branches, data, epochs, lambda t: advance(f"test accuracy {t.accuracies[-1]:6.1%}")))
    _say(
        console,
        f"Test accuracy after {epochs} epochs, for one seed: [bold green]{trainings[0].accuracies[-1]:.1%} with the shift[/], "
        f"{trainings[1].accuracies[-1]:.1%} without it. Without the shift, tokens mix only in the 2x2 patches between the stages "
        "and in the split attention's means over the map.",
    )
    return data, *trainings
