"""``s2mlp bench``: runs the suite, prints its tables, saves its result and pictures."""

import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from s2mlp_cuda._system import keep_freed_memory, release_freed_memory
from s2mlp_cuda.bench import pictures, suite, tables
from s2mlp_cuda.bench.compare import compare, show
from s2mlp_cuda.bench.headline import TITLE, headline, shortfalls
from s2mlp_cuda.bench.measurement import Breakdown, Run, is_ours, load
from s2mlp_cuda.bench.settings import limit_libraries, set_up_compiler, silence_remarks

METHOD = """\
Times are in copies of one map, taken in the same rounds: all ways run in turn, round by round; figures are medians, and over \
several shapes their median and range. "x ours" is the ratio to ours. Every value and gradient is compared with the reference \
first: what is wrong is marked, however fast it is. "once" marks what takes more than 100 copies and 0.1 s, and is timed in one \
round. "memory" is the most that tensors took during a call, in maps (for models in MB, beyond weights and optimizer state).

Maps come from memory and go to memory, as in a training step: calls take many inputs in turn, and their results are kept \
meanwhile. Otherwise the copy of a small map would take half the time or all of it, depending on what the caches hold.

The process keeps the memory that it frees. Otherwise the C library gets every output above 32 MB afresh from the system, page \
by page, which takes longer than any of the shifts, and all differences vanish."""


def run(full: bool, device: torch.device, only: tuple[str, ...], skip: tuple[str, ...], out: Path) -> int:
    """Runs the suite, prints its tables, saves them, ``bench.json`` and pictures in ``out``; returns 1 if one of ours failed."""
    begin = time.perf_counter()
    console = make_console()
    out.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    limit_libraries()
    set_up_compiler()
    silence_remarks()
    found = Run()
    jobs = suite.jobs(full, device, only, skip)
    if not jobs:
        console.print(f"no benchmark is left with only {' '.join(only) or 'all'}, and not {' '.join(skip) or 'any'}")
        return 2
    console.print(f"{found.machine['name']}, PyTorch {found.machine['torch']}\n\n{METHOD}\n")
    columns = [TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn()]
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
                    found.breakdowns.append(result)
                else:
                    found.measurements.append(result)
            found.save(out / "bench.json")  # a run that is broken off leaves what it has
            release_freed_memory()
            progress.advance(task)
        progress.update(task, description="done")
    console.print()
    tables.show(tables.sections(found), console)
    if lines := headline(found):
        console.print("\n  ".join([TITLE, *lines]), markup=False, soft_wrap=True)
    for line in shortfalls(found):
        console.print(line, style="yellow", markup=False, soft_wrap=True)
    console.print()
    (out / "bench.md").write_text(tables.document(found))
    for path in (out / "bench.json", out / "bench.md", *pictures.draw_all(found, out)):
        console.print(f"  {path}")
    bad = [m for m in found.measurements if is_ours(m.name) and (m.failure or m.right is False)]
    for m in bad:
        console.print(f"{m.case}: {m.name}: {m.failure or 'wrong'}", style="bold red", markup=False)
    console.print(f"\nDone in {time.perf_counter() - begin:.0f} s.")
    return 1 if bad else 0


def compare_files(before: Path, after: Path) -> int:
    """Prints what changed from one result file to the other; returns 1 if one of ours got slower or wrong, 2 without files."""
    try:
        a, b = load(before), load(after)
    except (OSError, ValueError) as error:
        print(f"s2mlp: {error}", file=sys.stderr)
        return 2
    return show(compare(a, b), a, b, make_console())


def make_console() -> Console:
    """As wide as the terminal, or wide enough for the tables where the output goes to a file."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=140)
