"""Breakdown of a model's training step by kind of operator."""

import itertools
from collections.abc import Iterable, Iterator

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from s2mlp_cuda._style import OURS_COLOR
from s2mlp_cuda.bench.measurement import Breakdown, Run
from s2mlp_cuda.bench.models import FUSED, SLICES
from s2mlp_cuda.bench.pictures.page import (
    DARK,
    LIGHT_TEAL,
    MUTED,
    case_label,
    differing,
    make_page,
    model_rows,
    number_text,
    range_text,
)

TEALS = (OURS_COLOR, LIGHT_TEAL)


def figures(run: Run) -> Iterator[tuple[str, Figure]]:
    """Stacked bars: the time of a step by kind of operator."""
    if run.breakdowns:
        yield "step-breakdown", _draw_breakdowns(run.breakdowns)


def _kind_colors(kinds: Iterable[str]) -> dict[str, str]:
    """Teal for this package's operators, muted colors for all others."""
    teals, muted = itertools.cycle(TEALS), itertools.cycle(MUTED)
    return {kind: next(teals if _is_our_kind(kind) else muted) for kind in kinds}


def _is_our_kind(kind: str) -> bool:
    return "shift" in kind or "split attention" in kind or "fused" in kind


def _draw_breakdowns(breakdowns: list[Breakdown]) -> Figure:
    kinds = dict.fromkeys(kind for breakdown in breakdowns for kind in breakdown.seconds)
    colors = _kind_colors(kind for kind in kinds if any(b.seconds.get(kind) for b in breakdowns))
    fields = differing([b.case for b in breakdowns], ("direction", "shape", "data_format", "dtype", "device", "threads"))
    models: dict[str, list[str]] = {}  # label to names of variants
    for b in breakdowns:
        models.setdefault(case_label(b.case, fields), []).append(b.name)
    rows, _ = model_rows(models)
    figure, body = make_page(13, max(3, 0.8 + 0.45 * (max(rows.values()) + 1)), _breakdown_title(breakdowns))
    axis = body.subplots()
    end = max(1e3 * sum(b.seconds.values()) for b in breakdowns)
    for b in breakdowns:
        _draw_stack(axis, rows[case_label(b.case, fields), b.name], b.seconds, colors, end)
    axis.set_yticks(list(rows.values()), [f"{label}, {name}".replace("\n", " ") for label, name in rows])
    axis.set_ylim(max(rows.values()) + 0.6, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.set_xlim(0, 1.12 * end)
    axis.set_xlabel("ms")
    handles = [Patch(color=color, label=kind) for kind, color in colors.items()]
    body.legend(handles=handles, loc="outside right upper", frameon=False)
    return figure


def _draw_stack(axis: Axes, row: float, seconds: dict[str, float], colors: dict[str, str], end: float) -> None:
    """Draws one stacked bar in ms with its total. Segments that are wide enough (relative to ``end``) show their share."""
    begin, total = 0.0, 1e3 * sum(seconds.values())
    for kind, color in colors.items():
        length = 1e3 * seconds.get(kind, 0)
        axis.barh(row, length, left=begin, color=color, height=0.8, edgecolor="white", linewidth=0.8)
        if length > 0.06 * end:
            share = f"{100 * length / total:.0f}%"
            text_color = "white" if _luminance(color) < 0.5 else DARK
            axis.text(begin + length / 2, row, share, ha="center", va="center", fontsize=10, color=text_color)
        begin += length
    axis.annotate(f"{number_text(total)} ms", (total, row), (5, 0), textcoords="offset points", va="center", fontsize=10)


def _luminance(color: str) -> float:
    red, green, blue = to_rgb(color)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _breakdown_title(breakdowns: list[Breakdown]) -> str:
    shares: dict[str, list[float]] = {}  # by variant
    for breakdown in breakdowns:
        moved = sum(seconds for kind, seconds in breakdown.seconds.items() if _is_our_kind(kind) or "slices" in kind)
        shares.setdefault(breakdown.name, []).append(100 * moved / sum(breakdown.seconds.values()))
    steps = ", ".join(dict.fromkeys(b.case.direction for b in breakdowns))
    texts = [f"{range_text(shares[variant], 0)}% with {variant}" for variant in (SLICES, FUSED) if variant in shares]
    title = f"Breakdown of a {steps}"
    return f"{title}: shifts, copies and slices are {' and '.join(texts)}" if texts else title
