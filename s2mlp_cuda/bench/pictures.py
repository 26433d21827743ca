"""The pictures of a benchmark run, each as SVG and PNG."""

import itertools
import math
import statistics
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from s2mlp_cuda.bench.measurement import COPY, Breakdown, Case, Measurement, Run, copies, is_ours
from s2mlp_cuda.bench.models import FUSED, NATIVE, SLICES, TIMM
from s2mlp_cuda.bench.operators import BOTH, FORWARD
from s2mlp_cuda.demo.pictures import OTHER_COLOR, OURS_COLOR, STYLE, WRONG_COLOR

DARK, PALE, LIGHT_TEAL = "#334155", "#e2e8f0", "#2dd4bf"
DASHES = (0, (4, 3))
#: Paths in place of text look the same in every browser, whatever its fonts; the salt makes the ids the same in every run.
FILE_STYLE = {
    **STYLE, "svg.fonttype": "path", "svg.hashsalt": "s2mlp_cuda", "hatch.linewidth": 1.2, "figure.dpi": 110,
    "savefig.bbox": "standard",
}  # fmt: skip
#: For the lines and segments that are not ours: none is teal or red.
MUTED = ("#64748b", "#b08968", "#8da0cb", "#d4a5c9", "#c9b458", "#75608f", "#a3b18a", "#b7c0cc")
TEALS = (OURS_COLOR, LIGHT_TEAL)
FORM_COLORS = {SLICES: OTHER_COLOR, NATIVE: "#6c8ebf", FUSED: OURS_COLOR, TIMM: "#c9a56b"}
#: A bar of more than so many medians of its panel is cut short, and says so.
CUT = 5
#: How long such a bar is, in lengths of the longest that is not cut.
CUT_LENGTH = 1.1
#: Keeps numbers readable where they meet a line.
PLATE = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
#: Below it, the time of a call is not that of moving the map.
LARGE_MAP = 2**20


def draw_all(run: Run, folder: Path) -> list[Path]:
    """Writes every picture that the run has data for; returns the paths, an SVG and a PNG of each."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with matplotlib.rc_context(FILE_STYLE):
        for name, figure in itertools.chain(
            _bars(run), _rooflines(run), _scalings(run), _model_times(run), _step_breakdown(run)
        ):
            foot = figure.subfigs[-1]
            foot.text(0.006, 0.5, f"{run.machine['name']}, PyTorch {run.machine['torch']}", va="center", fontsize=10, color=DARK)
            paths += [folder / f"{name}.svg", folder / f"{name}.png"]
            figure.savefig(paths[-2], metadata={"Date": None})
            figure.savefig(paths[-1])
    return paths


def _setting(case: Case, field: str) -> str:
    """A field of a case, for people and file names."""
    value = getattr(case, field)
    if field == "shape":
        return "x".join(map(str, value))
    return f"{value} threads" if field == "threads" else str(value)


def _differing(cases: Iterable[Case], fields: Iterable[str]) -> list[str]:
    """Those of the fields in which the cases are not all the same."""
    cases = list(cases)
    return [field for field in fields if len({getattr(case, field) for case in cases}) > 1]


def _by_picture(kind: str, cases: dict[Case, list[Measurement]], named: tuple[str, ...], others: tuple[str, ...]) -> dict:
    """Cases by the name of the picture that shows them.

    Args:
        named: fields of the case that are always in the name.
        others: fields that join it where the run has several of them.
    """
    fields = [*named, *_differing(cases, others)]
    pictures: dict[str, dict[Case, list[Measurement]]] = {}
    for case, ways in cases.items():
        name = "-".join([kind, *(_setting(case, field) for field in fields)])
        pictures.setdefault(name.replace(" ", "").replace(":", ""), {})[case] = ways
    return pictures


def _find_copy(ways: Iterable[Measurement]) -> Measurement | None:
    return next((m for m in ways if m.name == COPY and m.seconds), None)


def _with_copy(cases: dict[Case, list[Measurement]]) -> dict[Case, list[Measurement]]:
    """The cases whose copy was timed, and something else as well."""
    return {case: ways for case, ways in cases.items() if _find_copy(ways) and len(ways) > 1}


def _names(cases: dict[Case, list[Measurement]]) -> list[str]:
    """All ways but the copy in the order of the run, ours first."""
    names = dict.fromkeys(m.name for ways in cases.values() for m in ways if m.name != COPY)
    return sorted(names, key=lambda name: not is_ours(name))


def _best(ways: Iterable[Measurement], ours: bool) -> Measurement | None:
    """The fastest right way of ours, or of the others."""
    right = [m for m in ways if m.seconds and m.right and m.name != COPY and is_ours(m.name) == ours]
    return min(right, key=lambda m: m.median, default=None)


def _number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value < 100 else f"{value:.0f}"


def _range(values: Iterable[float], digits: int = 1) -> str:
    values = list(values)
    least, most = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return least if least == most else f"{least} to {most}"


def _map_bytes(case: Case) -> int:
    return math.prod(case.shape) * getattr(torch, case.dtype).itemsize


def _size(count: int) -> str:
    """Bytes for people; KB, MB and GB are powers of 1024."""
    power = min(3, int(math.log2(count)) // 10)
    return f"{round(count / 1024**power, 1):g} {('bytes', 'KB', 'MB', 'GB')[power]}"


def _size_axis(axis: Axes, sizes: Iterable[int]) -> None:
    """A logarithmic x axis of bytes, with ticks at powers of two."""
    sizes = list(sizes)
    first, last = math.log2(min(sizes)), math.log2(max(sizes))
    step = next(step for step in (1, 2, 5, 10, 20) if last - first <= 6 * step)
    ticks = range(math.floor(first / step) * step, math.ceil(last) + 2, step)
    axis.set_xscale("log", base=2)
    axis.set_xticks([2**tick for tick in ticks], [_size(2**tick) for tick in ticks])
    axis.set_xticks([], minor=True)
    margin = 1.3 if last - first > 3 else 2
    axis.set_xlim(min(sizes) / margin, max(sizes) * margin)
    axis.set_xlabel("size of the map")
    axis.grid(color=PALE)
    axis.set_axisbelow(True)


def _number_axis(axis: Axes) -> None:
    """A logarithmic y axis with ticks at 1, 2, 5, 10 and so on."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


def _page(width: float, height: float, title: str) -> tuple[Figure, SubFigure]:
    """A figure and its part for the panels, in inches; above it the title, below it room for one line."""
    limit = int(8.6 * width)
    lines = textwrap.wrap(title, limit)
    lines = textwrap.wrap(title, min(limit, len(title) // len(lines) + 8))  # lines of like length
    heights = [0.1 + 0.27 * len(lines), height, 0.3]
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.09, h_pad=0.06)
    head, body, _ = figure.subfigures(3, 1, height_ratios=heights)
    head.text(0.006, 0.4, "\n".join(lines), va="center", fontsize=14, fontweight="bold")
    return figure, body


def _legend(body: SubFigure, handles: list) -> None:
    """Below the panels, in as many lines as the width asks for."""
    columns = min(len(handles), int(body.figure.get_figwidth() / 3.2))
    body.legend(handles=handles, loc="outside lower left", ncols=columns, frameon=False)


def _rows(axis: Axes, labels: list[str]) -> None:
    """A labelled row per bar, from the top down; ours in colour."""
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    for label in axis.get_yticklabels():
        if is_ours(label.get_text()):
            label.set(color=OURS_COLOR, fontweight="bold")


def _wrong_style() -> dict:
    return {"facecolor": "#fecaca", "edgecolor": WRONG_COLOR, "hatch": "///", "linewidth": 0}


def _bar(axis: Axes, row: float, m: Measurement, unit: float, end: float, style: dict, height: float = 0.7) -> None:
    """A bar of the median with whiskers at the quartiles and its number; or why there is none.

    Args:
        unit: seconds of one on the axis.
        end: the longest length that is shown in full.
    """
    if not m.seconds:
        text = textwrap.shorten(f"did not run: {m.failure}", 46, placeholder=" ...")
        axis.text(0.015 * end, row, text, va="center", fontsize=9, fontstyle="italic", color=DARK, bbox=PLATE)
        return
    length = m.median / unit
    wrong = m.right is False
    tip = min(length, CUT_LENGTH * end)
    axis.barh(row, tip, height=height, **(_wrong_style() if wrong else style))
    if length == tip:
        low, high = (quartile / unit for quartile in m.quartiles)
        axis.plot([low, high], [row, row], color=DARK, linewidth=1.1, marker="|", markersize=6)
        tip = min(max(length, high), CUT_LENGTH * end)
    else:
        axis.text(0.93 * tip, row, "//", va="center", ha="center", fontsize=13, fontweight="bold", color="white")
    axis.annotate(
        _number(length) + (" wrong" if wrong else ""), (tip, row), (5, 0), textcoords="offset points", va="center", fontsize=10,
        color=WRONG_COLOR if wrong else DARK, fontweight="bold" if wrong else "normal", bbox=PLATE,
    )


def _bars(run: Run) -> Iterator[tuple[str, Figure]]:
    """Forward + backward of all ways of an operator, in copies of the map; one panel per case."""
    cases = _with_copy({case: ways for case, ways in run.cases("operator").items() if case.direction == BOTH})
    fields = ("subject", "data_format", "dtype")
    for name, group in _by_picture("bars", cases, fields, ("device", "threads")).items():
        yield name, _draw_bars(group)


def _draw_bars(cases: dict[Case, list[Measurement]]) -> Figure:
    names = _names(cases)
    columns = min(4, len(cases))
    lines = math.ceil(len(cases) / columns)
    height = 0.4 + lines * (0.9 + 0.34 * len(names))
    figure, body = _page(3.2 + max(6, 3.3 * columns), height, _bars_title(next(iter(cases)), cases.values()))
    axes = body.subplots(lines, columns, sharey=True, squeeze=False).flatten()
    for axis, (case, ways) in zip(axes, cases.items()):
        _draw_bar_panel(axis, names, ways)
        axis.set_title(f"{_setting(case, 'shape')}, {_size(_map_bytes(case))}", fontsize=12)
    for axis in axes[len(cases) :]:
        axis.set_axis_off()
    handles = [
        Patch(color=OURS_COLOR, label="s2mlp_cuda"),
        Patch(color=OTHER_COLOR, label="other ways (//: cut short)"),
        Patch(**_wrong_style(), label="wrong result"),
        Line2D([], [], color=DARK, linewidth=1.4, linestyle=DASHES, label="every byte moved once"),
        Line2D([], [], color=DARK, linewidth=1.1, marker="|", label="quartiles of the rounds"),
    ]
    _legend(body, handles)
    return figure


def _bars_title(case: Case, panels: Iterable[list[Measurement]]) -> str:
    what = f"{case.subject}, {BOTH}, {case.data_format}, {case.dtype}"
    ours, others = [], []
    for ways in panels:
        ours += [copies(m, ways) for m in [_best(ways, ours=True)] if m]
        others += [copies(m, ways) for m in [_best(ways, ours=False)] if m]
    if not ours or not others:
        return f"{what}: time in copies of the map"
    return f"{what}: ours takes as long as {_range(ours)} copies of the map, the best other right way {_range(others)}"


def _draw_bar_panel(axis: Axes, names: list[str], ways: list[Measurement]) -> None:
    copy = _find_copy(ways)
    found = {m.name: m for m in ways}
    lengths = [copies(m, ways) for m in ways if m.seconds and m is not copy]
    end = max((length for length in lengths if length <= CUT * statistics.median(lengths)), default=1)
    for row, name in enumerate(names):
        if name in found:
            _bar(axis, row, found[name], copy.median, end, {"color": OURS_COLOR if is_ours(name) else OTHER_COLOR})
    floor = next((found[name].floor_bytes for name in names if name in found and found[name].floor_bytes), None)
    if floor and copy.floor_bytes:
        axis.axvline(floor / copy.floor_bytes, color=DARK, linewidth=1.4, linestyle=DASHES)
    axis.set_xlim(0, 1.45 * end)
    axis.set_xlabel("copies of the map")
    _rows(axis, names)


def _rooflines(run: Run) -> Iterator[tuple[str, Figure]]:
    """Bytes per second of operators against those of a copy, by the size of the map; a row per operator, a column per dtype."""
    cases = {
        case: ways
        for case, ways in _with_copy({**run.cases("operator"), **run.cases("scale")}).items()
        if _find_copy(ways).floor_bytes
    }
    for name, group in _by_picture("roofline", cases, ("device",), ("threads",)).items():
        yield name, _draw_roofline(group)


def _rate(m: Measurement) -> float:
    """GB per second that had to be moved at the least."""
    return m.floor_bytes / m.median / 1e9


def _draw_roofline(cases: dict[Case, list[Measurement]]) -> Figure:
    dtypes = list(dict.fromkeys(case.dtype for case in cases))
    subjects = list(dict.fromkeys(case.subject for case in cases))
    figure, body = _page(1 + max(8, 5.6 * len(dtypes)), 0.8 + 3.1 * len(subjects), _roofline_title(cases))
    axes = body.subplots(len(subjects), len(dtypes), sharey="row", squeeze=False)
    for line, subject in zip(axes, subjects):
        for axis, dtype in zip(line, dtypes):
            panel = {case: ways for case, ways in cases.items() if (case.subject, case.dtype) == (subject, dtype)}
            if panel:
                _draw_roofline_panel(axis, panel)
                axis.set_title(f"{subject}, {dtype}", fontsize=12)
            else:
                axis.set_axis_off()
    body.supylabel("GB/s of what must be read and written", fontsize=12)
    handles = [Line2D([], [], color=DARK, linewidth=2, marker=".", label="copy of the map")]
    for ours, who in ((True, "ours"), (False, "best other right way")):
        handles += [Line2D([], [], label=f"{who}, {way}", **_marker_style(way, ours)) for way in (FORWARD, BOTH)]
    _legend(body, handles)
    return figure


def _roofline_title(cases: dict[Case, list[Measurement]]) -> str:
    shares = []
    for case, ways in cases.items():
        best = _best(ways, ours=True)
        if best and best.floor_bytes and _map_bytes(case) >= LARGE_MAP:
            shares.append(100 * _rate(best) / _rate(_find_copy(ways)))
    what = "How near operators come to the speed of a copy"
    return f"{what}: ours work at {_range(shares, 0)}% of it on maps of 1 MB and more" if shares else what


def _marker_style(direction: str, ours: bool) -> dict:
    """Triangles are small enough to be seen on the circles."""
    forward = direction == FORWARD
    style = {"marker": "^" if forward else "o", "markersize": 8.5 if forward else 11, "linestyle": "none"}
    if ours:
        return {**style, "color": LIGHT_TEAL if forward else OURS_COLOR, "markeredgecolor": "white", "zorder": 4 + forward}
    return {**style, "markerfacecolor": "none", "markeredgecolor": OTHER_COLOR, "markeredgewidth": 1.5}


def _draw_roofline_panel(axis: Axes, cases: dict[Case, list[Measurement]]) -> None:
    """A marker is the median over all cases of one size."""
    copy_rates: dict[int, list[float]] = {}
    rates: dict[tuple[str, bool], dict[int, list[float]]] = {}
    for case, ways in cases.items():
        size = _map_bytes(case)
        copy_rates.setdefault(size, []).append(_rate(_find_copy(ways)))
        for ours in (False, True):
            best = _best(ways, ours)
            if best and best.floor_bytes:
                rates.setdefault((case.direction, ours), {}).setdefault(size, []).append(_rate(best))
    for size, values in copy_rates.items():
        axis.plot([size] * len(values), values, ".", color=DARK, alpha=0.5, markersize=5)
    sizes = sorted(copy_rates)
    axis.plot(sizes, [statistics.median(copy_rates[size]) for size in sizes], color=DARK, linewidth=2)
    for (direction, ours), series in rates.items():
        axis.plot(series.keys(), [statistics.median(values) for values in series.values()], **_marker_style(direction, ours))
    _number_axis(axis)
    _size_axis(axis, sizes)


def _scalings(run: Run) -> Iterator[tuple[str, Figure]]:
    """Time per element over all sizes of the map, a line per way; forward left, forward + backward right."""
    cases = {case: ways for case, ways in run.cases("scale").items() if any(m.seconds for m in ways)}
    fields = ("subject", "dtype")
    for name, group in _by_picture("scaling", cases, fields, ("data_format", "device", "threads")).items():
        yield name, _draw_scaling(group)


def _draw_scaling(cases: dict[Case, list[Measurement]]) -> Figure:
    names = [*_names(cases), COPY]
    colors = zip(itertools.cycle(MUTED), itertools.chain(["-"] * len(MUTED), itertools.repeat(DASHES)))
    styles = {name: _line_style(name, colors) for name in names}
    directions = [d for d in (FORWARD, BOTH) if any(case.direction == d for case in cases)]
    figure, body = _page(4 + 5.2 * len(directions), 5.6, _scaling_title(cases))
    axes = body.subplots(1, len(directions), sharey=True, squeeze=False).flatten()
    for axis, direction in zip(axes, directions):
        panel = {case: ways for case, ways in cases.items() if case.direction == direction}
        for name in reversed(names):
            found = sorted((m for ways in panel.values() for m in ways if m.name == name), key=lambda m: _map_bytes(m.case))
            _draw_scaling_line(axis, [m for m in found if m.seconds], styles[name])
        _number_axis(axis)
        _size_axis(axis, [_map_bytes(case) for case in panel])
        axis.set_title(direction)
    axes[0].set_ylabel("ns per element")
    everything = [m for ways in cases.values() for m in ways]
    handles = [Line2D([], [], label=_line_label(name, everything), **styles[name]) for name in names if name != COPY]
    handles += [Line2D([], [], label=COPY, **styles[COPY])] if _with_copy(cases) else []
    if any(m.right is False for m in everything):
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
    """Sorted by size; crosses where the result was wrong."""

    def draw(part: list[Measurement], **style) -> None:
        times = [1e9 * m.median / math.prod(m.case.shape) for m in part]
        axis.plot([_map_bytes(m.case) for m in part], times, **style)

    draw(line, **style)
    draw([m for m in line if m.right is False], color=WRONG_COLOR, marker="x", linestyle="none")


def _scaling_title(cases: dict[Case, list[Measurement]]) -> str:
    case = next(iter(cases))
    ratios = []
    for ways in cases.values():
        ours, other = _best(ways, ours=True), _best(ways, ours=False)
        ratios += [other.median / ours.median] if ours and other else []
    sizes = [_map_bytes(case) for case in cases]
    what = f"{case.subject}, {case.dtype}, maps of {_size(min(sizes))} to {_size(max(sizes))}"
    return f"{what}: the best other right way takes {_range(ratios)} times as long as ours" if ratios else what


def _model_times(run: Run) -> Iterator[tuple[str, Figure]]:
    """Inference and training step of models in their forms."""
    cases = run.cases("model")
    for name, group in _by_picture("model-times", cases, (), ("dtype", "device", "threads")).items():
        if any(m.seconds for ways in group.values() for m in ways):
            yield name, _draw_models(group)


def _form_style(name: str) -> dict:
    """Of a bar: compiled forms are hatched and lighter."""
    eager = name.removeprefix("torch.compile(").removesuffix(")")
    color = FORM_COLORS.get(eager, OTHER_COLOR)
    if eager == name:
        return {"color": color}
    lighter = tuple(1 - 0.45 * (1 - part) for part in to_rgb(color))
    return {"facecolor": lighter, "edgecolor": color, "hatch": "\\\\\\", "linewidth": 0}


def _label(case: Case, fields: Iterable[str]) -> str:
    return ",\n".join([case.subject, *(_setting(case, field) for field in fields)])


def _draw_models(cases: dict[Case, list[Measurement]]) -> Figure:
    directions = list(dict.fromkeys(case.direction for case in cases))
    fields = _differing(cases, ("shape", "data_format"))
    models: dict[str, list[str]] = {}  # label: names of forms
    for case, ways in cases.items():
        forms = models.setdefault(_label(case, fields), [])
        forms += [m.name for m in ways if m.name not in forms and m.name != COPY]
    rows, middles = _model_rows(models)
    figure, body = _page(3 + 5.4 * len(directions), 1.5 + 0.33 * (max(rows.values()) + 1), _models_title(cases))
    axes = body.subplots(1, len(directions), sharey=True, squeeze=False).flatten()
    for axis, direction in zip(axes, directions):
        panel = {_label(case, fields): ways for case, ways in cases.items() if case.direction == direction}
        end = max((1e3 * m.median for ways in panel.values() for m in ways if m.seconds), default=1)
        for label, ways in panel.items():
            for m in ways:
                if m.name != COPY:
                    _bar(axis, rows[label, m.name], m, 1e-3, end, _form_style(m.name), height=0.84)
        axis.set_xlim(0, 1.25 * end)
        axis.set_ylim(max(rows.values()) + 0.7, -0.7)
        axis.set_yticks(middles, models)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel("ms")
        axis.set_title(direction)
    handles = [Patch(**_form_style(name), label=name) for name in dict.fromkeys(itertools.chain(*models.values()))]
    _legend(body, handles)
    return figure


def _model_rows(models: dict[str, list[str]]) -> tuple[dict[tuple[str, str], float], list[float]]:
    """Where the bar of each (model, form) is, with a gap between models, and the middle of each model's bars."""
    rows, middles, next_row = {}, [], 0.0
    for label, forms in models.items():
        rows.update({(label, form): next_row + i for i, form in enumerate(forms)})
        middles.append(next_row + (len(forms) - 1) / 2)
        next_row += len(forms) + 0.6
    return rows, middles


def _models_title(cases: dict[Case, list[Measurement]]) -> str:
    direction = list(cases)[-1].direction
    ratios = []
    for case, ways in cases.items():
        medians = {m.name: m.median for m in ways if m.seconds and m.right}
        if case.direction == direction and FUSED in medians and SLICES in medians:
            ratios.append(medians[FUSED] / medians[SLICES])
    what = ", ".join(dict.fromkeys(case.dtype for case in cases))
    if not ratios:
        return f"Times of models, {what}"
    return f"Models, {what}: with fused operators a {direction} takes {_range(ratios, 2)} of its time with slices"


def _step_breakdown(run: Run) -> Iterator[tuple[str, Figure]]:
    """Stacked bars: the time of a model's step by kind of operator."""
    if run.breakdowns:
        yield "step-breakdown", _draw_breakdowns(run.breakdowns)


def _kind_colors(kinds: Iterable[str]) -> dict[str, str]:
    """Teals for what this package computes, muted colours for the rest."""
    teals, muted = itertools.cycle(TEALS), itertools.cycle(MUTED)
    return {kind: next(teals if _is_our_kind(kind) else muted) for kind in kinds}


def _is_our_kind(kind: str) -> bool:
    return "shift" in kind or "split attention" in kind or "fused" in kind


def _draw_breakdowns(breakdowns: list[Breakdown]) -> Figure:
    kinds = dict.fromkeys(kind for breakdown in breakdowns for kind in breakdown.seconds)
    colors = _kind_colors(kind for kind in kinds if any(b.seconds.get(kind) for b in breakdowns))
    fields = _differing([b.case for b in breakdowns], ("direction", "shape", "data_format", "dtype", "device", "threads"))
    models: dict[str, list[str]] = {}  # label: names of forms
    for b in breakdowns:
        models.setdefault(_label(b.case, fields), []).append(b.name)
    rows, _ = _model_rows(models)
    figure, body = _page(13, max(3, 0.8 + 0.45 * (max(rows.values()) + 1)), _breakdown_title(breakdowns))
    axis = body.subplots()
    end = max(1e3 * sum(b.seconds.values()) for b in breakdowns)
    for b in breakdowns:
        _draw_stack(axis, rows[_label(b.case, fields), b.name], b.seconds, colors, end)
    axis.set_yticks(list(rows.values()), [f"{label}, {name}".replace("\n", " ") for label, name in rows])
    axis.set_ylim(max(rows.values()) + 0.6, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.set_xlim(0, 1.12 * end)
    axis.set_xlabel("ms")
    handles = [Patch(color=color, label=kind) for kind, color in colors.items()]
    body.legend(handles=handles, loc="outside right upper", frameon=False)
    return figure


def _draw_stack(axis: Axes, row: float, seconds: dict[str, float], colors: dict[str, str], end: float) -> None:
    """One stacked bar in ms with its total; segments that are wide enough, against ``end``, have their share inside."""
    begin, total = 0.0, 1e3 * sum(seconds.values())
    for kind, color in colors.items():
        length = 1e3 * seconds.get(kind, 0)
        axis.barh(row, length, left=begin, color=color, height=0.8, edgecolor="white", linewidth=0.8)
        if length > 0.06 * end:
            share = f"{100 * length / total:.0f}%"
            text_color = "white" if _luminance(color) < 0.5 else DARK
            axis.text(begin + length / 2, row, share, ha="center", va="center", fontsize=10, color=text_color)
        begin += length
    axis.annotate(f"{_number(total)} ms", (total, row), (5, 0), textcoords="offset points", va="center", fontsize=10)


def _luminance(color: str) -> float:
    red, green, blue = to_rgb(color)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _breakdown_title(breakdowns: list[Breakdown]) -> str:
    shares: dict[str, list[float]] = {}  # by form
    for breakdown in breakdowns:
        moved = sum(seconds for kind, seconds in breakdown.seconds.items() if _is_our_kind(kind) or "slices" in kind)
        shares.setdefault(breakdown.name, []).append(100 * moved / sum(breakdown.seconds.values()))
    steps = ", ".join(dict.fromkeys(b.case.direction for b in breakdowns))
    found = [f"{_range(shares[form], 0)}% with {form}" for form in (SLICES, FUSED) if form in shares]
    what = f"Where the time of a {steps} goes"
    return f"{what}: shifts, copies and slices are {' and '.join(found)}" if found else what
