"""Compares two benchmark runs: significant slowdowns and speedups, and changes in correctness."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from s2mlp_cuda._terminal import printable
from s2mlp_cuda.bench.measurement import COPY, Case, Measurement, Run, is_ours

#: Smaller ratios of medians do not count as changes, even if they are statistically significant.
MIN_RATIO = 1.05

WRONG, RIGHT = "became wrong", "became right"
STOPPED, STARTED = "stopped running", "started running"
SLOWER, FASTER, SAME = "slower", "faster", "the same"
ONLY_A, ONLY_B = "only in A", "only in B"
#: Kinds that are regressions if the implementation is ours.
REGRESSIONS = (WRONG, STOPPED, SLOWER)
#: In the order of table and summary.
KINDS = (WRONG, STOPPED, SLOWER, FASTER, RIGHT, STARTED, SAME, ONLY_A, ONLY_B)
#: The kinds that the table lists, with their rich styles.
STYLES = {WRONG: "bold red", STOPPED: "bold red", SLOWER: "red", FASTER: "green", RIGHT: "green", STARTED: "green"}


@dataclass(frozen=True)
class Change:
    """The change of one implementation of a case between two runs.

    Attributes:
        kind: one of ``KINDS``.
        unit: unit of ``before`` and ``after``: "copies" of the map or "ms".
        before: median in A, or nan.
        after: median in B, or nan.
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
        """The larger of the ratio and its inverse, so that slowdowns and speedups are comparable."""
        return max(self.ratio, 1 / self.ratio)

    @property
    def is_regression(self) -> bool:
        """Whether an implementation of ours regressed."""
        return is_ours(self.name) and self.kind in REGRESSIONS


def compare(a: Run, b: Run) -> list[Change]:
    """One change per case and implementation from ``a`` to ``b``, including those of the kind "the same".

    Times are in copies of the map, round by round, if both runs measured the copy, else in milliseconds. Copies and
    implementations that ran in neither are omitted. Sorted by kind, regressions first, then by size.
    """
    by_key_a, by_key_b = _by_key(a), _by_key(b)
    changes = []
    for key in by_key_a | by_key_b:
        if key[1] == COPY:
            continue
        if key not in by_key_b:
            changes.append(Change(*key, ONLY_A))
        elif key not in by_key_a:
            changes.append(Change(*key, ONLY_B))
        else:
            changes += _change(by_key_a, by_key_b, *key)
    return sorted(changes, key=lambda change: (KINDS.index(change.kind), -change.size))


def _by_key(run: Run) -> dict[tuple[Case, str], Measurement]:
    return {(m.case, m.name): m for m in run.measurements}


def _change(by_key_a: dict, by_key_b: dict, case: Case, name: str) -> list[Change]:
    a, b = by_key_a[case, name], by_key_b[case, name]
    if not (a.seconds or b.seconds):
        return []
    if not b.seconds:
        return [Change(case, name, STOPPED)]
    if not a.seconds:
        return [Change(case, name, STARTED)]
    copy_a, copy_b = by_key_a.get((case, COPY)), by_key_b.get((case, COPY))
    if copy_a and copy_a.seconds and copy_b and copy_b.seconds:
        unit, before, after = "copies", _in_copies(a, copy_a), _in_copies(b, copy_b)
    else:
        unit, before, after = "ms", [1e3 * s for s in a.seconds], [1e3 * s for s in b.seconds]
    change = Change(case, name, _kind(a, b, before, after), unit, statistics.median(before), statistics.median(after))
    return [change]


def _in_copies(m: Measurement, copy: Measurement) -> list[float]:
    """Each round divided by the copy of the same round, so that variations of the machine's speed cancel out."""
    if len(m.seconds) == len(copy.seconds):
        return [seconds / unit for seconds, unit in zip(m.seconds, copy.seconds)]
    return [seconds / copy.median for seconds in m.seconds]


def _kind(a: Measurement, b: Measurement, before: list[float], after: list[float]) -> str:
    """The kind of a change. Correctness comes first: the time of a wrong result is not comparable."""
    if b.right is False and a.right is not False:
        return WRONG
    if b.right is True and a.right is False:
        return RIGHT
    (low_before, high_before), (low_after, high_after) = _notch(before), _notch(after)
    ratio = statistics.median(after) / statistics.median(before)
    if low_after > high_before and ratio > MIN_RATIO:
        return SLOWER
    if high_after < low_before and 1 / ratio > MIN_RATIO:
        return FASTER
    return SAME


def _notch(values: list[float]) -> tuple[float, float]:
    """The notch of a box plot: medians whose notches do not overlap differ with about 95% confidence.

    McGill, Tukey and Larsen, Variations of Box Plots, The American Statistician 32 (1978): median ± 1.57 IQR / sqrt(n).
    The noise of a single value is unknown, so its notch is infinite.
    """
    if len(values) < 2:
        return -math.inf, math.inf
    first, median, third = statistics.quantiles(values, n=4)
    half = 1.57 * (third - first) / math.sqrt(len(values))
    return median - half, median + half


def environment_differences(changes: Iterable[Change], a: Run, b: Run) -> list[str]:
    """Differences between machines and PyTorch versions that limit the comparison."""
    texts = []
    if a.machine["name"] != b.machine["name"]:
        texts.append(f"The machines differ: {a.machine['name']} in A, {b.machine['name']} in B.")
        if any(change.unit == "ms" for change in changes):
            texts.append("Changes in ms therefore include the difference between the machines; changes in copies do not.")
    before, after = (run.machine.get("cpu_capability") for run in (a, b))
    if before and after and before != after:
        texts.append(f"The CPU capabilities differ: {before} in A, {after} in B. Times in copies also depend on them.")
    if a.machine["torch"] != b.machine["torch"]:
        texts.append(f"The PyTorch versions differ: {a.machine['torch']} in A, {b.machine['torch']} in B.")
    return texts


def summary(changes: Iterable[Change]) -> str:
    """E.g. "3 slower, 1 faster, 120 the same, 4 only in A"; counts of zero are omitted, except for these first three kinds."""
    counts = Counter(change.kind for change in changes)
    return ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind] or kind in (SLOWER, FASTER, SAME))


def show(changes: list[Change], a: Run, b: Run, console: Console) -> int:
    """Prints environment differences, a table of the changes and a summary.

    Returns:
        The exit status: 1 if an implementation of ours became slower or wrong or stopped running, else 0.
    """
    for text in environment_differences(changes, a, b):
        console.print(printable(text), style="yellow")
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("change")
    table.add_column("implementation")
    table.add_column("A", justify="right", no_wrap=True)
    table.add_column("B", justify="right", no_wrap=True)
    table.add_column("case")
    for change in changes:
        if change.kind in STYLES:
            cells = (_verdict(change), change.name, *_times(change), str(change.case))
            table.add_row(*map(printable, cells), style=STYLES[change.kind])
    if table.row_count:
        console.print(table)
    console.print(summary(changes))
    return int(any(change.is_regression for change in changes))


def _verdict(change: Change) -> str:
    return f"{change.size:.2f}x {change.kind}" if change.kind in (SLOWER, FASTER) else change.kind


def _times(change: Change) -> tuple[str, str]:
    """Before and after, with the unit; empty if there is nothing to compare."""
    if not change.unit:
        return "", ""
    return f"{change.before:.2f} {change.unit}", f"{change.after:.2f} {change.unit}"
