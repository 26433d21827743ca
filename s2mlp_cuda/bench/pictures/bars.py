"""Bar charts per size: forward + backward of all implementations of an operator, in copies of the map."""

import math
import statistics
from collections.abc import Iterable, Iterator

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from s2mlp_cuda._style import OTHER_COLOR, OURS_COLOR
from s2mlp_cuda.bench.measurement import COPY, Case, Measurement, Run, copies, fastest, is_ours
from s2mlp_cuda.bench.operators import BOTH
from s2mlp_cuda.bench.pictures.page import (
    DARK,
    DASHES,
    add_legend,
    by_picture,
    draw_bar,
    find_copy,
    implementation_names,
    label_rows,
    make_page,
    map_bytes,
    range_text,
    setting_text,
    size_text,
    with_copy,
    wrong_handles,
)

#: Bars longer than this multiple of the median bar of their panel are truncated and marked.
MAX_BAR = 5


def figures(run: Run) -> Iterator[tuple[str, Figure]]:
    """Forward + backward of all implementations of an operator, in copies of the map; one panel per case."""
    cases = with_copy({case: measurements for case, measurements in run.cases("operator").items() if case.direction == BOTH})
    fields = ("subject", "data_format", "dtype")
    for name, group in by_picture("bars", cases, fields, ("device", "threads")).items():
        yield name, _draw_bars(group)


def _draw_bars(cases: dict[Case, list[Measurement]]) -> Figure:
    names = implementation_names(cases)
    columns = min(4, len(cases))
    rows = math.ceil(len(cases) / columns)
    height = 0.4 + rows * (0.9 + 0.34 * len(names))
    figure, body = make_page(3.2 + max(6, 3.3 * columns), height, _bars_title(next(iter(cases)), cases.values()))
    axes = body.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    for axis, (case, measurements) in zip(axes, cases.items()):
        _draw_bar_panel(axis, names, measurements)
        axis.set_title(f"{setting_text(case, 'shape')}, {size_text(map_bytes(case))}", fontsize=12)
    for axis in axes[len(cases) :]:
        axis.set_axis_off()
    handles = [
        Patch(color=OURS_COLOR, label="s2mlp_cuda"),
        Patch(color=OTHER_COLOR, label="baselines (//: truncated)"),
        *wrong_handles(m for measurements in cases.values() for m in measurements),
        Line2D([], [], color=DARK, linewidth=1.4, linestyle=DASHES, label="lower bound: every byte moved once"),
        Line2D([], [], color=DARK, linewidth=1.1, marker="|", label="quartiles of the rounds"),
    ]
    add_legend(body, handles)
    return figure


def _bars_title(case: Case, panels: Iterable[list[Measurement]]) -> str:
    subject = f"{case.subject}, {BOTH}, {case.data_format}, {case.dtype}"
    ours, others = [], []
    for measurements in panels:
        ours += [copies(m, measurements) for m in [fastest(measurements, ours=True)] if m]
        others += [copies(m, measurements) for m in [fastest(measurements, ours=False)] if m]
    if not ours or not others:
        return f"{subject}: time in copies of the map"
    return f"{subject}: ours takes {range_text(ours)} copies of the map, the best correct baseline {range_text(others)}"


def _draw_bar_panel(axis: Axes, names: list[str], measurements: list[Measurement]) -> None:
    copy = find_copy(measurements)
    by_name = {m.name: m for m in measurements}
    shown = [m for m in measurements if m.seconds and m.name != COPY]
    longest = MAX_BAR * statistics.median(m.median for m in shown) if shown else 0
    end = max((m.quartiles[1] / copy.median for m in shown if m.median <= longest), default=1)
    for row, name in enumerate(names):
        if name in by_name:
            draw_bar(axis, row, by_name[name], copy.median, end, {"color": OURS_COLOR if is_ours(name) else OTHER_COLOR})
    floor = next((by_name[name].floor_bytes for name in names if name in by_name and by_name[name].floor_bytes), None)
    if floor and copy.floor_bytes:
        axis.axvline(floor / copy.floor_bytes, color=DARK, linewidth=1.4, linestyle=DASHES)
    axis.set_xlim(0, 1.45 * end)
    axis.set_xlabel("copies of the map")
    label_rows(axis, names)
