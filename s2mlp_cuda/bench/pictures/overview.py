"""One figure for all operators: forward + backward of all implementations, in copies of the map, over all sizes."""

import statistics
from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from s2mlp_cuda._style import OTHER_COLOR, OURS_COLOR
from s2mlp_cuda.bench.measurement import COPY, Case, Measurement, Run, copies, is_ours
from s2mlp_cuda.bench.operators import BOTH
from s2mlp_cuda.bench.pictures.page import (
    DARK,
    add_legend,
    annotate_bar,
    by_picture,
    label_rows,
    make_page,
    with_copy,
    wrong_handles,
    wrong_style,
)  # fmt: skip


def figures(run: Run) -> Iterator[tuple[str, Figure]]:
    """A figure per layout and dtype with at least two operators."""
    cases = with_copy({case: measurements for case, measurements in run.cases("operator").items() if case.direction == BOTH})
    for name, group in by_picture("overview", cases, ("data_format", "dtype"), ("device", "threads")).items():
        subjects = list(dict.fromkeys(case.subject for case in group if "," not in case.subject))
        if len(subjects) > 1:
            yield name, _draw([{c: m for c, m in group.items() if c.subject == subject} for subject in subjects])


def _times(cases: dict[Case, list[Measurement]]) -> dict[str, list[float]]:
    """Times in copies, one per size, of the implementations that were not too slow to be timed repeatedly; the fastest first."""
    times: dict[str, list[float]] = {}
    for measurements in cases.values():
        rounds = max(len(m.seconds) for m in measurements)
        for m in measurements:
            if m.name != COPY and len(m.seconds) == rounds:
                times.setdefault(m.name, []).append(copies(m, measurements))
    return dict(sorted(times.items(), key=lambda item: (not is_ours(item[0]), statistics.median(item[1]))))


def _draw(panels: list[dict[Case, list[Measurement]]]) -> Figure:
    times = [_times(cases) for cases in panels]
    heights = [1 + len(found) for found in times]
    case = next(iter(panels[0]))
    title = f"Forward + backward, {case.data_format}, {case.dtype}: median over the sizes, in copies of one map"
    figure, body = make_page(12.8, 0.3 * sum(heights) + 0.5, title)
    axes = body.subplots(len(panels), 1, squeeze=False, height_ratios=heights).flatten()
    for axis, cases, found in zip(axes, panels, times):
        wrong = {m.name for measurements in cases.values() for m in measurements if m.right is False}
        _draw_panel(axis, found, wrong)
        axis.set_title(next(iter(cases)).subject, fontsize=12)
    handles = [
        Patch(color=OURS_COLOR, label="s2mlp_cuda"),
        Patch(color=OTHER_COLOR, label="baselines"),
        *wrong_handles(m for cases in panels for measurements in cases.values() for m in measurements),
        Line2D([], [], color=DARK, linewidth=1.1, marker="|", label="range over the sizes"),
    ]
    add_legend(body, handles)
    return figure


def _draw_panel(axis: Axes, times: dict[str, list[float]], wrong: set[str]) -> None:
    for row, (name, values) in enumerate(times.items()):
        style = wrong_style() if name in wrong else {"color": OURS_COLOR if is_ours(name) else OTHER_COLOR}
        middle, end = statistics.median(values), max(values)
        axis.barh(row, middle, height=0.7, **style)
        if end > min(values):
            axis.plot([min(values), end], [row, row], color=DARK, linewidth=1.1, marker="|", markersize=6)
        annotate_bar(axis, row, end, middle, name in wrong)
    axis.set_xlim(0, 1.15 * max(max(values) for values in times.values()))
    label_rows(axis, list(times))
