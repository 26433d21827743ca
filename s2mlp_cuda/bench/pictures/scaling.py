"""Time per element by the size of the map."""

import itertools
import math
from collections.abc import Iterable, Iterator

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from s2mlp_cuda._style import OURS_COLOR, WRONG_COLOR
from s2mlp_cuda.bench.measurement import COPY, Case, Measurement, Run, fastest, is_ours
from s2mlp_cuda.bench.operators import BOTH, FORWARD
from s2mlp_cuda.bench.pictures.page import (
    DASHES,
    MUTED,
    by_picture,
    implementation_names,
    make_page,
    map_bytes,
    number_axis,
    range_text,
    size_axis,
    size_text,
    with_copy,
)


def figures(run: Run) -> Iterator[tuple[str, Figure]]:
    """Time per element by the size of the map, one line per implementation; forward left, forward + backward right."""
    cases = {case: measurements for case, measurements in run.cases("scale").items() if any(m.seconds for m in measurements)}
    fields = ("subject", "dtype")
    for name, group in by_picture("scaling", cases, fields, ("data_format", "device", "threads")).items():
        yield name, _draw_scaling(group)


def _draw_scaling(cases: dict[Case, list[Measurement]]) -> Figure:
    names = [*implementation_names(cases), COPY]
    colors = zip(itertools.cycle(MUTED), itertools.chain(["-"] * len(MUTED), itertools.repeat(DASHES)))
    styles = {name: _line_style(name, colors) for name in names}
    directions = [d for d in (FORWARD, BOTH) if any(case.direction == d for case in cases)]
    figure, body = make_page(4 + 5.2 * len(directions), 5.6, _scaling_title(cases))
    axes = body.subplots(1, len(directions), sharey=True, squeeze=False).flatten()
    for axis, direction in zip(axes, directions):
        panel = {case: measurements for case, measurements in cases.items() if case.direction == direction}
        for name in reversed(names):
            line = sorted(
                (m for measurements in panel.values() for m in measurements if m.name == name), key=lambda m: map_bytes(m.case)
            )
            _draw_scaling_line(axis, [m for m in line if m.seconds], styles[name])
        number_axis(axis)
        size_axis(axis, [map_bytes(case) for case in panel])
        axis.set_title(direction)
    axes[0].set_ylabel("ns per element")
    everything = [m for measurements in cases.values() for m in measurements]
    handles = [Line2D([], [], label=_line_label(name, everything), **styles[name]) for name in names if name != COPY]
    handles += [Line2D([], [], label=COPY, **styles[COPY])] if with_copy(cases) else []
    if any(m.seconds and m.right is False for m in everything):
        handles.append(Line2D([], [], color=WRONG_COLOR, marker="x", linestyle="none", label="wrong result"))
    body.legend(handles=handles, loc="outside right upper", frameon=False)
    return figure


def _line_style(name: str, colors: Iterator[tuple]) -> dict:
    if is_ours(name):
        return {"color": OURS_COLOR, "linewidth": 3.4}
    if name == COPY:
        return {"color": "black", "linewidth": 1.6, "linestyle": (0, (1, 1.5))}
    color, linestyle = next(colors)
    return {"color": color, "linewidth": 1.6, "linestyle": linestyle}


def _line_label(name: str, measurements: Iterable[Measurement]) -> str:
    ran = any(m.seconds for m in measurements if m.name == name)
    return name if ran else f"{name} (did not run)"


def _draw_scaling_line(axis: Axes, line: list[Measurement], style: dict) -> None:
    """Draws measurements sorted by size, with crosses at wrong results."""

    def draw(part: list[Measurement], **style) -> None:
        times = [1e9 * m.median / math.prod(m.case.shape) for m in part]
        axis.plot([map_bytes(m.case) for m in part], times, **style)

    draw(line, **style)
    draw([m for m in line if m.right is False], color=WRONG_COLOR, marker="x", linestyle="none")


def _scaling_title(cases: dict[Case, list[Measurement]]) -> str:
    case = next(iter(cases))
    ratios = []
    for measurements in cases.values():
        ours, other = fastest(measurements, ours=True), fastest(measurements, ours=False)
        ratios += [other.median / ours.median] if ours and other else []
    sizes = [map_bytes(case) for case in cases]
    subject = f"{case.subject}, {case.dtype}, maps of {size_text(min(sizes))} to {size_text(max(sizes))}"
    return f"{subject}: the best correct baseline takes {range_text(ratios)} times as long as ours" if ratios else subject
