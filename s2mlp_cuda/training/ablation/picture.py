"""The ablations as bars: our results on the left, the papers' on the right, on separate axes."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.style import context

from s2mlp_cuda._files import atomic_file
from s2mlp_cuda._style import OTHER_COLOR, OURS_COLOR, STYLE

if TYPE_CHECKING:
    from s2mlp_cuda.training.ablation.results import Result


def draw(results: list[Result], note: str, path: Path) -> Path:
    """
    Args:
        results: in the order of their groups.
        note: a description of the results, below the bars.
        path: PNG file to write.
    """
    places, headings, place, group = [], [], 0.0, ""
    for result in results:
        if result.row.group != group:
            group = result.row.group
            place += 0.6
            headings.append((place, group))
            place += 1
        places.append(place)
        place += 1
    beside = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
    lowest, highest = (extreme(result.mean for result in results) for extreme in (min, max))
    with context(STYLE):  # type: ignore[arg-type]
        lines = textwrap.wrap(note, 165)
        foot = 0.45 + 0.14 * len(lines)  # inches
        height = 0.27 * place + 0.6 + foot
        figure = Figure(figsize=(11, height))
        FigureCanvasAgg(figure)
        here, paper = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        figure.subplots_adjust(left=0.18, right=0.97, wspace=0.06, top=1 - 0.5 / height, bottom=foot / height)
        here.barh(places, [result.mean for result in results], 0.72, color=OURS_COLOR)
        for y, result in zip(places, results):
            spread = result.spread or 0.0
            if spread:
                here.plot([result.mean - spread, result.mean + spread], [y, y], color="#0f172a", linewidth=1.4)
            text = f"{result.mean:.1f}" + (f" ± {spread:.1f}" if spread else "")
            here.annotate(text, (result.mean + spread, y), **beside)
            if result.row.paper is not None:
                paper.barh(y, result.row.paper, 0.72, color=OTHER_COLOR)
                paper.annotate(f"{result.row.paper:.1f}", (result.row.paper, y), **beside)
        for y, text in headings:
            here.annotate(
                text,
                (0, y),
                (-6, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=10,
                fontweight="bold",
            )
        here.set_yticks(places, [result.row.name for result in results], fontsize=9.5)
        here.set_ylim(place, -0.2)
        left = max(0, 10 * (lowest // 10) - 10)
        here.set_xlim(left, highest + 0.2 * (highest - left))  # with space for the number behind the longest bar
        paper.set_xlim(50, 93)
        here.set_title("Here: 32x32 images, top-1 %", fontsize=11)
        paper.set_title("Papers: ImageNet, top-1 %", fontsize=11)
        for axes in (here, paper):
            axes.grid(axis="x", color="#e2e8f0")
            axes.set_axisbelow(True)
            axes.tick_params(axis="y", length=0)
        figure.text(0.02, 0.1 / height, "\n".join(lines), fontsize=8, color="#334155", va="bottom")
        with atomic_file(path) as file:
            figure.savefig(file, format="png", dpi=90)
    return path
