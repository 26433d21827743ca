"""What got slower, faster or wrong from one benchmark run to another."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from s2mlp_cuda.bench.measurement import COPY, Case, Measurement, Run, is_ours

#: A smaller difference of medians, as a ratio, is no change, however sure it is.
SMALLEST_RATIO = 1.05

WRONG, RIGHT = "became wrong", "became right"
STOPPED, STARTED = "stopped running", "started running"
SLOWER, FASTER, SAME = "slower", "faster", "the same"
ONLY_A, ONLY_B = "only in A", "only in B"
#: What a way of ours must not do.
SETBACKS = (WRONG, STOPPED, SLOWER)
#: The order of table and summary.
KINDS = (WRONG, STOPPED, SLOWER, FASTER, RIGHT, STARTED, SAME, ONLY_A, ONLY_B)
#: What the table lists, in colours.
STYLES = {WRONG: "bold red", STOPPED: "bold red", SLOWER: "red", FASTER: "green", RIGHT: "green", STARTED: "green"}


@dataclass(frozen=True)
class Change:
    """What became of one way to compute a case.

    Attributes:
        kind: one of ``KINDS``.
        unit: of ``before`` and ``after``: "copies" of the map or "ms".
        before: median in A, nan where there is none.
        after: median in B, nan where there is none.
    """

    case: Case
    name: str
    kind: str
    unit: str = ""
    before: float = math.nan
    after: float = math.nan

    @property
    def ratio(self) -> float:
        return self.after / self.before

    @property
    def size(self) -> float:
        """The larger of the ratio and its inverse: twice as slow is as large a change as twice as fast."""
        return max(self.ratio, 1 / self.ratio)

    @property
    def is_setback(self) -> bool:
        """Whether a way of ours does worse."""
        return is_ours(self.name) and self.kind in SETBACKS


def compare(a: Run, b: Run) -> list[Change]:
    """One change per way and case from ``a`` to ``b``, those of the kind "the same" included.

    Times count in copies of the map, round by round, where both runs have the copy, else in milliseconds. The copies
    themselves and what runs in neither are left out. Setbacks come first, and of each kind the largest.
    """
    ways_a, ways_b = _by_way(a), _by_way(b)
    changes = []
    for key in ways_a | ways_b:
        if key[1] == COPY:
            continue
        if key not in ways_b:
            changes.append(Change(*key, ONLY_A))
        elif key not in ways_a:
            changes.append(Change(*key, ONLY_B))
        else:
            changes += _change(ways_a, ways_b, *key)
    return sorted(changes, key=lambda change: (KINDS.index(change.kind), -change.size))


def _by_way(run: Run) -> dict[tuple[Case, str], Measurement]:
    return {(m.case, m.name): m for m in run.measurements}


def _change(ways_a: dict, ways_b: dict, case: Case, name: str) -> list[Change]:
    a, b = ways_a[case, name], ways_b[case, name]
    if not (a.seconds or b.seconds):
        return []
    if not b.seconds:
        return [Change(case, name, STOPPED)]
    if not a.seconds:
        return [Change(case, name, STARTED)]
    copy_a, copy_b = (ways.get((case, COPY)) for ways in (ways_a, ways_b))
    if copy_a and copy_a.seconds and copy_b and copy_b.seconds:
        unit, before, after = "copies", _in_copies(a, copy_a), _in_copies(b, copy_b)
    else:
        unit, before, after = "ms", [1e3 * s for s in a.seconds], [1e3 * s for s in b.seconds]
    change = Change(case, name, _kind(a, b, before, after), unit, statistics.median(before), statistics.median(after))
    return [change]


def _in_copies(m: Measurement, copy: Measurement) -> list[float]:
    """Each round by the copy of the same round, so that a slow second of the machine divides out."""
    if len(m.seconds) == len(copy.seconds):
        return [seconds / unit for seconds, unit in zip(m.seconds, copy.seconds)]
    return [seconds / copy.median for seconds in m.seconds]


def _kind(a: Measurement, b: Measurement, before: list[float], after: list[float]) -> str:
    """Correctness first: the time of a wrong result says nothing about that of a right one."""
    if b.right is False and a.right is not False:
        return WRONG
    if b.right is True and a.right is False:
        return RIGHT
    (low_before, high_before), (low_after, high_after) = _notch(before), _notch(after)
    ratio = statistics.median(after) / statistics.median(before)
    if low_after > high_before and ratio > SMALLEST_RATIO:
        return SLOWER
    if high_after < low_before and 1 / ratio > SMALLEST_RATIO:
        return FASTER
    return SAME


def _notch(values: list[float]) -> tuple[float, float]:
    """The notch of a box plot: medians whose notches do not overlap differ, with about 95% confidence.

    McGill, Tukey and Larsen, Variations of Box Plots, The American Statistician 32 (1978): median ± 1.57 IQR / sqrt(n).
    A single value says nothing about the noise, so its notch is everything.
    """
    if len(values) < 2:
        return -math.inf, math.inf
    first, median, third = statistics.quantiles(values, n=4)
    half = 1.57 * (third - first) / math.sqrt(len(values))
    return median - half, median + half


def remarks(changes: Iterable[Change], a: Run, b: Run) -> list[str]:
    """What must be known before the changes are read: the runs are of different machines or versions of PyTorch."""
    found = []
    if a.machine["name"] != b.machine["name"]:
        found.append(f"The machines differ: {a.machine['name']} in A, {b.machine['name']} in B.")
        if any(change.unit == "ms" for change in changes):
            found.append("Changes in ms are therefore those of the machine, too; only times in copies are free of it.")
    before, after = (run.machine.get("cpu_capability") for run in (a, b))
    if before and after and before != after:
        found.append(f"The CPU capabilities differ: {before} in A, {after} in B. Times in copies depend on it, too.")
    if a.machine["torch"] != b.machine["torch"]:
        found.append(f"The versions of PyTorch differ: {a.machine['torch']} in A, {b.machine['torch']} in B.")
    return found


def summary(changes: Iterable[Change]) -> str:
    """Such as "3 slower, 1 faster, 120 the same, 4 only in A"; what never happened is left out, but for the first three."""
    counts = Counter(change.kind for change in changes)
    return ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind] or kind in (SLOWER, FASTER, SAME))


def show(changes: list[Change], a: Run, b: Run, console: Console) -> int:
    """Prints remarks, a table of the changes and a summary.

    Returns:
        The exit status: 1 where one of our own ways got slower, got wrong or stopped running, else 0.
    """
    for remark in remarks(changes, a, b):
        console.print(remark, style="yellow", markup=False)
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("change")
    table.add_column("way")
    table.add_column("A", justify="right", no_wrap=True)
    table.add_column("B", justify="right", no_wrap=True)
    table.add_column("case")
    for change in changes:
        if change.kind in STYLES:
            table.add_row(_verdict(change), escape(change.name), *_times(change), str(change.case), style=STYLES[change.kind])
    if table.row_count:
        console.print(table)
    console.print(summary(changes))
    return int(any(change.is_setback for change in changes))


def _verdict(change: Change) -> str:
    return f"{change.size:.2f}x {change.kind}" if change.kind in (SLOWER, FASTER) else change.kind


def _times(change: Change) -> tuple[str, str]:
    """Before and after with the unit; empty where there is nothing to compare."""
    if not change.unit:
        return "", ""
    return f"{change.before:.2f} {change.unit}", f"{change.after:.2f} {change.unit}"
