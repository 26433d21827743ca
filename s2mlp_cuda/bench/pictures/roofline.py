"""Roofline plots: memory throughput of operators and of a copy, by the size of the map."""

import statistics
from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from s2mlp_cuda._style import OTHER_COLOR, OURS_COLOR
from s2mlp_cuda.bench.measurement import Case, Measurement, Run, fastest
from s2mlp_cuda.bench.operators import BOTH, FORWARD
from s2mlp_cuda.bench.pictures.page import (
    DARK,
    LIGHT_TEAL,
    add_legend,
    by_picture,
    find_copy,
    make_page,
    map_bytes,
    number_axis,
    range_text,
    size_axis,
    with_copy,
)

#: Bytes. The time of calls on smaller maps is not dominated by memory traffic.
LARGE_MAP = 10**6


def figures(run: Run) -> Iterator[tuple[str, Figure]]:
    """Memory throughput of operators and of a copy, by the size of the map; one row per operator, one column per dtype."""
    cases = {
        case: measurements
        for case, measurements in with_copy({**run.cases("operator"), **run.cases("scale")}).items()
        if find_copy(measurements).floor_bytes
    }
    for name, group in by_picture("roofline", cases, ("device",), ("threads",)).items():
        yield name, _draw_roofline(group)


def _rate(m: Measurement) -> float:
    """The minimum memory traffic divided by the time, in GB/s."""
    return (m.floor_bytes or 0) / m.median / 1e9


def _draw_roofline(cases: dict[Case, list[Measurement]]) -> Figure:
    dtypes = list(dict.fromkeys(case.dtype for case in cases))
    subjects = list(dict.fromkeys(case.subject for case in cases))
    figure, body = make_page(1 + max(8, 5.6 * len(dtypes)), 0.8 + 3.1 * len(subjects), _roofline_title(cases))
    axes = body.subplots(len(subjects), len(dtypes), sharey="row", squeeze=False)
    for line, subject in zip(axes, subjects):
        for axis, dtype in zip(line, dtypes):
            panel = {case: measurements for case, measurements in cases.items() if (case.subject, case.dtype) == (subject, dtype)}
            if panel:
                _draw_roofline_panel(axis, panel)
                axis.set_title(f"{subject}, {dtype}", fontsize=12)
            else:
                axis.set_axis_off()
    body.supylabel("minimum traffic, GB/s", fontsize=12)
    handles = [Line2D([], [], color=DARK, linewidth=2, marker=".", label="copy of the map")]
    for ours, label in ((True, "ours"), (False, "best correct baseline")):
        handles += [Line2D([], [], label=f"{label}, {d}", **_marker_style(d, ours)) for d in (FORWARD, BOTH)]
    add_legend(body, handles)
    return figure


def _roofline_title(cases: dict[Case, list[Measurement]]) -> str:
    shares = []
    for case, measurements in cases.items():
        best = fastest(measurements, ours=True)
        if best and best.floor_bytes and map_bytes(case) >= LARGE_MAP:
            shares.append(100 * _rate(best) / _rate(find_copy(measurements)))
    title = "Memory throughput of operators relative to a copy"
    return f"{title}: ours reach {range_text(shares, 0)}% on maps of 1 MB and more" if shares else title


def _marker_style(direction: str, ours: bool) -> dict:
    """The style of a marker. Triangles are smaller than circles, so that they are visible on top of them."""
    forward = direction == FORWARD
    style = {"marker": "^" if forward else "o", "markersize": 8.5 if forward else 11, "linestyle": "none"}
    if ours:
        return {**style, "color": LIGHT_TEAL if forward else OURS_COLOR, "markeredgecolor": "white", "zorder": 4 + forward}
    return {**style, "markerfacecolor": "none", "markeredgecolor": OTHER_COLOR, "markeredgewidth": 1.5}


def _draw_roofline_panel(axis: Axes, cases: dict[Case, list[Measurement]]) -> None:
    """Each marker is the median over all cases of one size."""
    copy_rates: dict[int, list[float]] = {}
    rates: dict[tuple[str, bool], dict[int, list[float]]] = {}
    for case, measurements in cases.items():
        size = map_bytes(case)
        copy_rates.setdefault(size, []).append(_rate(find_copy(measurements)))
        for ours in (False, True):
            best = fastest(measurements, ours)
            if best and best.floor_bytes:
                rates.setdefault((case.direction, ours), {}).setdefault(size, []).append(_rate(best))
    for size, values in copy_rates.items():
        axis.plot([size] * len(values), values, ".", color=DARK, alpha=0.5, markersize=5)
    sizes = sorted(copy_rates)
    axis.plot(sizes, [statistics.median(copy_rates[size]) for size in sizes], color=DARK, linewidth=2)
    for (direction, ours), series in rates.items():
        axis.plot(list(series), [statistics.median(values) for values in series.values()], **_marker_style(direction, ours))
    number_axis(axis)
    size_axis(axis, sizes)
