"""``s2mlp bench``: runs the suite, prints its tables, and saves its result and figures."""

import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from s2mlp_cuda._files import write_text
from s2mlp_cuda._system import keep_freed_memory, release_freed_memory
from s2mlp_cuda._terminal import printable
from s2mlp_cuda.bench import pictures, suite, tables
from s2mlp_cuda.bench.compare import compare, show
from s2mlp_cuda.bench.headline import TITLE, headline, shortfalls
from s2mlp_cuda.bench.measurement import Breakdown, Run, is_ours, load
from s2mlp_cuda.bench.settings import limit_libraries, set_up_compiler, suppress_warnings

METHOD = """\
Times are relative to `x.clone()` of the map, measured in the same rounds. The rounds of all implementations are interleaved. \
Values are medians over rounds, then median and range over shapes. "x ours" is the ratio to ours. All outputs and gradients are \
compared with the reference first, and wrong ones are marked. "once" marks implementations that take more than 100 copies and \
0.1 s, and are therefore timed in one round. "memory" is the peak memory of tensors during a call, in maps (for models in MB, \
without weights and optimizer state).

Maps are read from memory and written to memory, as in a training step: calls rotate through many inputs, and their results are \
kept meanwhile. Otherwise the copy of a small map would take half the time or all of it, depending on what the caches hold.

The process keeps the memory that it frees. Otherwise the C library would allocate every output above 32 MiB from the system, and \
page faults would take longer than any of the shifts and hide all differences."""


def run(full: bool, device: torch.device, only: tuple[str, ...], skip: tuple[str, ...], out: Path) -> int:
    """Runs the suite, prints the tables, and saves tables, ``bench.json`` and figures in ``out``.

    Returns:
        The exit status: 1 if an implementation of ours failed or is wrong, 2 if no benchmark was selected, else 0.
    """
    begin = time.perf_counter()
    console = make_console()
    out.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    limit_libraries()
    set_up_compiler()
    suppress_warnings()
    bench_run = Run()
    jobs = suite.jobs(full, device, only, skip)
    if not jobs:
        words = f"--only {' '.join(only) or '(all)'} --skip {' '.join(skip) or '(none)'}"
        print(printable(f"s2mlp: no benchmark matches {words}"), file=sys.stderr)
        return 2
    console.print(f"{bench_run.machine['name']}, PyTorch {bench_run.machine['torch']}\n\n{METHOD}\n")
    columns = [TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn()]
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(jobs))
        for job in jobs:
            progress.update(task, description=str(job))
            started = time.perf_counter()
            results = job.run()
            if not console.is_terminal:
                console.print(f"{time.perf_counter() - started:6.0f} s  {job}")
            for result in results:
                if isinstance(result, Breakdown):
                    bench_run.breakdowns.append(result)
                else:
                    bench_run.measurements.append(result)
            bench_run.save(out / "bench.json")  # after each job, so that an interrupted run leaves its results
            release_freed_memory()
            progress.advance(task)
        progress.update(task, description="done")
    console.print()
    tables.show(tables.sections(bench_run), console)
    if lines := headline(bench_run):
        console.print("\n  ".join([TITLE, *lines]), soft_wrap=True)
    for line in shortfalls(bench_run):
        console.print(line, style="yellow", soft_wrap=True)
    console.print()
    write_text(out / "bench.md", tables.document(bench_run))
    for path in (out / "bench.json", out / "bench.md", *pictures.draw_all(bench_run, out)):
        console.print(f"  {printable(path)}", soft_wrap=True)
    bad = [m for m in bench_run.measurements if is_ours(m.name) and (m.failure or m.right is False)]
    for m in bad:
        console.print(f"{m.case}: {m.name}: {m.failure or 'wrong'}", style="bold red")
    console.print(f"\nDone in {time.perf_counter() - begin:.0f} s.")
    return 1 if bad else 0


def compare_files(before: Path, after: Path) -> int:
    """Prints the changes between two result files.

    Returns:
        The exit status: 1 if an implementation of ours regressed, 2 if a file cannot be read, else 0.
    """
    try:
        a, b = load(before), load(after)
    except (OSError, ValueError) as error:
        print(printable(f"s2mlp: {error}"), file=sys.stderr)
        return 2
    return show(compare(a, b), a, b, make_console())


def make_console() -> Console:
    """A console as wide as the terminal, or wide enough for the tables if the output is redirected. Texts have no markup."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 140
    return console
