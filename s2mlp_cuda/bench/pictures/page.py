"""Shared code of all figures: layout, axes, bars, labels and file names."""

import math
import textwrap
from collections.abc import Iterable

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from s2mlp_cuda._style import OURS_COLOR, WRONG_COLOR
from s2mlp_cuda.bench.measurement import COPY, Case, Measurement, is_ours

DARK, PALE, LIGHT_TEAL = "#334155", "#e2e8f0", "#2dd4bf"
DASHES = (0, (4, 3))
#: Colors of lines and segments that are not ours. None is teal or red.
MUTED = ("#64748b", "#b08968", "#8da0cb", "#d4a5c9", "#c9b458", "#75608f", "#a3b18a", "#b7c0cc")
#: The length of a truncated bar, relative to the longest complete one.
TRUNCATED_LENGTH = 1.1
#: Background of labels, which keeps them readable on top of a line.
LABEL_BOX = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}


def setting_text(case: Case, field: str) -> str:
    """A field of a case as text, for titles and file names."""
    value = getattr(case, field)
    if field == "shape":
        return "x".join(map(str, value))
    if field == "threads":
        return f"{value} thread{'s' if value > 1 else ''}"
    return str(value)


def differing(cases: Iterable[Case], fields: Iterable[str]) -> list[str]:
    """The fields in which the cases differ."""
    cases = list(cases)
    return [field for field in fields if len({getattr(case, field) for case in cases}) > 1]


def by_picture(kind: str, cases: dict[Case, list[Measurement]], named: tuple[str, ...], others: tuple[str, ...]) -> dict:
    """Groups cases by figure; returns cases by the figure's name.

    Args:
        kind: first part of the name.
        cases: the cases to group.
        named: fields of the case that are always part of the name.
        others: fields that are part of the name if the run has several values of them.
    """
    fields = [*named, *differing(cases, others)]
    pictures: dict[str, dict[Case, list[Measurement]]] = {}
    for case, measurements in cases.items():
        name = "-".join([kind, *(setting_text(case, field) for field in fields)])
        pictures.setdefault(name.replace(", ", "-").replace(" ", "").replace(":", ""), {})[case] = measurements
    return pictures


def find_copy(measurements: Iterable[Measurement]) -> Measurement:
    """The copy of a case of :func:`with_copy`."""
    return next(m for m in measurements if m.name == COPY)


def with_copy(cases: dict[Case, list[Measurement]]) -> dict[Case, list[Measurement]]:
    """The cases with a timed copy and at least one implementation."""

    def is_complete(measurements: list[Measurement]) -> bool:
        return any(m.name == COPY and m.seconds for m in measurements) and any(m.name != COPY for m in measurements)

    return {case: measurements for case, measurements in cases.items() if is_complete(measurements)}


def implementation_names(cases: dict[Case, list[Measurement]]) -> list[str]:
    """All implementations in the order of the run, ours first."""
    names = dict.fromkeys(m.name for measurements in cases.values() for m in measurements if m.name != COPY)
    return sorted(names, key=lambda name: not is_ours(name))


def number_text(value: float) -> str:
    """Three significant digits, or all digits before the decimal point."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value < 100 else f"{value:.0f}"


def range_text(values: Iterable[float], digits: int = 1) -> str:
    values = list(values)
    least, most = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return least if least == most else f"{least} to {most}"


def map_bytes(case: Case) -> int:
    return math.prod(case.shape) * getattr(torch, case.dtype).itemsize


def size_text(count: int) -> str:
    """A number of bytes as text; KB, MB and GB are powers of 1000."""
    power = min(3, (len(str(count)) - 1) // 3)
    return f"{round(count / 1000**power, 1):g} {('bytes', 'KB', 'MB', 'GB')[power]}"


def size_axis(axis: Axes, sizes: Iterable[int]) -> None:
    """A logarithmic x axis of bytes, with ticks at powers of ten or, for few of them, at 1, 2, 5, 10 and so on."""
    sizes = list(sizes)
    first, last = math.log10(min(sizes)), math.log10(max(sizes))
    steps = (1,) if last - first > 2 else (1, 2, 5)
    ticks = [step * 10**power for power in range(math.floor(first), math.ceil(last) + 1) for step in steps]
    axis.set_xscale("log")
    axis.set_xticks(ticks, [size_text(tick) for tick in ticks])
    axis.set_xticks([], minor=True)
    margin = 1.3 if last - first > 1 else 2
    axis.set_xlim(min(sizes) / margin, max(sizes) * margin)
    axis.set_xlabel("size of the map")
    axis.grid(color=PALE)
    axis.set_axisbelow(True)


def number_axis(axis: Axes) -> None:
    """A logarithmic y axis with ticks at 1, 2, 5, 10 and so on."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


def make_page(width: float, height: float, title: str) -> tuple[Figure, SubFigure]:
    """A figure and its subfigure for the panels, with width and height of the panels in inches. The title is above them; below
    them is space for one line."""
    limit = int(8.6 * width)
    lines = textwrap.wrap(title, limit)
    lines = textwrap.wrap(title, min(limit, len(title) // len(lines) + 8))  # balanced lines
    heights = [0.1 + 0.27 * len(lines), height, 0.3]
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.09, h_pad=0.06)
    head, body, _ = figure.subfigures(3, 1, height_ratios=heights)
    head.text(0.006, 0.4, "\n".join(lines), va="center", fontsize=14, fontweight="bold")
    return figure, body


def wrong_handles(measurements: Iterable[Measurement]) -> list[Patch]:
    """The entry of a legend for the bars of wrong results, if there are any."""
    return [Patch(**wrong_style(), label="wrong result")] if any(m.seconds and m.right is False for m in measurements) else []


def add_legend(body: SubFigure, handles: list) -> None:
    """A legend below the panels, with as many columns as the width allows."""
    columns = min(len(handles), int(body.figure.get_figwidth() / 3.2))
    body.legend(handles=handles, loc="outside lower left", ncols=columns, frameon=False)


def label_rows(axis: Axes, labels: list[str]) -> None:
    """Labels the rows of bars from top to bottom, ours in color."""
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    for label in axis.get_yticklabels():
        if is_ours(label.get_text()):
            label.set(color=OURS_COLOR, fontweight="bold")


def wrong_style() -> dict:
    """Of the bars of wrong results."""
    return {"facecolor": "#fecaca", "edgecolor": WRONG_COLOR, "hatch": "///", "linewidth": 0}


def draw_bar(axis: Axes, row: float, m: Measurement, unit: float, end: float, style: dict, height: float = 0.7) -> None:
    """Draws the median as a bar with its value, and whiskers at the quartiles if there are several rounds. If the implementation
    did not run, writes the reason instead.

    Args:
        axis: the axes to draw on.
        row: y position.
        m: the measurement.
        unit: seconds per unit of the x axis.
        end: the longest bar that is not truncated.
        style: matplotlib style of the bar.
        height: height of the bar.
    """
    if not m.seconds:
        text = textwrap.shorten(f"did not run: {m.failure}", 46, placeholder=" ...")
        axis.text(0.015 * end, row, text, va="center", fontsize=9, fontstyle="italic", color=DARK, bbox=LABEL_BOX)
        return
    length = m.median / unit
    wrong = m.right is False
    tip = min(length, TRUNCATED_LENGTH * end)
    axis.barh(row, tip, height=height, **(wrong_style() if wrong else style))
    if length == tip:
        low, high = (quartile / unit for quartile in m.quartiles)
        if len(m.seconds) > 1:
            axis.plot([low, high], [row, row], color=DARK, linewidth=1.1, marker="|", markersize=6)
        tip = min(max(length, high), TRUNCATED_LENGTH * end)
    else:
        axis.text(0.93 * tip, row, "//", va="center", ha="center", fontsize=13, fontweight="bold", color="white")
    annotate_bar(axis, row, tip, length, wrong)


def annotate_bar(axis: Axes, row: float, tip: float, value: float, wrong: bool) -> None:
    """Writes the value of a bar beside its tip."""
    axis.annotate(
        number_text(value) + (" wrong" if wrong else ""),
        (tip, row),
        (5, 0),
        textcoords="offset points",
        va="center",
        fontsize=10,
        color=WRONG_COLOR if wrong else DARK,
        fontweight="bold" if wrong else "normal",
        bbox=LABEL_BOX,
    )


def case_label(case: Case, fields: Iterable[str]) -> str:
    return ",\n".join([case.subject, *(setting_text(case, field) for field in fields)])


def model_rows(models: dict[str, list[str]]) -> tuple[dict[tuple[str, str], float], list[float]]:
    """The y position of the bar of each (model, variant), with a gap between models, and the middle of each model's bars."""
    rows, middles, next_row = {}, [], 0.0
    for label, variants in models.items():
        rows.update({(label, variant): next_row + i for i, variant in enumerate(variants)})
        middles.append(next_row + (len(variants) - 1) / 2)
        next_row += len(variants) + 0.6
    return rows, middles
